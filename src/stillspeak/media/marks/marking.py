"""The marks of one output while it is written: pixels frame by frame, credentials at the end."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from stillspeak.errors import OutputError
from stillspeak.media.marks.label import Label, check_label
from stillspeak.media.marks.origin import Origin
from stillspeak.media.marks.signing import FORMATS, Signer, find_signer, sign
from stillspeak.media.marks.watermark import SMALLEST, Watermarker

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Marks:
    """What ``write_video`` leaves in a file that says it is synthetic."""

    origin: Origin = field(default_factory=Origin)
    watermark: bool = True
    credentials: bool = True
    """In the formats that have a place for them, see ``signing.FORMATS``."""
    label: str | None = None
    """A visible text in the corner, e.g. ``AI-generated``."""
    certificate: str | Path | None = None
    """PEM file of the signer's certificate chain; by default as ``find_signer`` says."""
    key: str | Path | None = None
    """PEM file of its private key."""


@dataclass(frozen=True)
class MarkChoices:
    """What a user decides about marks."""

    mark: bool = True
    """Watermark and credentials."""
    label: str | None = None
    """A visible text, see :func:`stillspeak.media.marks.label.check_label`."""
    certificate: str | Path | None = None
    """PEM file of a certificate chain to sign with; see ``find_signer``."""
    key: str | Path | None = None
    """PEM file of its private key."""

    def check(self) -> None:
        """Find out before anything slow begins whether they are possible.

        Raises:
            ConfigError: the label or the certificate cannot be used.
        """
        if self.label is not None:
            check_label(self.label)
        if self.certificate or self.key:
            find_signer(self.certificate, self.key)

    def applied(self, marks: Marks) -> Marks:
        """The marks as they were chosen."""
        return replace(
            marks,
            watermark=self.mark,
            credentials=self.mark,
            label=self.label,
            certificate=self.certificate,
            key=self.key,
        )


class Marking:
    """Puts marks into one output.

    Args:
        marks: which, and what the credentials tell.
        suffix: of the output, such as ``.mp4``; what has no place for credentials gets none.

    Raises:
        ConfigError: the certificate or the label cannot be used.
    """

    def __init__(self, marks: Marks, suffix: str) -> None:
        self.marks = marks
        self.kind = FORMATS.get(suffix)
        self.signer: Signer | None = None
        if marks.credentials and self.kind is not None:
            self.signer = find_signer(marks.certificate, marks.key)
        if marks.label is not None:
            check_label(marks.label)
        self.identifier = marks.origin.identifier if marks.watermark else None
        self._watermarker: Watermarker | None = None
        self._label: Label | None = None
        self._first = True

    def frame(self, frame: Frame) -> Frame:
        """A frame (H, W, 3) uint8, or RGBA, with what goes into the pixels."""
        if self._first:
            self._first = False
            height, width = frame.shape[:2]
            if min(height, width) < SMALLEST:
                self.identifier = None  # there is no room in so few pixels
            if self.identifier is not None:
                self._watermarker = Watermarker(self.identifier)
            if self.marks.label is not None:
                self._label = Label(self.marks.label, height, width)
        if self._label is not None:
            frame = self._label.draw(frame)
        if self._watermarker is not None:
            marked = self._watermarker.mark(np.ascontiguousarray(frame[..., :3]))
            frame = marked if frame.shape[2] == 3 else np.dstack((marked, frame[..., 3]))
        return frame

    def sign_file(self, path: Path, name: str) -> None:
        """Sign a finished file in place, or raise OutputError; messages call it ``name``."""
        if self.signer is None:
            return
        signed = path.with_suffix(".signed")
        try:
            with path.open("rb") as plain, signed.open("w+b") as target:
                self._sign(plain, target, name)
            signed.replace(path)
        finally:
            signed.unlink(missing_ok=True)

    def sign_bytes(self, data: bytes, name: str) -> bytes:
        """A file in memory, signed. Errors as :meth:`sign_file`."""
        if self.signer is None:
            return data
        target = io.BytesIO()
        self._sign(io.BytesIO(data), target, name)
        return target.getvalue()

    def _sign(self, plain: BinaryIO, target: BinaryIO, name: str) -> None:
        assert self.kind is not None and self.signer is not None
        try:
            sign(plain, target, self.kind, self.marks.origin, self.identifier, self.signer)
        except OutputError as problem:
            raise OutputError(
                f"{name}: its content credentials cannot be made ({problem}); check the "
                "certificate, or write without marks"
            ) from problem
