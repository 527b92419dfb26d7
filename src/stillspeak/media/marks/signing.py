"""Content credentials (C2PA) into a file: who made it, from what, with which model.

Nothing here uses the network, except for a time stamp where you name an authority.
"""

from __future__ import annotations

import io
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stillspeak.errors import ConfigError, OutputError
from stillspeak.media.marks.certificates import (
    config_folder,
    is_absent,
    load_identity,
    own_identity,
)
from stillspeak.media.marks.origin import Origin, Source
from stillspeak.media.source import reason

if TYPE_CHECKING:
    import c2pa
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for what a trained model made."""
PARTLY = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's name for footage parts of which a trained model made."""
GENERATION = "org.stillspeak.generation"
"""Our own assertion: model, inputs, settings, watermark."""
WATERMARK_METHOD = "org.stillspeak.watermark.1"

FORMATS = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".gif": "image/gif",
    ".png": "image/png",
}
"""What is written with credentials, by suffix. WebM and Matroska have no place for them."""

NO_NETWORK = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "builder": {"thumbnail": {"enabled": False}},
}
"""Settings for C2PA's library."""

_SETTINGS = "marks.toml"
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


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


def find_signer(certificate: str | Path | None = None, key: str | Path | None = None) -> Signer:
    """The signer to use: the one given, else the environment's, the settings file's, our own.

    The environment names files in ``STILLSPEAK_CERTIFICATE`` and ``STILLSPEAK_KEY`` (its pass
    phrase in ``STILLSPEAK_KEY_PASSWORD``) and a time stamp authority in
    ``STILLSPEAK_TIMESTAMP_URL``; the file ``marks.toml`` in
    :func:`~stillspeak.media.marks.certificates.config_folder` has the keys ``certificate``,
    ``key`` and ``timestamp_url``.

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
            identity, private = load_identity(Path(first), Path(second))
            signer = Signer(*identity, _algorithm(private, Path(second)), timestamp)
            _try(signer, Path(first))
            return signer
    return Signer(*own_identity(), "es256", timestamp, self_made=True)


def _settings() -> dict[str, str]:
    path = config_folder() / _SETTINGS
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        if is_absent(path, error):
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


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise ConfigError(f"{path}: give an EC (P-256, P-384, P-521), Ed25519 or RSA (2048 bits) key")


def _try(signer: Signer, path: Path) -> None:
    """Sign one pixel, to find out before the work begins whether the certificate is fit."""
    import PIL.Image

    pixel = io.BytesIO()
    PIL.Image.new("RGB", (1, 1)).save(pixel, "PNG")
    pixel.seek(0)
    try:
        sign(pixel, io.BytesIO(), "image/png", Origin(), None, replace(signer, timestamp_url=None))
    except OutputError as error:
        raise ConfigError(
            f"{path}: cannot sign content credentials ({error}); it needs the key usage "
            "digitalSignature and the extended key usage emailProtection or documentSigning, and "
            "another certificate that vouches for it"
        ) from error


def sign(
    plain: BinaryIO,
    target: BinaryIO,
    kind: str,
    origin: Origin,
    watermark: int | None,
    signer: Signer,
) -> None:
    """Copy a media file with credentials added.

    Args:
        plain: an MP4, GIF or PNG.
        target: where the copy goes, open for reading and writing.
        kind: media type of both, a value of :data:`FORMATS`.
        origin: what the credentials tell.
        watermark: the identifier in the pixels, if there is one.
        signer: from :func:`find_signer`.

    Raises:
        OutputError: the file cannot be signed; the message is the reason alone.
        OSError: from reading or writing.
    """
    import c2pa

    info = c2pa.C2paSignerInfo(
        alg=signer.algorithm.encode(),
        sign_cert=signer.chain.encode(),
        private_key=signer.key.encode(),
        ta_url=signer.timestamp_url.encode() if signer.timestamp_url else None,
    )
    try:
        with (
            c2pa.Context.from_dict(NO_NETWORK) as context,
            c2pa.Signer.from_info(info) as native,
            _builder(origin, watermark, context) as builder,
        ):
            builder.sign(native, kind, plain, target)
    except c2pa.C2paError as error:
        raise OutputError(" ".join(str(error).split())) from error


def _builder(
    origin: Origin, watermark: int | None, context: c2pa.Context, *, keep_credentials: bool = True
) -> c2pa.Builder:
    """A manifest with its ingredients, and their own credentials where they can be read."""
    import c2pa

    ingredients = _ingredients(origin)
    signed = [(about, s) for about, s in ingredients if keep_credentials and s.signed is not None]
    manifest = _manifest(origin, watermark, ingredients)
    manifest["ingredients"] = [
        about for about, source in ingredients if (about, source) not in signed
    ]
    builder = c2pa.Builder.from_json(json.dumps(manifest), context)
    try:
        for about, source in signed:
            with source.open() as stream:
                builder.add_ingredient(json.dumps(about), source.format, stream)
    except BaseException as error:
        builder.close()
        if not isinstance(error, c2pa.C2paError):
            raise
        # Damaged credentials: the hash is all that can be told.
        return _builder(origin, watermark, context, keep_credentials=False)
    return builder


def _ingredients(origin: Origin) -> list[tuple[dict[str, str], Source]]:
    """What C2PA is told of each input that is known, and the input."""
    found = []
    for label, title, source in (
        ("still", "the still", origin.image),
        ("speech", "the speech", origin.speech),
        *((f"speech{n}", f"the speech of face {n}", one) for n, one in origin.others.items()),
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
            found.append((about, source))
    return found


def _manifest(
    origin: Origin, watermark: int | None, ingredients: Sequence[tuple[dict[str, str], Source]]
) -> dict[str, Any]:
    """What is asserted; the ingredients themselves are left out."""
    from stillspeak import __version__

    agent = {"name": "stillspeak", "version": __version__}
    generation: dict[str, Any] = {"settings": dict(origin.settings)}
    if origin.model:
        generation["model"] = {"name": origin.model, "sha256": origin.model_sha256}
    for about, source in ingredients:
        generation[about["label"]] = {"sha256": source.sha256, "of": source.kind}
    inputs = {"ingredientIds": [about["label"] for about, _ in ingredients]}
    made: dict[str, Any] = {"softwareAgent": agent}
    if origin.edited is None:
        made |= {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "parameters": inputs}
        made["description"] = "A still made to speak by a trained model; nobody said this."
        actions = [made]
    else:
        made |= {"action": "c2pa.edited", "digitalSourceType": PARTLY}
        made["description"] = "Some frames, or parts of frames, made by a trained model."
        actions = [{"action": "c2pa.opened", "softwareAgent": agent, "parameters": inputs}, made]
    assertions: list[dict[str, Any]] = [{"label": GENERATION, "data": generation}]
    if watermark is not None:
        value = f"{watermark:08x}"
        generation["watermark"] = {"method": WATERMARK_METHOD, "identifier": value}
        actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
        binding = {"alg": WATERMARK_METHOD, "blocks": [{"scope": {}, "value": value}]}
        assertions.append({"label": "c2pa.soft-binding", "data": binding})
    assertions.append({"label": "c2pa.actions.v2", "data": {"actions": actions}})
    return {
        "claim_generator_info": [agent],
        "title": "partly synthetic video" if origin.edited else "synthetic talking-face video",
        "assertions": assertions,
    }
