"""Content credentials (C2PA) out of a file: what they say, and whether it still fits them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillspeak.errors import ConfigError
from stillspeak.media.marks.certificates import SELF_MADE, own_root
from stillspeak.media.marks.origin import has_manifest
from stillspeak.media.marks.signing import GENERATION, NO_NETWORK, WATERMARK_METHOD
from stillspeak.media.source import media_type


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
        kind = media_type(file.read(16))
    if kind is None or kind not in c2pa.Reader.get_supported_mime_types():
        return None
    anchors = own_root() if trust is None else trust
    settings = {**NO_NETWORK, "trust": {"user_anchors": anchors}} if anchors else NO_NETWORK
    try:
        context = c2pa.Context.from_dict(settings)
    except c2pa.C2paError as error:
        raise ConfigError("the trusted root holds no certificate in PEM form") from error
    with context:
        try:
            with path.open("rb") as file, c2pa.Reader(kind, file, context=context) as reader:
                return _understood(json.loads(reader.json()))
        except c2pa.C2paError.ManifestNotFound:
            return None
        except c2pa.C2paError as error:
            if not has_manifest(path):
                return None
            return Credentials(False, problems=(" ".join(str(error).split()),))


def _understood(report: Mapping[str, Any]) -> Credentials:
    """The parts of C2PA's report that matter here."""
    manifests = report.get("manifests") or {}
    manifest = manifests.get(report.get("active_manifest")) or {}
    state = report.get("validation_state")
    results = (report.get("validation_results") or {}).get("activeManifest") or {}
    failures = results.get("failure") or ()
    failures = [one for one in failures if one.get("code") != "signingCredential.untrusted"]
    if state == "Invalid" and not failures:
        failures = report.get("validation_status") or []
    data = {one.get("label"): one.get("data") or {} for one in manifest.get("assertions") or ()}
    told = [value for label, value in data.items() if str(label).startswith("c2pa.actions")]
    actions = [action for value in told for action in value.get("actions") or ()]
    types = [action["digitalSourceType"] for action in actions if action.get("digitalSourceType")]
    generation = data.get(GENERATION) or {}
    model = generation.get("model") or {}
    info = (manifest.get("claim_generator_info") or [{}])[0]
    tool = " ".join(str(info[key]) for key in ("name", "version") if info.get(key))
    signature = manifest.get("signature_info") or {}
    watermark = None
    with suppress(KeyError, TypeError, ValueError):
        if generation["watermark"]["method"] == WATERMARK_METHOD:
            watermark = int(generation["watermark"]["identifier"], 16)
    return Credentials(
        intact=state in ("Valid", "Trusted"),
        trusted=state == "Trusted",
        signer=signature.get("common_name"),
        organisation=signature.get("issuer"),
        self_made=signature.get("issuer") == SELF_MADE,
        signed_at=signature.get("time"),
        tool=tool or None,
        actions=tuple(str(action.get("action")) for action in actions),
        source_types=tuple(str(one).rsplit("/", 1)[-1] for one in types),
        model=model.get("name"),
        model_sha256=model.get("sha256"),
        watermark=watermark,
        ingredients=tuple(
            {
                "title": one.get("title"),
                "relationship": one.get("relationship"),
                "sha256": _named_hash(one.get("instance_id")),
                "credentials": bool(one.get("active_manifest")),
            }
            for one in manifest.get("ingredients") or ()
        ),
        problems=tuple(f"{one.get('code')}: {one.get('explanation')}" for one in failures),
    )


def _named_hash(instance: object) -> str | None:
    text = str(instance or "")
    return text.removeprefix("sha256:") if text.startswith("sha256:") else None
