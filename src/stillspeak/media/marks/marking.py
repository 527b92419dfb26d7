"""The marks of one output while it is written: pixels frame by frame, credentials at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillspeak.errors import OutputError
from stillspeak.media.marks.label import Label, check_label
from stillspeak.media.marks.provenance import FORMATS, Marks, Signer, sign_bytes, sign_file
from stillspeak.media.marks.watermark import SMALLEST, Watermarker

Frame = npt.NDArray[np.uint8]


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
            self.applied(Marks()).find_signer()

    def applied(self, marks: Marks) -> Marks:
        """The marks as they were chosen."""
        return replace(
            marks,
            watermark=self.mark,
            credentials=self.mark,
            label=self.label,
            certificate=None if self.certificate is None else Path(self.certificate),
            key=None if self.key is None else Path(self.key),
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
            self.signer = marks.find_signer()
        if marks.label is not None:
            check_label(marks.label)
        self.identifier = marks.origin.identifier if marks.watermark else None
        self._watermarker: Watermarker | None = None
        self._label: Label | None = None
        self._first = True

    def frame(self, frame: Frame) -> Frame:
        """A frame (H, W, 3) uint8 with what goes into the pixels."""
        if self._first:
            self._first = False
            height, width = frame.shape[:2]
            if self.identifier is not None and min(height, width) < SMALLEST:
                self.identifier = None  # there is no room in so few pixels
            if self.identifier is not None:
                self._watermarker = Watermarker(self.identifier)
            if self.marks.label is not None:
                self._label = Label(self.marks.label, height, width)
        if self._label is not None:
            frame = self._label.draw(frame)
        if self._watermarker is not None:
            frame = self._watermarker.mark(frame)
        return frame

    def file(self, path: Path, name: str) -> None:
        """Sign a finished file in place; ``name`` is what messages call it.

        Raises:
            OutputError: it cannot be signed.
        """
        if self.signer is None:
            return
        assert self.kind is not None
        signed = path.with_suffix(".signed")
        try:
            sign_file(path, signed, self.kind, self.marks.origin, self.identifier, self.signer)
            signed.replace(path)
        except OutputError as problem:
            raise _unsigned(name, problem) from problem
        finally:
            signed.unlink(missing_ok=True)

    def picture(self, data: bytes, name: str) -> bytes:
        """A picture file of a folder, signed.

        Raises:
            OutputError: it cannot be signed.
        """
        if self.signer is None:
            return data
        assert self.kind is not None
        try:
            return sign_bytes(data, self.kind, self.marks.origin, self.identifier, self.signer)
        except OutputError as problem:
            raise _unsigned(name, problem) from problem


def _unsigned(name: str, problem: OutputError) -> OutputError:
    return OutputError(
        f"{name}: its content credentials cannot be made ({problem}); check the certificate, or "
        "write without marks"
    )
