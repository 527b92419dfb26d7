"""Video out: frames, RGB or RGBA, one at a time, with sound that stays in step."""

from __future__ import annotations

import errno
import io
import os
import re
import wave
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.errors import OutputError, OutputExistsError
from stillspeak.media.audio import Waveform
from stillspeak.media.encoder import (
    MUXERS,
    MovieEncoder,
    add_picture,
    cutout_encoder,
    open_output,
    picture_encoder,
    rgb_frame,
)
from stillspeak.media.image import on_white
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.sound import SoundFeed, SoundSource, sound_of_array
from stillspeak.media.source import reason
from stillspeak.media.video import Frame
from stillspeak.system.atomic import partial_folder

OUTPUT_FORMATS = (
    ".mp4, .mov, .mkv, .m4v, .webm or .gif, or a name without suffix for a folder of PNG files"
)

FOLDER = "folder"
_SUFFIXES = (*MUXERS, ".gif")
_TRANSPARENT = (".webm", ".mov", ".gif", FOLDER)
_MOST_CHANNELS = 8  # more is an array with its axes swapped
_AHEAD = 4  # frames that may be made before the first of them is encoded
_GIF_MAX_FPS = 50
_OWN_FILE = re.compile(r"\d{6,}\.png|audio\.wav")


def check_output(path: str | Path, *, overwrite: bool) -> Path:
    """The path, if ``write_video`` can write a video there; ask before the work begins.

    Raises:
        OutputExistsError: there is something already and ``overwrite`` is False.
        OutputError: unknown suffix, missing or unwritable folder, or a folder where a file
            is to be (or the reverse), or a folder that holds anything but frames.
    """
    if _output_kind(path) != FOLDER:
        return check_file(path, overwrite=overwrite)
    target = _in_folder(path)
    _check_output_folder(target, overwrite)
    return target


def keeps_transparency(path: str | Path) -> bool:
    """Whether the kind of output that a path names has a place for transparency."""
    return _output_kind(path) in _TRANSPARENT


def check_file(path: str | Path, *, overwrite: bool) -> Path:
    """As :func:`check_output`, for a file of any suffix."""
    target = _in_folder(path)
    if target.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file in it")
    if target.exists() and not overwrite:
        raise OutputExistsError(
            f"{path}: exists already; choose another name, or allow it to be overwritten"
        )
    return target


def _in_folder(path: str | Path) -> Path:
    """A path whose folder can be written to."""
    folder = Path(path).parent
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(f"{path}: the folder {folder} {problem}; create it or write elsewhere")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path}: no permission to write into the folder {folder}; write elsewhere"
        )
    return Path(path)


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    fps: int | Fraction = VIDEO_FPS,
    audio: Waveform | SoundSource | None = None,
    sample_rate: int = SAMPLE_RATE,
    overwrite: bool = False,
    crf: int = 18,
    metadata: Mapping[str, str] | None = None,
    marks: Marks | None = None,
) -> int:
    """Encode frames as they come, with the sound in step, and put the file in place whole.

    The suffix decides: ``.mp4``, ``.mov``, ``.mkv`` and ``.m4v`` (H.264 and AAC), ``.webm`` (VP9
    and Opus), ``.gif`` (no sound), and without a suffix, or with a separator at the end, a folder
    of ``000000.png`` and so on with ``audio.wav`` (16 bit). Until all is written the work is in a
    temporary file beside the target; after any failure nothing of it remains, and what was there
    before is as it was.

    Movies need even sizes: an odd width or height gets its last column or row twice.

    Args:
        path: where to write.
        frames: (H, W, 3) uint8 RGB, all of one size, or RGBA, (H, W, 4). Transparency is kept in
            ``.webm`` (VP9 with alpha), ``.mov`` (then ProRes 4444), a folder and, seen or not, in
            ``.gif``; for other formats frames are laid on white. They are taken in the caller's
            thread and marked and encoded in another, no more than four behind.
        fps: frames a second; a GIF shows at most 50.
        audio: (S,) or (S, C) float32, or a sound's source, cut or zero-padded to the length of the
            picture. Mono, stereo and 5.1 are kept, and the rate where the format's encoder has it.
            The packets of a file are copied where the format's players know them; the last one may
            outlast the picture.
        sample_rate: samples a second of an array.
        overwrite: replace what is there.
        crf: picture quality on H.264's scale, 0 (lossless) to 51; VP9 gets the same place
            on its own scale, GIF and PNG take no notice.
        metadata: texts such as ``title`` and ``comment``, stored in movies and PNG.
        marks: what says that the frames are synthetic: watermark, content credentials, label.
            None, for footage that is not, marks nothing; what ``video_settings`` of an
            animation or a session holds marks generated frames as they should be.

    Returns:
        The number of frames written.

    Raises:
        OutputExistsError: there is something already and ``overwrite`` is False.
        OutputError: as ``check_output``; no frames; the disk is full or writing fails.
        ConfigError: the certificate or the label cannot be used.
        ValueError: a frame or the audio has the wrong shape or type.
        Exception: whatever ``frames`` raises, unchanged.
    """
    target = check_output(path, overwrite=overwrite)
    kind = _output_kind(path)
    name = str(path)
    _check_settings(fps, crf, audio, sample_rate)
    if kind == ".gif" and fps > _GIF_MAX_FPS:
        raise OutputError(f"{name}: a GIF shows at most {_GIF_MAX_FPS} frames a second, not {fps}")
    marking = None if marks is None else Marking(marks, ".png" if kind == FOLDER else kind)
    writer: _Writer | None = None
    with ExitStack() as stack:
        with output_errors(name):
            temporary = stack.enter_context(partial_folder(target)) / "video.part"
        sound = sound_of_array(audio, sample_rate) if isinstance(audio, np.ndarray) else audio
        output = _Output(temporary, fps, sound, crf, dict(metadata or {}), marking)

        def add(frame: Frame) -> None:
            nonlocal writer
            if frame.shape[2] == 4 and kind not in _TRANSPARENT:
                frame = on_white(frame)[..., :3]
            if marking is not None:
                frame = marking.frame(frame)
            with output_errors(name):
                if writer is None:
                    if kind == FOLDER:
                        writer = _FolderWriter(output)
                    elif kind == ".gif":
                        writer = _GifWriter(output, frame.shape)
                    else:
                        writer = _MovieWriter(output, kind, frame.shape)
                    stack.callback(writer.close)
                writer.add(frame)

        count = _feed(frames, add)
        if writer is None:
            raise OutputError(f"{name}: there are no frames to write; nothing was written")
        with output_errors(name):
            writer.finish()
            if marking is not None and kind != FOLDER:
                marking.sign_file(temporary, name)
            # It may have appeared while the frames were made.
            check_output(path, overwrite=overwrite)
            _put_in_place(temporary, target)
    return count


def _feed(frames: Iterable[Frame], add: Callable[[Frame], None]) -> int:
    """Check frames and add them in another thread, in order; returns how many there were."""
    shape: tuple[int, ...] = ()
    count = 0
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "stillspeak-video") as thread:
        try:
            for frame in frames:
                shape = _check_frame(frame, count, shape)
                if len(waiting) == _AHEAD:
                    waiting.popleft().result()
                # A copy: the next frame may be drawn into the same array.
                waiting.append(thread.submit(add, frame.copy()))
                count += 1
            for one in waiting:
                one.result()
        finally:
            thread.shutdown(cancel_futures=True)
    return count


@dataclass(frozen=True)
class _Output:
    """What every writer needs to know: where, how fast, and which sound goes with it."""

    temporary: Path
    fps: int | Fraction
    sound: SoundSource | None
    crf: int
    metadata: dict[str, str]
    marking: Marking | None


class _Writer:
    """One kind of output; frames are (H, W, 3) uint8 of the size it was started with."""

    def add(self, frame: Frame) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Release what is open; the second time, and after ``finish``, nothing happens."""


class _MovieWriter(_Writer):
    """A movie: every frame is followed at once by the sound that belongs to it."""

    def __init__(self, output: _Output, kind: str, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        self.odd = ((0, height % 2), (0, width % 2), (0, 0)) if (height | width) % 2 else None
        encoder = (picture_encoder(kind, output.crf), "yuv420p")
        encoder = (channels == 4 and cutout_encoder(kind, output.crf)) or encoder
        self.movie = MovieEncoder(
            output.temporary,
            MUXERS[kind],
            encoder[0],
            (height + height % 2, width + width % 2),
            output.fps,
            output.sound,
            output.metadata,
            encoder[1],
        )

    def add(self, frame: Frame) -> None:
        even = frame if self.odd is None else np.pad(frame, self.odd, mode="edge")
        self.movie.write(self.movie.convert(even))

    def finish(self) -> None:
        self.movie.finish()

    def close(self) -> None:
        self.movie.close()


class _GifWriter(_Writer):
    """GIF: every frame with a palette of its own, so no frame waits for another."""

    def __init__(self, output: _Output, shape: tuple[int, ...]) -> None:
        import av
        import av.filter

        height, width, channels = shape
        form, transparent = ("rgba", 1) if channels == 4 else ("rgb24", 0)
        self.count = 0
        self.time_base = 1 / Fraction(output.fps)
        self.container = open_output(output.temporary, "gif")
        self.stream = add_picture(self.container, ("gif", {}), output.fps, (height, width), "pal8")
        self.stream.codec_context.time_base = self.time_base
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=width,
            height=height,
            format=av.VideoFormat(form),
            time_base=self.time_base,
        )
        split = graph.add("split")
        palette = graph.add("palettegen", f"stats_mode=single:reserve_transparent={transparent}")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self.graph = graph

    def add(self, frame: Frame) -> None:
        picture = rgb_frame(frame)
        picture.pts, picture.time_base = self.count, self.time_base
        self.count += 1
        self.graph.push(picture)
        self._drain()

    def finish(self) -> None:
        self.graph.push(None)
        self._drain()
        self.container.mux(self.stream.encode(None))
        self.container.close()

    def close(self) -> None:
        with suppress(Exception):
            self.container.close()

    def _drain(self) -> None:
        import av

        while True:
            try:
                picture = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return  # it wants more frames, or has given all
            assert isinstance(picture, av.VideoFrame)
            self.container.mux(self.stream.encode(picture))


class _FolderWriter(_Writer):
    """A folder of PNG files, and the sound beside them."""

    def __init__(self, output: _Output) -> None:
        from PIL.PngImagePlugin import PngInfo

        self.output = output
        self.count = 0
        self.texts = PngInfo()
        for key, value in output.metadata.items():
            self.texts.add_itxt(key, value)
        output.temporary.mkdir()

    def add(self, frame: Frame) -> None:
        import PIL.Image

        file = self.output.temporary / f"{self.count:06d}.png"
        buffer = io.BytesIO()
        picture = PIL.Image.fromarray(np.ascontiguousarray(frame))
        picture.save(buffer, "PNG", pnginfo=self.texts, compress_level=3)
        data = buffer.getvalue()
        if self.output.marking is not None:
            data = self.output.marking.sign_bytes(data, file.name)
        file.write_bytes(data)
        self.count += 1

    def finish(self) -> None:
        sound = self.output.sound
        if sound is None:
            return
        total, feed = round(self.count / Fraction(self.output.fps) * sound.rate), SoundFeed(sound)
        with wave.open(str(self.output.temporary / "audio.wav"), "wb") as file:
            file.setnchannels(sound.channels)
            file.setsampwidth(2)
            file.setframerate(sound.rate)
            for begin in range(0, total, sound.rate):
                piece = feed.take(min(sound.rate, total - begin)).T
                # The factor of the reader, so that what is read back is what was given.
                whole = np.clip(np.rint(piece * 32768.0), -32768, 32767)
                file.writeframes(whole.astype("<i2").tobytes())


def _output_kind(path: str | Path) -> str:
    """A suffix such as ``.mp4``, or ``FOLDER``."""
    text = os.fspath(path)
    if not Path(text).name:
        raise OutputError(f"{text or '(empty)'}: not a name to write to; give {OUTPUT_FORMATS}")
    suffix = Path(text).suffix.lower()
    if text.endswith((os.sep, os.altsep or os.sep)) or not suffix:
        return FOLDER
    if suffix not in _SUFFIXES:
        raise OutputError(
            f"{text}: videos with the suffix {suffix} are not written; give {OUTPUT_FORMATS}"
        )
    return suffix


def _check_output_folder(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(
            f"{target}: is a file, and a name without suffix is a folder of PNG files; choose "
            "another name"
        )
    names = sorted(entry.name for entry in target.iterdir())
    if names and not overwrite:
        raise OutputExistsError(
            f"{target}: exists already and is not empty; choose another name, or allow it to be "
            "overwritten"
        )
    # Overwriting replaces the folder, which must never take a user's other files with it.
    for name in names:
        if not _OWN_FILE.fullmatch(name):
            raise OutputError(
                f"{target}: holds other files ({name}) and is not overwritten; choose another name"
            )


def _check_settings(
    fps: int | Fraction, crf: int, audio: Waveform | SoundSource | None, sample_rate: int
) -> None:
    if not isinstance(fps, int | Fraction) or fps <= 0:
        raise ValueError(f"fps is {fps!r}, it must be a positive whole number or Fraction")
    if not isinstance(sample_rate, int) or sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate!r}, it must be a positive whole number")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}, it must be 0 to 51")
    if audio is None or isinstance(audio, SoundSource):
        return
    channels = audio.shape[1] if audio.ndim == 2 else 1
    if audio.ndim not in (1, 2) or audio.dtype.kind != "f" or not 1 <= channels <= _MOST_CHANNELS:
        raise ValueError(f"audio is {audio.dtype} {audio.shape}, it must be (S,) or (S, C) float32")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")


def _check_frame(frame: Frame, index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    if frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8 or not frame.size:
        raise ValueError(
            f"frame {index} is {frame.dtype} {frame.shape}, it must be (H, W, 3) or (H, W, 4) uint8"
        )
    if shape and frame.shape != shape:
        raise ValueError(f"frame {index} has shape {frame.shape}, the first one {shape}")
    return frame.shape


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Turn errors of the operating system and FFmpeg into one line about ``name``.

    That a reader went away is for the caller to handle.
    """
    import av

    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, av.FFmpegError, av.codec.codec.UnknownCodecError) as problem:
        why = f"cannot be written ({reason(problem)})"
        if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some space or write elsewhere"
        raise OutputError(f"{name}: {why}") from problem


def _put_in_place(temporary: Path, target: Path) -> None:
    """Move a finished file or folder to its name in one step."""
    if not temporary.is_dir() or not target.exists():
        temporary.replace(target)
        return
    # A folder cannot replace one that holds files: the old one steps aside, to be removed.
    aside = temporary.with_suffix(".old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
