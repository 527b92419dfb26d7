"""Where live frames go: a recording, or a player on standard output."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from stillspeak.animate import COMMENT
from stillspeak.media.audio import Waveform
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.video_recorder import Recorder
from stillspeak.realtime.session import Picture


class PictureWriter:
    """Writes pictures without sound, one after another: JPEG files (``mjpeg``) or ``rgb24``."""

    def __init__(self, file: BinaryIO, form: str) -> None:
        self._file, self._form = file, form
        self.marks: Marks | None = None
        """What says that the pictures are synthetic."""
        self._marking: Marking | None = None
        self._last = b""

    def add(self, picture: Picture | None, sound: Waveform) -> None:
        """Write a picture (H, W, 3) uint8, or the last one again for None."""
        if picture is not None:
            if self._marking is None and self.marks is not None:
                self._marking = Marking(self.marks, "")
            if self._marking is not None:
                picture = self._marking.frame(picture)
            if self._form == "rgb24":
                self._last = picture.tobytes()
            else:
                import PIL.Image

                jpeg = io.BytesIO()
                PIL.Image.fromarray(picture).save(jpeg, "JPEG", quality=90)
                self._last = jpeg.getvalue()
        rest = memoryview(self._last)
        while rest:
            rest = rest[self._file.write(rest) :]


@contextmanager
def open_sinks(
    record: Path | None, form: str | None, *, fps: int, rate: int, overwrite: bool
) -> Iterator[list[Recorder | PictureWriter]]:
    """Everything that takes pictures and their sound; recordings are whole once it is left.

    Args:
        record: an ``.mp4`` to write.
        form: ``mkv``, ``mjpeg`` or ``rgb24``, written to standard output; None writes nothing.
        fps, rate: pictures a second, samples a second.
        overwrite: replace ``record`` if it exists.

    Raises:
        OutputError: the recording cannot be written.
    """
    comment = {"comment": COMMENT}
    with ExitStack() as stack:
        sinks: list[Recorder | PictureWriter] = []
        if record is not None:
            recorder = Recorder(record, fps=fps, rate=rate, overwrite=overwrite, metadata=comment)
            sinks.append(stack.enter_context(recorder))
        if form is not None:
            # A file of its own, so that nothing else is written between.
            file = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
            out: BinaryIO = stack.enter_context(file)
            if form == "mkv":
                # A player that was closed is no failure: the recording goes on.
                stack.enter_context(suppress(BrokenPipeError))
                player = Recorder(out, fps=fps, rate=rate, metadata=comment)
                sinks.append(stack.enter_context(player))
            else:
                sinks.append(PictureWriter(out, form))
        yield sinks
