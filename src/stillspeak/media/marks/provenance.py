"""Content credentials (C2PA): who made a file, from what, with which model, and whether it changed.

Writing: :func:`sign_file` puts a signed manifest into an MP4, GIF or PNG: that it was created by
a trained model (digital source type ``trainedAlgorithmicMedia``), with which version and weights,
from which still and speech (their SHA-256; credentials that the still carries are kept), and which
watermark its pixels bear. Reading: :func:`read_credentials` says what a file carries and whether
it still fits. Nothing here uses the network, except for a time stamp where a user names an
authority.

The signature needs a certificate. Unless an organisation's own is given, one is made on this
machine when it is first needed and kept in the user's configuration folder. Such a certificate
proves that a file has not changed since it was signed, and that two files were signed by the same
installation. It does not prove who that was: anybody can make one with any name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError, OutputError
from stillspeak.media.source import reason
from stillspeak.system.atomic import claim, whole_file

if TYPE_CHECKING:
    import c2pa
    import PIL.Image
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for what a trained model made."""
PARTLY = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's name for footage parts of which a trained model made."""
GENERATION = "org.stillspeak.generation"
"""Our own assertion: model, inputs, settings, watermark."""
WATERMARK_METHOD = "org.stillspeak.watermark.1"
SELF_MADE = "stillspeak, self-made"
"""Organisation named in the certificates that are made here."""

FORMATS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".png": "image/png",
}
"""What is written with credentials, by suffix. WebM has no place for them."""

_IDENTITY, _ROOT, _SETTINGS = "identity.pem", "root.pem", "marks.toml"
_YEARS = 10
_NO_NETWORK = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "builder": {"thumbnail": {"enabled": False}},
}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


# --- what a video was made from -----------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One input of a video, as its credentials name it."""

    sha256: str
    """Of the file's bytes; of the values where there was no file."""
    kind: Literal["file", "pixels", "samples"]
    """What was hashed: a file, (H, W, 3) uint8 values, or (S,) float32 values."""
    format: str | None = None
    """Media type of a file, where it is known."""
    data: bytes | None = field(default=None, repr=False)
    """The file itself, kept only where it carries credentials of its own."""
    path: Path | None = field(default=None, repr=False)
    """The same of a file that is too large to be kept in memory."""

    @property
    def has_credentials(self) -> bool:
        """Whether it carries credentials of its own."""
        return self.data is not None or self.path is not None


@dataclass(frozen=True)
class Origin:
    """How a video came about. Everything may be unknown."""

    model: str | None = None
    """Name of the trained model."""
    model_sha256: str | None = None
    """Of its weights file."""
    still: Source | None = None
    speech: Source | None = None
    edited: Source | None = None
    """A video of which this is an edition with generated parts; None: all of it is generated."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the frames: the seed, strengths, size. JSON values."""

    @cached_property
    def identifier(self) -> int:
        """32 bits for the watermark: a digest of all of the above, random if nothing is known."""
        known = [self.model, self.model_sha256]
        sources = (self.still, self.speech, self.edited)
        known += [source.sha256 if source else None for source in sources]
        if not any(known):
            return secrets.randbits(32)
        text = json.dumps([*known, dict(self.settings)], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Marks:
    """What ``write_video`` leaves in a file that says it is synthetic."""

    origin: Origin = field(default_factory=Origin)
    watermark: bool = True
    credentials: bool = True
    """In the formats that have a place for them, see :data:`FORMATS`."""
    label: str | None = None
    """A visible text in the corner, e.g. ``AI-generated``."""
    certificate: Path | None = None
    """PEM file of the signer's certificate chain; by default as :func:`find_signer` says."""
    key: Path | None = None
    """PEM file of its private key."""

    def find_signer(self) -> Signer:
        """As :func:`find_signer`."""
        return find_signer(self.certificate, self.key)


def describe_picture(
    source: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any], pixels: npt.NDArray[np.uint8]
) -> Source | None:
    """What the credentials say of the still.

    Args:
        source: as given to ``load_image``.
        pixels: (H, W, 3) uint8, what was read from it.
    """
    if isinstance(source, str | Path | bytes):
        return _describe_file(source, keep=True)
    return Source(_digest(np.asarray(pixels, np.uint8)), "pixels")


def describe_sound(
    source: str | Path | bytes | tuple[npt.NDArray[Any], int], samples: npt.NDArray[np.float32]
) -> Source | None:
    """What the credentials say of the speech. ``samples`` (S,) float32 were read from it."""
    if isinstance(source, str | Path | bytes):
        return _describe_file(source, keep=False)
    return Source(_digest(np.asarray(samples, "<f4")), "samples")


def describe_video(path: str | Path) -> Source | None:
    """What the credentials say of a video that is edited."""
    source = _describe_file(path, keep=False)
    if source is None or source.format is None or not _has_manifest(Path(path)):
        return source
    return replace(source, path=Path(path))


def _describe_file(source: str | Path | bytes, *, keep: bool) -> Source | None:
    try:
        if isinstance(source, bytes):
            digest, data = hashlib.sha256(source).hexdigest(), source
        elif keep:  # a picture, which was read as a whole a moment ago
            data = Path(source).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
        else:
            with Path(source).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                data = file.read(16)
    except OSError:  # gone or a pipe that was read: then it is not known
        return None
    kind = _media_type(data[:16])
    credentials = keep and kind is not None and b"c2pa" in data
    return Source(digest, "file", kind, data if credentials else None)


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _media_type(head: bytes) -> str | None:
    """Media type by a file's first 16 bytes, for formats that may hold credentials."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/avi"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    return None


# --- who signs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    """A certificate chain and its key, ready to sign."""

    chain: str
    """PEM, the signing certificate first."""
    key: str = field(repr=False)
    """PEM, PKCS 8, not encrypted."""
    algorithm: str
    """As C2PA calls it: es256, es384, es512, ps256 or ed25519."""
    timestamp_url: str | None = None
    """RFC 3161 authority that is asked for a time stamp; None: nobody is."""
    self_made: bool = False


def config_folder() -> Path:
    """Where settings and the installation's certificate are kept.

    ``STILLSPEAK_CONFIG`` names it; else the usual place: ``~/.config/stillspeak`` on Linux
    (``XDG_CONFIG_HOME``), ``~/Library/Application Support/stillspeak`` on a Mac, and
    ``%APPDATA%\\stillspeak`` on Windows.
    """
    if named := os.environ.get("STILLSPEAK_CONFIG"):
        return Path(named)
    if sys.platform == "win32" and (roaming := os.environ.get("APPDATA")):
        return Path(roaming) / "stillspeak"
    try:
        home = Path.home()
    except RuntimeError:  # no home folder, as in some containers
        return Path(".config") / "stillspeak"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "stillspeak"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "stillspeak"


def find_signer(certificate: Path | None = None, key: Path | None = None) -> Signer:
    """The signer to use: the one given, else the environment's, the settings file's, our own.

    The environment names files in ``STILLSPEAK_CERTIFICATE`` and ``STILLSPEAK_KEY`` (its pass
    phrase in ``STILLSPEAK_KEY_PASSWORD``) and a time stamp authority in
    ``STILLSPEAK_TIMESTAMP_URL``; the file ``marks.toml`` in :func:`config_folder` has the keys
    ``certificate``, ``key`` and ``timestamp_url``.

    Raises:
        ConfigError: only one of the two was given, or they cannot be read, do not fit each other
            or cannot sign content credentials.
    """
    settings = _settings()
    timestamp = os.environ.get("STILLSPEAK_TIMESTAMP_URL") or settings.get("timestamp_url")
    if timestamp and not timestamp.startswith(("http://", "https://")):
        raise ConfigError(f"time stamp authority {timestamp!r} is not an http or https address")
    choices = (
        ("--certificate and --key", certificate, key),
        (
            "STILLSPEAK_CERTIFICATE and STILLSPEAK_KEY",
            os.environ.get("STILLSPEAK_CERTIFICATE"),
            os.environ.get("STILLSPEAK_KEY"),
        ),
        (
            f"certificate and key in {config_folder() / _SETTINGS}",
            settings.get("certificate"),
            settings.get("key"),
        ),
    )
    for where, first, second in choices:
        if bool(first) != bool(second):
            raise ConfigError(f"{where}: one of the two is missing; a signature needs both")
        if first and second:
            return _load_signer(Path(first), Path(second), timestamp)
    chain, private = _own_identity()
    return Signer(chain, private, "es256", timestamp, self_made=True)


def _settings() -> dict[str, str]:
    path = config_folder() / _SETTINGS
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        if _is_absent(path, error):
            return {}
        raise ConfigError(f"{path}: cannot be read ({reason(error)})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    known = {"certificate", "key", "timestamp_url"}
    for name, value in table.items():
        if name not in known or not isinstance(value, str):
            raise ConfigError(f"{path}: {name}: give {', '.join(sorted(known))}, all texts")
    for name in ("certificate", "key"):
        if name in table:  # relative to the file, as in every configuration
            table[name] = str(path.parent / Path(table[name]).expanduser())
    return table


def _is_absent(path: Path, error: OSError) -> bool:
    """Whether a file of ours could not be opened because there is none, or no way to it.

    The latter is usual in containers: a home folder that belongs to another user, or none at all.
    """
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return True
    return isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK)


def _load_signer(certificate: Path, key: Path, timestamp: str | None) -> Signer:
    """An organisation's own certificate and key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    texts = []
    for path in (certificate, key):
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({reason(error)})") from error
    try:
        chain = x509.load_pem_x509_certificates(texts[0])
    except ValueError as error:
        raise ConfigError(f"{certificate}: holds no certificate in PEM form") from error
    password = os.environ.get("STILLSPEAK_KEY_PASSWORD")
    try:
        private = serialization.load_pem_private_key(
            texts[1], password.encode() if password else None
        )
    except TypeError as error:
        raise ConfigError(
            f"{key}: the key is encrypted; put its pass phrase into STILLSPEAK_KEY_PASSWORD"
            if password is None
            else f"{key}: the key is not encrypted, but STILLSPEAK_KEY_PASSWORD is set"
        ) from error
    except Exception as error:  # many classes for damaged, unknown and wrongly decrypted keys
        raise ConfigError(f"{key}: no private key in PEM form, or a wrong pass phrase") from error
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    own = private.public_key().public_bytes(der, spki)
    if chain[0].public_key().public_bytes(der, spki) != own:
        raise ConfigError(
            f"{certificate}: its first certificate does not belong to the key {key}; put the "
            "signing certificate first, then those that vouch for it"
        )
    signer = Signer(
        "".join(_pem(one) for one in chain), _key_pem(private), _algorithm(private, key), timestamp
    )
    _try(signer, certificate)
    return signer


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in known:
            return known[key.curve.name]
    raise ConfigError(f"{path}: give an EC (P-256, P-384, P-521), Ed25519 or RSA (2048 bits) key")


def _try(signer: Signer, path: Path) -> None:
    """Sign one pixel, to find out before the work begins whether the certificate is fit."""
    import PIL.Image

    pixel = io.BytesIO()
    PIL.Image.new("RGB", (1, 1)).save(pixel, "PNG")
    pixel.seek(0)
    try:
        _sign(pixel, io.BytesIO(), "image/png", Origin(), None, replace(signer, timestamp_url=None))
    except OutputError as error:
        raise ConfigError(
            f"{path}: cannot sign content credentials ({error}); it needs the key usage "
            "digitalSignature and the extended key usage emailProtection or documentSigning, and "
            "another certificate that vouches for it"
        ) from error


def _own_identity() -> tuple[str, str]:
    """This installation's certificate chain and key, made when first asked for.

    Where the folder cannot be written, they live as long as the process.
    """
    folder = config_folder()
    found = _read_identity(folder / _IDENTITY)
    if found is None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Of several processes that come here first, one makes it and the others read it.
            with claim(folder, None):
                found = _read_identity(folder / _IDENTITY)
                if found is None:
                    found = _make_identity()
                    _keep_identity(folder, *found)
                    # Where there are no locks another one may have come in between.
                    found = _read_identity(folder / _IDENTITY) or found
        except OSError:
            return _passing_identity()
    return found


def _read_identity(path: Path) -> tuple[str, str] | None:
    """Chain and key that are kept; None if there are none, or only ones about to expire."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and _is_absent(path, error):
            return None
        raise ConfigError(
            f"{path}: the installation's certificate cannot be read ({reason(error)})"
        ) from error
    return _parse_identity(text, path) if text else None


_passing: list[tuple[str, str]] = []


def _passing_identity() -> tuple[str, str]:
    if not _passing:
        _passing.append(_make_identity())
    return _passing[0]


def _parse_identity(text: str, path: Path) -> tuple[str, str] | None:
    """Chain and key of an identity file; None if it is about to expire."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        key = serialization.load_pem_private_key(text.encode(), None)
    except ValueError as error:
        raise ConfigError(
            f"{path}: the installation's certificate is damaged; delete the file, and a new one "
            "is made"
        ) from error
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    if chain[0].not_valid_after_utc < soon:
        return None
    return "".join(_pem(one) for one in chain), _key_pem(key)


def _keep_identity(folder: Path, chain: str, key: str) -> None:
    """Write the identity so that nobody reads half a file, and nobody else reads it at all."""
    with whole_file(folder / _IDENTITY, mode=0o600) as partial, partial.open("w") as file:
        file.write(key + chain)
        file.flush()
        os.fsync(file.fileno())
    with suppress(OSError), whole_file(folder / _ROOT) as partial:
        # A convenience: it can be had from identity.pem.
        partial.write_text(chain[chain.rindex("-----BEGIN") :], "ascii")


def own_root() -> str | None:
    """The root certificate of this installation's self-made chain, PEM; None if there is none."""
    try:
        text = (config_folder() / _IDENTITY).read_text("ascii")
        return text[text.rindex("-----BEGIN CERTIFICATE") :]
    except (OSError, ValueError):
        return None


def _make_identity() -> tuple[str, str]:
    """A root and a signing certificate, and the latter's key. The root's key is thrown away.

    C2PA refuses certificates that sign themselves, hence two. They name no person and no
    machine, only a random number.
    """
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    number = secrets.token_hex(4)
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, f"{what} {number}"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, SELF_MADE),
            ]
        )
        for what in ("root of installation", "installation")
    ]
    made = []
    for own, (key, name) in enumerate(zip(keys, names, strict=True)):
        usage = x509.KeyUsage(
            digital_signature=own == 1,
            key_cert_sign=own == 0,
            crl_sign=own == 0,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # Clocks that are a little late must not take it for one of the future.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(own == 0, 0 if own == 0 else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()),
                critical=False,
            )
        )
        if own:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()))
    return _pem(made[1]) + _pem(made[0]), _key_pem(keys[1])


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


# --- writing ------------------------------------------------------------------------------------


def sign_file(
    path: Path, signed: Path, kind: str, origin: Origin, watermark: int | None, signer: Signer
) -> None:
    """Copy a media file with credentials added.

    Args:
        path: an MP4, GIF or PNG.
        signed: where the copy goes; it must not be the same file.
        kind: media type of both, a value of :data:`FORMATS`.
        origin: what the credentials tell.
        watermark: the identifier in the pixels, if there is one.
        signer: from :func:`find_signer`.

    Raises:
        OutputError: the file cannot be signed; the message is the reason alone.
        OSError: from reading or writing.
    """
    with path.open("rb") as plain, signed.open("w+b") as target:
        _sign(plain, target, kind, origin, watermark, signer)


def sign_bytes(
    data: bytes, kind: str, origin: Origin, watermark: int | None, signer: Signer
) -> bytes:
    """As :func:`sign_file`, in memory."""
    target = io.BytesIO()
    _sign(io.BytesIO(data), target, kind, origin, watermark, signer)
    return target.getvalue()


def _sign(
    plain: Any, target: Any, kind: str, origin: Origin, watermark: int | None, signer: Signer
) -> None:
    import c2pa

    try:
        with (
            c2pa.Context.from_dict(_NO_NETWORK) as context,
            c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(
                    alg=signer.algorithm.encode(),
                    sign_cert=signer.chain.encode(),
                    private_key=signer.key.encode(),
                    ta_url=signer.timestamp_url.encode() if signer.timestamp_url else None,
                )
            ) as native,
            _builder(origin, watermark, context) as builder,
        ):
            builder.sign(native, kind, plain, target)
    except c2pa.C2paError as error:
        raise OutputError(" ".join(str(error).split())) from error


def _builder(origin: Origin, watermark: int | None, context: c2pa.Context) -> c2pa.Builder:
    """A manifest with its ingredients."""
    import c2pa

    from stillspeak import __version__

    agent = {"name": "stillspeak", "version": __version__}
    ingredients = []
    for label, title, source in (
        ("still", "the still", origin.still),
        ("speech", "the speech", origin.speech),
        ("video", "the video", origin.edited),
    ):
        if source is not None:
            about = {
                "title": title,
                "relationship": "parentOf" if source is origin.edited else "inputTo",
                "label": label,
                "instance_id": f"sha256:{source.sha256}",
                "description": f"SHA-256 of its {source.kind}: {source.sha256}",
            }
            if source.format:
                about["format"] = source.format
            ingredients.append((about, source))
    generation: dict[str, Any] = {"settings": dict(origin.settings)}
    if origin.model:
        generation["model"] = {"name": origin.model, "sha256": origin.model_sha256}
    for about, source in ingredients:
        generation[about["label"]] = {"sha256": source.sha256, "of": source.kind}
    assertions: list[dict[str, Any]] = [{"label": GENERATION, "data": generation}]
    inputs = {"ingredientIds": [about["label"] for about, _ in ingredients]}
    actions: list[dict[str, Any]]
    if origin.edited is None:
        actions = [
            {
                "action": "c2pa.created",
                "digitalSourceType": SOURCE_TYPE,
                "softwareAgent": agent,
                "description": "A still made to speak by a trained model; nobody said this.",
                "parameters": inputs,
            }
        ]
    else:
        actions = [
            {"action": "c2pa.opened", "softwareAgent": agent, "parameters": inputs},
            {
                "action": "c2pa.edited",
                "digitalSourceType": PARTLY,
                "softwareAgent": agent,
                "description": "Some frames, or parts of frames, made by a trained model.",
            },
        ]
    if watermark is not None:
        value = f"{watermark:08x}"
        generation["watermark"] = {"method": WATERMARK_METHOD, "identifier": value}
        actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
        assertions.append(
            {
                "label": "c2pa.soft-binding",
                "data": {"alg": WATERMARK_METHOD, "blocks": [{"scope": {}, "value": value}]},
            }
        )
    assertions.append({"label": "c2pa.actions.v2", "data": {"actions": actions}})
    manifest = {
        "claim_generator_info": [agent],
        "title": "partly synthetic video" if origin.edited else "synthetic talking-face video",
        "assertions": assertions,
        "ingredients": [about for about, source in ingredients if not source.has_credentials],
    }
    builder = c2pa.Builder.from_json(json.dumps(manifest), context)
    try:
        for about, source in ingredients:
            if source.has_credentials:
                assert source.format is not None
                with _opened(source) as stream:
                    try:
                        builder.add_ingredient(json.dumps(about), source.format, stream)
                    except c2pa.C2paError:  # credentials beyond reading: its hash is all there is
                        builder.close()
                        return _builder(_without_data(origin), watermark, context)
    except BaseException:
        builder.close()
        raise
    return builder


def _opened(source: Source) -> BinaryIO:
    if source.path is not None:
        return source.path.open("rb")
    assert source.data is not None
    return io.BytesIO(source.data)


def _without_data(origin: Origin) -> Origin:
    """The same origin, of whose inputs the hashes alone are known."""

    def bare(source: Source | None) -> Source | None:
        return source and replace(source, data=None, path=None)

    return replace(
        origin, still=bare(origin.still), speech=bare(origin.speech), edited=bare(origin.edited)
    )


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Credentials:
    """What a file's content credentials say."""

    intact: bool
    """The signature holds and the file is the one that was signed."""
    trusted: bool = False
    """The signature leads to a trusted root: one that was given, else this installation's."""
    signer: str | None = None
    """The name in the certificate. Anybody may write any name there, unless it is trusted."""
    organisation: str | None = None
    self_made: bool = False
    """Whether the certificate says that stillspeak made it."""
    signed_at: str | None = None
    """ISO 8601, where a time stamp authority vouches for it."""
    tool: str | None = None
    """Name and version of the program that signed."""
    actions: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()
    """Last parts of the digital source types, such as ``trainedAlgorithmicMedia``."""
    model: str | None = None
    model_sha256: str | None = None
    watermark: int | None = None
    """Identifier that the pixels bear according to the credentials."""
    ingredients: tuple[Mapping[str, Any], ...] = ()
    """``title``, ``relationship``, ``sha256`` and whether it has ``credentials`` of its own."""
    problems: tuple[str, ...] = ()
    """Why it is not intact, as C2PA's codes and explanations."""


def read_credentials(path: Path, *, trust: str | None = None) -> Credentials | None:
    """Read and check a file's content credentials, without the network.

    Args:
        path: a media file of any kind.
        trust: PEM text of root certificates to trust; this installation's own if None.

    Returns:
        None where the file has none, or is of a kind that has no place for them.

    Raises:
        ConfigError: ``trust`` holds no certificates.
        OSError: the file cannot be read.
    """
    import c2pa

    with path.open("rb") as file:
        kind = _media_type(file.read(16))
    if kind is None or kind not in c2pa.Reader.get_supported_mime_types():
        return None
    anchors = own_root() if trust is None else trust
    settings = dict(_NO_NETWORK)
    if anchors:
        settings["trust"] = {"user_anchors": anchors}
    try:
        context = c2pa.Context.from_dict(settings)
    except c2pa.C2paError as error:
        raise ConfigError("the trusted root holds no certificate in PEM form") from error
    with context:
        try:
            with path.open("rb") as file, c2pa.Reader(kind, file, context=context) as reader:
                report = json.loads(reader.json())
        except c2pa.C2paError as error:
            text = " ".join(str(error).split())
            if isinstance(error, c2pa.C2paError.ManifestNotFound):
                return None
            if not _has_manifest(path):
                return None
            return Credentials(False, problems=(text,))
    return _understood(report)


def _has_manifest(path: Path) -> bool:
    """Whether there is a place with credentials in a file, readable or not."""
    marks = (
        b"\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c\x92\x97\x58\x28\x87\x7e\xc4\x81",
        b"caBX",
        b"C2PA_GIF",
    )
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(2**20):
            text = tail + piece
            if any(mark in text for mark in marks) or (b"jumb" in text and b"c2pa" in text):
                return True
            tail = text[-64:]
    return False


def _understood(report: Mapping[str, Any]) -> Credentials:
    """The parts of C2PA's report that matter here."""
    manifests = report.get("manifests") or {}
    manifest = manifests.get(report.get("active_manifest")) or {}
    state = report.get("validation_state")
    results = (report.get("validation_results") or {}).get("activeManifest") or {}
    problems = tuple(
        f"{one.get('code')}: {one.get('explanation')}"
        for one in results.get("failure") or ()
        if one.get("code") != "signingCredential.untrusted"
    )
    if state == "Invalid" and not problems:
        problems = tuple(
            f"{one.get('code')}: {one.get('explanation')}"
            for one in report.get("validation_status") or ()
        )
    data = {one.get("label"): one.get("data") or {} for one in manifest.get("assertions") or ()}
    acts = [
        act
        for label, value in data.items()
        if str(label).startswith("c2pa.actions")
        for act in value.get("actions") or ()
    ]
    generation = data.get(GENERATION) or {}
    model = generation.get("model") or {}
    info = (manifest.get("claim_generator_info") or [{}])[0]
    tool = " ".join(str(info[key]) for key in ("name", "version") if info.get(key))
    signature = manifest.get("signature_info") or {}
    mark = None
    with suppress(KeyError, TypeError, ValueError):
        if generation["watermark"]["method"] == WATERMARK_METHOD:
            mark = int(generation["watermark"]["identifier"], 16)
    return Credentials(
        intact=state in ("Valid", "Trusted"),
        trusted=state == "Trusted",
        signer=signature.get("common_name"),
        organisation=signature.get("issuer"),
        self_made=signature.get("issuer") == SELF_MADE,
        signed_at=signature.get("time"),
        tool=tool or None,
        actions=tuple(str(act.get("action")) for act in acts),
        source_types=tuple(
            str(act["digitalSourceType"]).rsplit("/", 1)[-1]
            for act in acts
            if act.get("digitalSourceType")
        ),
        model=model.get("name"),
        model_sha256=model.get("sha256"),
        watermark=mark,
        ingredients=tuple(
            {
                "title": one.get("title"),
                "relationship": one.get("relationship"),
                "sha256": _named_hash(one.get("instance_id")),
                "credentials": bool(one.get("active_manifest")),
            }
            for one in manifest.get("ingredients") or ()
        ),
        problems=problems,
    )


def _named_hash(instance: object) -> str | None:
    text = str(instance or "")
    return text.removeprefix("sha256:") if text.startswith("sha256:") else None
