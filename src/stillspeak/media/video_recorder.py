"""A film that is written while it is still going on: pictures and their sound, beat by beat.

``write_video`` needs to know the whole sound before it begins. Here it comes piece by piece, and
whenever the writing ends, the file is whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from stillspeak.errors import OutputError
from stillspeak.media.audio import Waveform
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.source import reason
from stillspeak.media.video import check_output
from stillspeak.system.atomic import partial_folder

Frame = npt.NDArray[np.uint8]

_BLOCK = 1024
_EARLY = 250


class Recorder:
    """Writes pictures and sound in step; a context manager.

    On leaving it an MP4 is put in its place, whole, unless there was no picture: then nothing is
    left and :attr:`frames` is 0. After a failure of the writing itself nothing is left either.

    Args:
        target: an ``.mp4``, or an open file that a player reads while it is written: Matroska.
        fps: pictures a second.
        rate: samples a second of the sound; a multiple of ``fps``.
        overwrite: replace what is there.
        metadata: texts such as ``comment``.

    Attributes:
        marks: what says that the pictures are synthetic, as of ``write_video``; None, to begin
            with: nothing does. May be set until the first picture comes.

    Raises:
        OutputError: as :func:`~stillspeak.media.video.check_output`; no ``.mp4``; writing fails.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        *,
        fps: int,
        rate: int,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._overwrite = overwrite
        if isinstance(target, str | Path):
            self.name = str(target)
            if Path(target).suffix.lower() != ".mp4":
                raise OutputError(f"{target}: what is live is recorded as MP4; give a name in .mp4")
            self._path = check_output(target, overwrite=overwrite)
        else:
            self.name, self._file = "<output>", target
        self.marks: Marks | None = None
        self._marking: Marking | None = None
        self.frames = 0
        """Pictures written, those included that stand for one that was missing."""
        self._fps, self._rate = fps, rate
        self._metadata = dict(metadata or {})
        self._container: Any = None
        self._picture: Any = None
        self._sound: Any = None
        self._last: Any = None
        self._early: deque[Waveform] = deque(maxlen=_EARLY)
        self._samples = np.zeros(0, np.float32)
        self._written = 0
        self._failed = False
        self._stack = ExitStack()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def add(self, picture: Frame | None, sound: Waveform) -> None:
        """Write one beat.

        Args:
            picture: (H, W, 3) uint8, always of the same size; None shows the last one again, or the
                first one, once that has come.
            sound: (rate / fps,) float32 in [-1, 1].

        Raises:
            OutputError: it cannot be written.
            ConfigError: the certificate or the label of the marks cannot be used.
        """
        self._early.append(sound)
        if picture is None and self._last is None:
            return  # no more of it than some seconds: what has no picture for so long is no film
        with self._errors():
            if picture is not None:
                if self._marking is None and self.marks is not None:
                    self._marking = Marking(self.marks, ".mkv" if self._file else ".mp4")
                if self._marking is not None:
                    picture = self._marking.frame(picture)
                self._last = self._converted(picture)
            while self._early:
                self._write(self._early.popleft())

    def _write(self, sound: Waveform) -> None:
        self._last.pts = self.frames
        self._last.time_base = Fraction(1, self._fps)
        self._container.mux(self._picture.encode(self._last))
        self.frames += 1
        self._samples = np.concatenate((self._samples, sound))
        while len(self._samples) >= _BLOCK:
            self._encode(_BLOCK)

    def close(self) -> None:
        """End the file and put it in its place.

        Raises:
            OutputError: it cannot be written, or something has come into its place meanwhile.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if not self._failed:
                with self._errors():
                    container.mux(self._picture.encode(None))
                    if len(self._samples):
                        self._container = container
                        self._encode(len(self._samples))
                        self._container = None
                    container.mux(self._sound.encode(None))
        finally:
            with suppress(Exception):
                container.close()
            if self._path is not None:
                try:
                    if not self._failed:
                        check_output(self._path, overwrite=self._overwrite)
                        with self._errors():
                            if self._marking is not None:
                                self._marking.sign_file(self._temporary, self.name)
                            self._temporary.replace(self._path)
                finally:
                    self._stack.close()

    def _open(self, height: int, width: int) -> None:
        import av

        live = self._file is not None
        if self._path is not None:
            self._temporary = self._stack.enter_context(partial_folder(self._path)) / "video.part"
        # The prefix keeps a colon in the path from being read as the end of a protocol's name.
        place: Any = self._file if live else f"file:{self._temporary}"
        self._container = av.open(
            place,
            mode="w",
            format="matroska" if live else "mp4",
            container_options={"flush_packets": "1"} if live else {"movflags": "+faststart"},
        )
        self._container.metadata.update(self._metadata)
        options = {"crf": "20", "preset": "veryfast"}
        if live:
            options |= {"preset": "ultrafast", "tune": "zerolatency"}
        self._picture = self._container.add_stream("libx264", rate=self._fps, options=options)
        self._picture.width, self._picture.height = width, height
        self._picture.pix_fmt = "yuv420p"
        context = self._picture.codec_context
        context.time_base = Fraction(1, self._fps)
        # BT.709 in all three lists, see media/video.py.
        context.color_primaries = context.color_trc = context.colorspace = 1
        self._sound = self._container.add_stream("pcm_s16le" if live else "aac", rate=self._rate)
        self._format = "s16" if live else "fltp"
        self._sound.codec_context.layout = "mono"
        self._sound.codec_context.format = self._format
        if not live:
            self._sound.codec_context.bit_rate = 128_000
        self._sound.codec_context.time_base = Fraction(1, self._rate)
        self._container.start_encoding()

    def _converted(self, picture: Frame) -> Any:
        import av
        from av.video.reformatter import ColorRange, Colorspace

        rows, columns = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        if self._container is None:
            self._open(rows, columns)
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture[:rows, :columns]), format="rgb24"
        )
        return frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )

    def _encode(self, size: int) -> None:
        import av

        samples, self._samples = self._samples[:size], self._samples[size:]
        samples = np.clip(samples, -1.0, 1.0)
        if self._format == "s16":
            samples = np.rint(samples * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None]), self._format, "mono"
        )
        frame.sample_rate = self._rate
        # Without a time of its own the first frame would come after the encoder's start-up delay.
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._written += size
        self._container.mux(self._sound.encode(frame))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except BrokenPipeError:
            self._failed = True
            raise
        except (OSError, av.FFmpegError) as problem:
            self._failed = True
            raise OutputError(f"{self.name}: cannot be written ({reason(problem)})") from problem
        except BaseException:
            self._failed = True
            raise
