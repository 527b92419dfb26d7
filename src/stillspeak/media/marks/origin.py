"""What a video was made from, as its credentials name it."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from stillspeak.media.source import media_type

if TYPE_CHECKING:
    import PIL.Image

_MANIFEST_MARKS = (
    b"\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c\x92\x97\x58\x28\x87\x7e\xc4\x81",
    b"caBX",
    b"C2PA_GIF",
)


@dataclass(frozen=True)
class Source:
    """One input of a video."""

    sha256: str
    """Of the file's bytes; of the values where there was no file."""
    kind: Literal["file", "pixels", "samples"]
    """What was hashed: a file, (H, W, 3) uint8 values, or (S,) float32 values."""
    format: str | None = None
    """Media type of a file, where it is known."""
    signed: bytes | Path | None = field(default=None, repr=False)
    """The file, or where it is, if it carries credentials of its own."""

    def open(self) -> BinaryIO:
        """The file with its own credentials."""
        assert self.signed is not None
        return io.BytesIO(self.signed) if isinstance(self.signed, bytes) else self.signed.open("rb")


@dataclass(frozen=True)
class Origin:
    """How a video was made. Every part may be unknown."""

    model: str | None = None
    """Name of the trained model."""
    model_sha256: str | None = None
    """Of its weights file."""
    image: Source | None = None
    """The reference image."""
    speech: Source | None = None
    others: Mapping[int, Source | None] = field(default_factory=dict)
    """What other faces of the reference image say, by their numbers."""
    edited: Source | None = None
    """The video that was edited with generated parts; None: all of it is generated."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else decides the frames: the seed, strengths, size. JSON values."""

    @cached_property
    def identifier(self) -> int:
        """32 bits for the watermark: a digest of all of the above, random if nothing is known."""
        sources = (self.image, self.speech, self.edited)
        hashes = [source.sha256 if source else None for source in sources]
        hashes += [f"{n}: {source.sha256}" for n, source in self.others.items() if source]
        known = [self.model, self.model_sha256, *hashes]
        if not any(known):
            return secrets.randbits(32)
        text = json.dumps([*known, dict(self.settings)], sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def describe_image(
    source: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any], pixels: npt.NDArray[np.uint8]
) -> Source | None:
    """What the credentials say of a reference image; ``pixels`` (H, W, 3) were read from it."""
    if not isinstance(source, str | Path | bytes):
        return Source(_digest(np.asarray(pixels, np.uint8)), "pixels")
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError:
        return None
    found = _describe_file(data)
    signed = found is not None and found.format is not None and b"c2pa" in data
    return replace(found, signed=data) if found and signed else found


def describe_speech(
    source: str | Path | bytes | tuple[npt.NDArray[Any], int], samples: npt.NDArray[np.float32]
) -> Source | None:
    """What the credentials say of the speech. ``samples`` (S,) float32 were read from it."""
    if isinstance(source, str | Path | bytes):
        return _describe_file(source)
    return Source(_digest(np.asarray(samples, "<f4")), "samples")


def describe_video(path: str | Path) -> Source | None:
    """What the credentials say of a video that is edited."""
    found = _describe_file(path)
    if found is None or found.format is None or not has_manifest(Path(path)):
        return found
    return replace(found, signed=Path(path))


def has_manifest(path: Path) -> bool:
    """Whether a file has a place with credentials, readable or not."""
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(2**20):
            text = tail + piece
            if any(mark in text for mark in _MANIFEST_MARKS) or (
                b"jumb" in text and b"c2pa" in text
            ):
                return True
            tail = text[-64:]
    return False


def _describe_file(source: str | Path | bytes) -> Source | None:
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            kind = media_type(file.read(16))
            # BMP has no place for credentials.
            return Source(digest, "file", None if kind == "image/bmp" else kind)
    except OSError:  # gone, or a pipe that was read already: then it is not known
        return None


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
