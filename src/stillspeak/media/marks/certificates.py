"""Certificates and keys in PEM form: an organisation's own, and this installation's.

The latter is made when it is first needed and kept in the user's configuration folder. It proves
that a file has not changed since it was signed, and that two files were signed by the same
installation. It does not prove who that was: anybody can make one with any name.
"""

from __future__ import annotations

import datetime
import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stillspeak.errors import ConfigError
from stillspeak.media.source import reason
from stillspeak.system.atomic import claim, whole_file

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

SELF_MADE = "stillspeak, self-made"
"""Organisation named in the certificates that are made here."""

_IDENTITY, _ROOT = "identity.pem", "root.pem"
_YEARS = 10
_UNUSED = (
    *("content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "encipher_only", "decipher_only"),
)


class Identity(NamedTuple):
    """A certificate chain, the signing certificate first, and its key in PKCS 8; both PEM."""

    chain: str
    key: str


def config_folder() -> Path:
    """Where settings and the installation's certificate are kept.

    ``STILLSPEAK_CONFIG`` names it; else it is the system's usual place, on Linux
    ``~/.config/stillspeak`` (``XDG_CONFIG_HOME``).
    """
    from platformdirs import user_config_path

    if named := os.environ.get("STILLSPEAK_CONFIG"):
        return Path(named)
    try:
        return user_config_path("stillspeak", appauthor=False, roaming=True)
    except RuntimeError:  # no home folder, as in some containers
        return Path(".config") / "stillspeak"


def is_absent(path: Path, error: OSError) -> bool:
    """Whether there is no such file, or no way to it, which is usual for homes in containers."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return True
    return isinstance(error, PermissionError) and not os.access(path.parent, os.X_OK)


def load_identity(certificate: Path, key: Path) -> tuple[Identity, PrivateKeyTypes]:
    """An organisation's certificate chain and key; ``STILLSPEAK_KEY_PASSWORD`` may unlock it.

    Raises:
        ConfigError: they cannot be read or do not belong together.
    """
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
    if chain[0].public_key() != private.public_key():
        raise ConfigError(
            f"{certificate}: its first certificate does not belong to the key {key}; put the "
            "signing certificate first, then those that vouch for it"
        )
    return _identity(chain, private), private


def own_identity() -> Identity:
    """This installation's certificate chain and key, made when first asked for.

    Where the folder cannot be written, they live as long as the process.

    Raises:
        ConfigError: what is kept is damaged or cannot be read.
    """
    folder = config_folder()
    path = folder / _IDENTITY
    found = _read_identity(path)
    if found is None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Of several processes that come here first, one makes it and the others read it.
            with claim(folder, None):
                found = _read_identity(path)
                if found is None:
                    found = _make_identity()
                    _keep_identity(folder, found)
                    # Where there are no locks another one may have come in between.
                    found = _read_identity(path) or found
        except OSError:
            return _passing_identity()
    return found


def own_root() -> str | None:
    """The root certificate of this installation's self-made chain, PEM; None if there is none."""
    try:
        return _root((config_folder() / _IDENTITY).read_text("ascii"))
    except (OSError, ValueError):
        return None


def _read_identity(path: Path) -> Identity | None:
    """What is kept; None if nothing is, or only what is about to expire."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and is_absent(path, error):
            return None
        raise ConfigError(
            f"{path}: the installation's certificate cannot be read ({reason(error)})"
        ) from error
    if not text:
        return None
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        key = serialization.load_pem_private_key(text.encode(), None)
    except ValueError as error:
        raise ConfigError(
            f"{path}: the installation's certificate is damaged; delete the file, and a new one "
            "is made"
        ) from error
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    return None if chain[0].not_valid_after_utc < soon else _identity(chain, key)


def _keep_identity(folder: Path, identity: Identity) -> None:
    """Write the identity so that nobody reads half a file, and nobody else reads it at all."""
    with whole_file(folder / _IDENTITY, mode=0o600) as partial, partial.open("w") as file:
        file.write(identity.key + identity.chain)
        file.flush()
        os.fsync(file.fileno())
    with suppress(OSError), whole_file(folder / _ROOT) as partial:
        # A convenience: it can be had from identity.pem.
        partial.write_text(_root(identity.chain), "ascii")


def _make_identity() -> Identity:
    """A root and a signing certificate, as C2PA wants two, and the latter's key alone.

    They name no person and no machine, only a random number.
    """
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
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
    made = []
    for key, name in zip(keys, names, strict=True):
        is_root = key is keys[0]
        usage = x509.KeyUsage(
            digital_signature=not is_root,
            key_cert_sign=is_root,
            crl_sign=is_root,
            **dict.fromkeys(_UNUSED, False),
        )
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(public)
            .serial_number(x509.random_serial_number())
            # Clocks that are a little late must not take it for one of the future.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(issuer, critical=False)
        )
        if not is_root:
            purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()))
    return _identity(made[::-1], keys[1])


_passing_identity = cache(_make_identity)


def _identity(chain: list[x509.Certificate], key: PrivateKeyTypes) -> Identity:
    from cryptography.hazmat.primitives import serialization

    pem = serialization.Encoding.PEM
    return Identity(
        "".join(one.public_bytes(pem).decode("ascii") for one in chain),
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode("ascii"),
    )


def _root(chain: str) -> str:
    """The last certificate of a chain."""
    return chain[chain.rindex("-----BEGIN CERTIFICATE") :]
