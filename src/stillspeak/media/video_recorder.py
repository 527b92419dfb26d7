"""Record a live video, frame by frame with its sound; whenever it ends, the file is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stillspeak.errors import OutputError
from stillspeak.media.audio import Waveform
from stillspeak.media.encoder import MovieEncoder
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.video import Frame
from stillspeak.media.video_writer import check_output, output_errors
from stillspeak.system.atomic import partial_folder

if TYPE_CHECKING:
    import av

# Blocks of sound that are kept until the first frame comes.
_EARLY = 250


class Recorder:
    """Writes frames and sound in step; a context manager.

    On leaving it an MP4 is put in its place, whole, unless there was no frame: then nothing is
    left and :attr:`frames` is 0. After a failure of the writing itself nothing is left either.

    Args:
        target: an ``.mp4``, or an open file that a player reads while it is written: Matroska.
        fps: frames a second.
        rate: samples a second of the sound; a multiple of ``fps``.
        overwrite: replace what is there.
        metadata: texts such as ``comment``.

    Attributes:
        marks: what says that the frames are synthetic, as of ``write_video``; None, the
            default: nothing does. May be set until the first frame comes.
        name: what messages call the target.

    Raises:
        OutputError: as :func:`~stillspeak.media.video_writer.check_output`; no ``.mp4``; writing
            fails.
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
        if isinstance(target, str | Path):
            self.name = str(target)
            if Path(target).suffix.lower() != ".mp4":
                raise OutputError(f"{target}: live video is recorded as MP4; give a name in .mp4")
            self._target: Path | BinaryIO = check_output(target, overwrite=overwrite)
        else:
            self.name, self._target = "<output>", target
        self.marks: Marks | None = None
        self._marking: Marking | None = None
        self._fps, self._rate, self._overwrite = fps, rate, overwrite
        self._metadata = dict(metadata or {})
        self._movie: MovieEncoder | None = None
        self._last: av.VideoFrame | None = None
        self._early: deque[Waveform] = deque(maxlen=_EARLY)
        self._failed = self._closed = False
        self._stack = ExitStack()

    @property
    def frames(self) -> int:
        """Frames written, including those that stand for one that was missing."""
        return 0 if self._movie is None else self._movie.count

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def add(self, picture: Frame | None, sound: Waveform) -> None:
        """Write one frame.

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
            return
        with self._errors():
            if picture is not None:
                if self._marking is None and self.marks is not None:
                    suffix = ".mp4" if isinstance(self._target, Path) else ".mkv"
                    self._marking = Marking(self.marks, suffix)
                if self._marking is not None:
                    picture = self._marking.frame(picture)
                rows, columns = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
                if self._movie is None:
                    self._movie = self._open(rows, columns)
                self._last = self._movie.convert(picture[:rows, :columns])
            assert self._movie is not None and self._movie.sound is not None
            assert self._last is not None
            while self._early:
                self._movie.write(self._last)
                self._movie.sound.add(self._early.popleft())

    def close(self) -> None:
        """End the file and put it in its place.

        Raises:
            OutputError: it cannot be written, or something has come into its place meanwhile.
        """
        if self._movie is None or self._closed:
            return
        self._closed = True
        with self._stack:
            if self._failed:
                return
            with self._errors():
                self._movie.finish()
            if isinstance(self._target, Path):
                check_output(self._target, overwrite=self._overwrite)
                with self._errors():
                    if self._marking is not None:
                        self._marking.sign_file(self._temporary, self.name)
                    self._temporary.replace(self._target)

    def _open(self, height: int, width: int) -> MovieEncoder:
        place, muxer, sound = self._target, "mp4", "aac"
        options = {"crf": "20", "preset": "veryfast"}
        if isinstance(place, Path):
            place = self._stack.enter_context(partial_folder(place)) / "video.part"
            self._temporary = place
        else:
            muxer, sound = "matroska", "pcm_s16le"
            options |= {"preset": "ultrafast", "tune": "zerolatency"}
        size, audio = (height, width), (sound, self._rate)
        movie = MovieEncoder(
            place, muxer, ("libx264", options), size, self._fps, audio, self._metadata
        )
        self._stack.callback(movie.close)
        return movie

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with output_errors(self.name):
                yield
        except BaseException:
            self._failed = True
            raise
