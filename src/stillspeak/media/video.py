"""Video in and out: frames (H, W, 3) uint8 RGB, one at a time, with sound that stays in step."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import wave
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.errors import OutputError, OutputExistsError, VideoError
from stillspeak.media.audio import Waveform, load_stretch, load_track
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.source import can_jump, open_container, reason
from stillspeak.system.atomic import partial_folder

if TYPE_CHECKING:
    import av

Frame = npt.NDArray[np.uint8]

VIDEO_FORMATS = "an MP4, MOV, WebM, MKV, AVI or MPEG file"
OUTPUT_FORMATS = ".mp4, .webm or .gif, or a name without suffix for a folder of PNG files"

FOLDER = "folder"
_SUFFIXES = (".mp4", ".webm", ".gif")
# Both sound encoders run at this rate: Opus knows no 44.1 kHz, and AAC's start-up delay of
# 1,024 samples, which some players do not take back, is 21 ms here but 64 ms at 16 kHz.
_SOUND_RATE = 48_000
_AHEAD = 4  # frames that may be made before the first of them is encoded
_GIF_MAX_FPS = 50
# Names that the MP4 container has a place for; others need its free-form list.
_MP4_KEYS = frozenset(
    {"title", "artist", "album", "album_artist", "comment", "composer", "copyright", "date"}
    | {"description", "genre", "synopsis", "encoder"}
)
# Before this many seconds, decoding from the beginning is as quick as jumping.
_WORTH_A_JUMP = 4.0
# A jump lands on a key frame at least this long before what is wanted.
_RUN_UP = 1.0
# A frame that stands for longer is no picture that was held but a clock that jumped.
_LONGEST_STILL = 3600.0
_OWN_FILE = re.compile(r"\d{6,}\.png|audio\.wav")


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    ``width`` and ``height`` are pixels as shown (rotation applied), ``fps`` frames a
    second, ``duration`` seconds of picture.
    """

    width: int
    height: int
    fps: float
    duration: float
    has_audio: bool


def probe_video(path: str | Path) -> VideoInfo:
    """Read a video's size, rate and length; its first frame is decoded to be sure of them.

    Raises:
        VideoError: missing, empty, text or damaged file, or no picture track in it.
    """
    with _open_video(path) as (container, stream):
        has_audio = bool(container.streams.audio)
        first = next(_decoded(container, stream, str(path)), None)
        if first is None:
            raise VideoError(f"{path}: holds no video frames; give {VIDEO_FORMATS}")
        turned = first.rotation % 180 != 0
        height, width = (first.width, first.height) if turned else (first.height, first.width)
        fps = _nominal_fps(stream)
        # Containers with a frame index state the length exactly; the others estimate it.
        duration = 0.0
        if stream.frames and stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
    if not duration or not fps:
        count, seconds = _measure(path)
        duration = duration or seconds or (count / fps if fps else 0.0)
        fps = fps or (count / duration if duration else float(VIDEO_FPS))
    return VideoInfo(width, height, fps, duration, has_audio)


def iter_frames(
    path: str | Path, *, fps: float | None = None, start: float = 0.0, end: float | None = None
) -> Iterator[Frame]:
    """Decode a video: frames (H, W, 3) uint8 RGB, contiguous, upright, one at a time.

    Args:
        path: the video file.
        fps: frames a second to yield. Output frame k is the source frame nearest to the
            time k / fps, counted from the first frame (a frame that stands for longer than
            usual is held until its successor is due). None yields every frame as decoded.
        start: seconds from the first frame, rounded to a multiple of 1 / fps; what comes
            before is skipped, not decoded, where the file allows it. Needs ``fps``.
        end: likewise, the end of the last frame; None is the end of the file. The frames
            are those that the whole video has at these places.

    Raises:
        VideoError: missing, empty, text or damaged file, or no picture track in it; it ends
            before ``start``; from the first ``next`` on.
    """
    if fps is not None and not fps > 0:
        raise ValueError(f"fps is {fps}, it must be positive")
    if fps is None and (start or end is not None):
        raise ValueError("a stretch of a video is read at a rate of its own: give fps")
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"start is {start} and end {end}: need 0 <= start < end")
    first = 0 if fps is None else round(start * fps)
    stop = None if fps is None or end is None else round(end * fps)
    count = 0
    if fps is not None and start > _WORTH_A_JUMP:
        with _open_video(path) as (container, stream):
            jumped = _jump(container, stream, str(path), start)
            if jumped is not None:
                for frame in _at_rate(
                    jumped[0], fps, _nominal_fps(stream), zero=jumped[1], first=first, stop=stop
                ):
                    count += 1
                    yield frame
        if count:
            return
    with _open_video(path) as (container, stream):
        decoded = _decoded(container, stream, str(path))
        if fps is None:
            for source in decoded:
                count += 1
                yield _to_rgb(source)
        else:
            for frame in _at_rate(decoded, fps, _nominal_fps(stream), first=first, stop=stop):
                count += 1
                yield frame
    if not count:
        if start:
            raise VideoError(f"{path}: ends before {start:g} s; was it replaced meanwhile?")
        raise VideoError(f"{path}: holds no video frames; give {VIDEO_FORMATS}")


def read_clip(
    path: str | Path,
    *,
    fps: float = VIDEO_FPS,
    sample_rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
) -> tuple[Iterator[Frame], Waveform]:
    """A video's frames and its sound on one clock: audio sample 0 sounds at frame 0.

    Args:
        path: a video file with a sound track.
        fps: frames a second, as in ``iter_frames``.
        sample_rate: audio samples a second.
        start: seconds from the first frame, as in ``iter_frames``.
        end: likewise. Where it is given, memory holds the sound up to there from ``start``
            on and no more, however long the video.

    Returns:
        Frames (H, W, 3) uint8 RGB, decoded as they are asked for, and the sound (S,)
        float32 mono in [-1, 1]. With ``end``, S is its length exactly, with zeros where
        there is no sound. Without, the sound is cut or zero-padded at its beginning only:
        it may end before or after the picture, as it does in the file.

    Raises:
        VideoError: the picture cannot be read.
        AudioError: the sound cannot be read, or there is none.
    """
    picture_start = _picture_start(path)
    frames = iter_frames(path, fps=fps, start=start, end=end)
    begin = picture_start + round(start * fps) / fps
    if end is not None:
        until = picture_start + round(end * fps) / fps
        return frames, load_stretch(path, begin, until, sample_rate=sample_rate)
    audio, sound_start = load_track(path, sample_rate=sample_rate)
    lead = round((sound_start - begin) * sample_rate)
    if lead > 0:
        audio = np.concatenate([np.zeros(lead, np.float32), audio])
    elif lead < 0:
        audio = audio[-lead:]
    return frames, audio


def sound_lead(path: str | Path, sound_start: float) -> float:
    """Seconds from the first frame to a time on the container's clock, as ``read_track`` gives.

    Raises:
        VideoError: the picture cannot be read.
    """
    return sound_start - _picture_start(path)


def clock_set_back(path: str | Path) -> float | None:
    """Where a video's clock jumps back by more than a second, as in files joined end to end.

    Such a file has no one time for each frame, so no stretch of it can be found again.

    Returns:
        Seconds on the container's clock just before the first such place, or None. Packets
        are looked at, not decoded.

    Raises:
        VideoError: the picture cannot be read.
    """
    last: float | None = None
    with _open_video(path) as (container, stream), _read_errors(str(path)):
        for packet in container.demux(stream):
            if packet.dts is None or packet.time_base is None:
                continue
            time = float(packet.dts * packet.time_base)
            if last is not None and time < last - 1.0:
                return last
            last = time
    return None


def _picture_start(path: str | Path) -> float:
    """Time of the first frame in seconds on the container's clock."""
    with _open_video(path) as (container, stream):
        first = next(_decoded(container, stream, str(path)), None)
        if first is None:
            raise VideoError(f"{path}: holds no video frames; give {VIDEO_FORMATS}")
        return _seconds(first) or 0.0


def _jump(
    container: av.container.InputContainer, stream: av.VideoStream, name: str, start: float
) -> tuple[Iterator[av.VideoFrame], float] | None:
    """Decode from the last key frame well before ``start`` seconds after the first frame.

    Returns:
        The frames from there on and the time of the video's first frame in seconds, or None
        where the file cannot be entered there: it has no time stamps or no index.
    """
    import av

    if not can_jump(container):
        return None
    first = next(_decoded(container, stream, name), None)
    zero = None if first is None else _seconds(first)
    if zero is None or stream.time_base is None:
        return None
    latest = zero + start - _RUN_UP
    try:
        container.seek(int(latest / stream.time_base), stream=stream)
    except (av.FFmpegError, OSError):
        return None
    decoded = _decoded(container, stream, name)
    # What comes before the key frame leans on frames that were skipped.
    landed = next((frame for frame in decoded if frame.key_frame), None)
    at = None if landed is None else _seconds(landed)
    if landed is None or at is None or at > latest + _RUN_UP / 2:
        return None
    return chain([landed], decoded), zero


@contextmanager
def _open_video(
    path: str | Path,
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The open container and its first picture track (not a cover picture)."""
    from av.stream import Disposition

    name = str(path)
    with open_container(
        path, name=name, wanted="a video", formats=VIDEO_FORMATS, error=VideoError
    ) as container:
        if container.format.name.endswith("_pipe"):
            raise VideoError(f"{name}: a still picture, not a video; give {VIDEO_FORMATS}")
        streams = [
            s for s in container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise VideoError(f"{name}: has no picture track; give {VIDEO_FORMATS}")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, name: str
) -> Iterator[av.VideoFrame]:
    """Every frame of the track, in the order of display."""
    with _read_errors(name):
        yield from container.decode(stream)


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    """What FFmpeg and the disk say while a video is read, as one line about ``name``."""
    import av

    try:
        yield
    except av.FFmpegError as problem:
        raise VideoError(
            f"{name}: the video is damaged ({reason(problem)}); re-export or download it again"
        ) from problem
    except OSError as problem:
        raise VideoError(f"{name}: cannot be read ({reason(problem)})") from problem


def _at_rate(
    frames: Iterator[av.VideoFrame],
    fps: float,
    source_fps: float | None,
    *,
    zero: float | None = None,
    first: int = 0,
    stop: int | None = None,
) -> Iterator[Frame]:
    """Resample frames by their timestamps; holds one frame, whatever the length.

    ``zero`` is when the video begins, in seconds, if ``frames`` do not begin there. Output
    frames ``first`` up to ``stop`` are made, counted from the video's beginning.
    """
    interval = 1.0 / (source_fps or fps)
    k = first
    current: av.VideoFrame | None = None
    shown: Frame | None = None
    time = 0.0
    for frame in frames:
        seconds = _seconds(frame)
        if current is None:
            if zero is None:
                zero = seconds or 0.0
            elif seconds is not None:
                time = seconds - zero
        else:
            assert zero is not None
            last, time = time, time + interval if seconds is None else seconds - zero
            if not 0 < time - last <= _LONGEST_STILL:
                # The clock was set back inside the file, or far ahead: go on from here.
                time = last + interval
                zero = zero if seconds is None else seconds - time
            # Half the way between two frames is the choice of the nearest in time, and absorbs
            # timestamps rounded to the millisecond; a tie goes to the earlier frame.
            early = 0.5 * min(time - last, interval, 1.0 / fps) - 1e-6
            while k / fps < time - early:
                if k == stop:
                    return
                shown = _to_rgb(current) if shown is None else shown.copy()
                yield shown
                k += 1
        current, shown = frame, None
    if current is None:
        return
    if current.duration and current.time_base:
        interval = min(float(current.duration * current.time_base), _LONGEST_STILL)
    total = max(round((time + interval) * fps), 1)
    while k < (total if stop is None else min(stop, total)):
        shown = _to_rgb(current) if shown is None else shown.copy()
        yield shown
        k += 1


def _to_rgb(frame: av.VideoFrame) -> Frame:
    """A decoded frame as (H, W, 3) uint8 RGB, contiguous and turned upright."""
    array: Frame = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    quarter_turns = round(frame.rotation / 90) % 4
    if quarter_turns:
        array = np.rot90(array, quarter_turns)
    # Rows are padded where the width is not a multiple of the codec's alignment.
    return np.ascontiguousarray(array)


def _seconds(frame: av.VideoFrame) -> float | None:
    return None if frame.pts is None else frame.time


def _nominal_fps(stream: av.VideoStream) -> float | None:
    rate: Fraction | None = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else None


def _measure(path: str | Path) -> tuple[int, float]:
    """Number of picture packets and the seconds they span, without decoding them."""
    count, begin, end = 0, float("inf"), 0.0
    with _open_video(path) as (container, stream), _read_errors(str(path)):
        interval = 1.0 / (_nominal_fps(stream) or VIDEO_FPS)
        for packet in container.demux(stream):
            if packet.pts is None or packet.time_base is None:
                continue
            count += 1
            time = float(packet.pts * packet.time_base)
            own = float(packet.duration * packet.time_base) if packet.duration else interval
            begin, end = min(begin, time), max(end, time + own)
    return count, max(end - begin, 0.0) if count else 0.0


def check_output(path: str | Path, *, overwrite: bool) -> Path:
    """Find out before the work begins whether a video can be written to ``path``.

    Args:
        path: what ``write_video`` is going to be given.
        overwrite: accept a video that is there already.

    Returns:
        The path.

    Raises:
        OutputExistsError: there is something already and ``overwrite`` is False.
        OutputError: unknown suffix, missing or unwritable folder, or a folder where a file
            is to be (or the reverse), or a folder that holds anything but frames.
    """
    kind = _output_kind(path)
    target = Path(path)
    folder = target.parent
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(f"{path}: the folder {folder} {problem}; create it or write elsewhere")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path}: no permission to write into the folder {folder}; write elsewhere"
        )
    if kind == FOLDER:
        _check_output_folder(target, overwrite)
    elif target.is_dir():
        raise OutputError(f"{path}: is a folder; give the name of a file in it")
    elif target.exists() and not overwrite:
        raise OutputExistsError(
            f"{path}: exists already; choose another name, or allow it to be overwritten"
        )
    return target


def write_video(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    fps: int = VIDEO_FPS,
    audio: Waveform | None = None,
    sample_rate: int = SAMPLE_RATE,
    overwrite: bool = False,
    crf: int = 18,
    metadata: Mapping[str, str] | None = None,
    marks: Marks | None = None,
) -> int:
    """Encode frames as they come, with the sound in step, and put the file in place whole.

    The suffix decides: ``.mp4`` (H.264 and AAC), ``.webm`` (VP9 and Opus), ``.gif`` (no
    sound), and without a suffix, or with a separator at the end, a folder of ``000000.png``
    and so on with ``audio.wav`` (16 bit). Until all is written the work is in a temporary
    file beside the target; after any failure nothing of it remains, and what was there
    before is as it was.

    MP4 and WebM need even sizes: an odd width or height gets its last column or row twice.

    Args:
        path: where to write.
        frames: (H, W, 3) uint8 RGB, all of one size. They are taken in the caller's thread and
            marked and encoded in another, no more than four behind.
        fps: frames a second; a GIF shows at most 50.
        audio: (S,) float32 mono, cut or zero-padded to the length of the picture.
        sample_rate: audio samples a second.
        overwrite: replace what is there.
        crf: picture quality on H.264's scale, 0 (lossless) to 51; VP9 gets the same place
            on its own scale, GIF and PNG take no notice.
        metadata: texts such as ``title`` and ``comment``, stored in MP4, WebM and PNG.
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
    shape: tuple[int, ...] = ()
    count = 0
    stack = ExitStack()
    try:
        with _output_errors(name):
            # Hidden, and in the target's own folder, so that the last step is a rename and
            # cannot be half done.
            beside = stack.enter_context(partial_folder(target))
        job = _Job(
            temporary=beside / "video.part",
            fps=fps,
            audio=audio,
            sample_rate=sample_rate,
            crf=crf,
            metadata=dict(metadata or {}),
            marking=marking,
        )

        def add(frame: Frame) -> None:
            nonlocal writer
            if marking is not None:
                frame = marking.frame(frame)
            with _output_errors(name):
                if writer is None:
                    writer = _start_writer(kind, job, height=frame.shape[0], width=frame.shape[1])
                writer.add(frame)

        with ThreadPoolExecutor(1, "stillspeak-video") as thread:
            waiting: deque[Future[None]] = deque()
            try:
                for frame in frames:
                    shape = _check_frame(frame, count, shape)
                    if len(waiting) == _AHEAD:
                        waiting.popleft().result()
                    # A copy, since whoever makes frames may draw the next one into the same array.
                    waiting.append(thread.submit(add, frame.copy()))
                    count += 1
                while waiting:
                    waiting.popleft().result()
            finally:
                thread.shutdown(cancel_futures=True)
        if writer is None:
            raise OutputError(f"{name}: there are no frames to write; nothing was written")
        with _output_errors(name):
            writer.finish()
            if marking is not None and kind != FOLDER:
                marking.sign_file(job.temporary, name)
            # It may have appeared while the frames were made.
            check_output(path, overwrite=overwrite)
            _put_in_place(job.temporary, target)
    except BaseException:
        if writer is not None:
            with suppress(Exception):
                writer.abandon()
        raise
    finally:
        stack.close()
    return count


@dataclass(frozen=True)
class _Job:
    """What every writer is told: where, how fast, and which sound goes with it."""

    temporary: Path
    fps: int
    audio: Waveform | None
    sample_rate: int
    crf: int
    metadata: dict[str, str]
    marking: Marking | None = None


class _Writer(Protocol):
    """One kind of output; frames are (H, W, 3) uint8 of the size it was started with."""

    def add(self, frame: Frame) -> None: ...

    def finish(self) -> None: ...

    def abandon(self) -> None: ...


def _start_writer(kind: str, job: _Job, *, height: int, width: int) -> _Writer:
    if kind == FOLDER:
        return _FolderWriter(job)
    if kind == ".gif":
        return _GifWriter(job, height, width)
    return _MovieWriter(job, kind, height, width)


class _MovieWriter:
    """MP4 or WebM: every frame is followed at once by the sound that belongs to it."""

    def __init__(self, job: _Job, kind: str, height: int, width: int) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace

        self.pad = ((0, height % 2), (0, width % 2), (0, 0))
        self.count = 0
        self.time_base = Fraction(1, job.fps)
        self.colours = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG}
        self.container = _open_output(job, "mp4" if kind == ".mp4" else "webm")
        self.container.metadata.update(job.metadata)
        codec, options = _picture_codec(kind, job.crf)
        picture = self.container.add_stream(codec, rate=job.fps, options=options)
        assert isinstance(picture, av.VideoStream)
        self.picture = picture
        self.picture.width = width + width % 2
        self.picture.height = height + height % 2
        self.picture.pix_fmt = "yuv420p"
        context = self.picture.codec_context
        context.time_base = self.time_base
        # Without the tags every player makes its own guess at the colours. In ITU-T H.273,
        # which FFmpeg follows, BT.709 is number 1 in all three lists.
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = ColorRange.MPEG
        self.sound = None if job.audio is None else _Sound(self.container, kind, job)
        self.container.start_encoding()

    def add(self, frame: Frame) -> None:
        import av

        if self.pad != ((0, 0), (0, 0), (0, 0)):
            frame = np.pad(frame, self.pad, mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", **self.colours)
        picture.pts = self.count
        picture.time_base = self.time_base
        self.count += 1
        self.container.mux(self.picture.encode(picture))
        if self.sound is not None:
            self.sound.write_until(self.count)

    def finish(self) -> None:
        self.container.mux(self.picture.encode(None))
        if self.sound is not None:
            self.sound.finish(self.count)
        self.container.close()

    def abandon(self) -> None:
        self.container.close()


class _Sound:
    """The sound track of a movie, encoded up to the picture's time and no further."""

    def __init__(self, container: av.container.OutputContainer, kind: str, job: _Job) -> None:
        import av
        import soxr

        assert job.audio is not None
        self.container = container
        self.audio = job.audio
        self.rate = job.sample_rate
        self.fps = job.fps
        self.fed = 0
        self.written = 0
        self.ready: Waveform = np.zeros(0, np.float32)
        codec, self.format, bit_rate = (
            ("aac", "fltp", 128_000) if kind == ".mp4" else ("libopus", "flt", 64_000)
        )
        stream = container.add_stream(codec, rate=_SOUND_RATE)
        assert isinstance(stream, av.AudioStream)
        self.stream = stream
        context = stream.codec_context
        context.layout = "mono"
        context.format = self.format
        context.bit_rate = bit_rate
        context.time_base = Fraction(1, _SOUND_RATE)
        self.resampler: Any = None
        if self.rate != _SOUND_RATE:
            self.resampler = soxr.ResampleStream(self.rate, _SOUND_RATE, 1, dtype="float32")

    def write_until(self, frames: int) -> None:
        """Encode the sound of the first ``frames`` frames, silence where it has ended."""
        self._feed(round(Fraction(frames, self.fps) * self.rate))
        size = self.stream.codec_context.frame_size
        while self.ready.shape[0] >= size:
            self._encode(size)

    def finish(self, frames: int) -> None:
        """Encode the rest; the track is as long as ``frames`` frames to the sample."""
        self.write_until(frames)
        if self.resampler is not None:
            tail = self.resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self.ready = np.concatenate([self.ready, tail])
        left = round(Fraction(frames, self.fps) * _SOUND_RATE) - self.written
        self.ready = np.pad(self.ready, (0, max(left - self.ready.shape[0], 0)))[:left]
        size = self.stream.codec_context.frame_size
        while self.ready.size:
            self._encode(min(size, self.ready.shape[0]))
        self.container.mux(self.stream.encode(None))

    def _feed(self, end: int) -> None:
        piece = self.audio[self.fed : end].astype(np.float32, copy=False)
        piece = np.pad(piece, (0, end - self.fed - piece.shape[0]))
        self.fed = end
        if self.resampler is not None:
            piece = self.resampler.resample_chunk(piece)
        self.ready = np.concatenate([self.ready, piece])

    def _encode(self, size: int) -> None:
        import av

        samples, self.ready = self.ready[:size], self.ready[size:]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.clip(samples, -1.0, 1.0)[None]), self.format, "mono"
        )
        frame.sample_rate = _SOUND_RATE
        # Without a time of its own the first frame would be placed after the encoder's
        # start-up delay, and the sound would come that much late.
        frame.pts = self.written
        frame.time_base = Fraction(1, _SOUND_RATE)
        self.written += size
        self.container.mux(self.stream.encode(frame))


class _GifWriter:
    """GIF: every frame with a palette of its own, so no frame waits for another."""

    def __init__(self, job: _Job, height: int, width: int) -> None:
        import av
        import av.filter

        self.count = 0
        self.time_base = Fraction(1, job.fps)
        self.container = _open_output(job, "gif")
        stream = self.container.add_stream("gif", rate=job.fps)
        assert isinstance(stream, av.VideoStream)
        self.stream = stream
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.codec_context.time_base = self.time_base
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=width,
            height=height,
            format=av.VideoFormat("rgb24"),
            time_base=self.time_base,
        )
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
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
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts = self.count
        picture.time_base = self.time_base
        self.count += 1
        self.graph.push(picture)
        self._drain()

    def finish(self) -> None:
        self.graph.push(None)
        self._drain()
        self.container.mux(self.stream.encode(None))
        self.container.close()

    def abandon(self) -> None:
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


class _FolderWriter:
    """A folder of PNG files, and the sound beside them."""

    def __init__(self, job: _Job) -> None:
        from PIL.PngImagePlugin import PngInfo

        self.job = job
        self.count = 0
        self.texts = PngInfo()
        for key, value in job.metadata.items():
            self.texts.add_itxt(key, value)
        job.temporary.mkdir()

    def add(self, frame: Frame) -> None:
        import PIL.Image

        file = self.job.temporary / f"{self.count:06d}.png"
        picture = PIL.Image.fromarray(np.ascontiguousarray(frame))
        if self.job.marking is None or self.job.marking.signer is None:
            picture.save(file, "PNG", pnginfo=self.texts, compress_level=3)
        else:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", pnginfo=self.texts, compress_level=3)
            file.write_bytes(self.job.marking.sign_bytes(buffer.getvalue(), file.name))
        self.count += 1

    def finish(self) -> None:
        if self.job.audio is None:
            return
        total = round(Fraction(self.count, self.job.fps) * self.job.sample_rate)
        step = 60 * self.job.sample_rate
        with wave.open(str(self.job.temporary / "audio.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.job.sample_rate)
            for begin in range(0, total, step):
                size = min(step, total - begin)
                piece = self.job.audio[begin : begin + size]
                piece = np.pad(piece, (0, size - piece.shape[0]))
                # The factor of the reader, so that what is read back is what was given.
                whole = np.clip(np.rint(piece * 32768.0), -32768, 32767)
                file.writeframes(whole.astype("<i2").tobytes())

    def abandon(self) -> None:
        """Nothing is open between calls."""


def _picture_codec(kind: str, crf: int) -> tuple[str, dict[str, str]]:
    """Encoder and options for a movie's picture."""
    if kind == ".mp4":
        return "libx264", {"crf": str(crf)}
    # VP9's scale ends at 63, not 51. At its default speed it takes seconds for a frame.
    vp9 = {"crf": str(round(crf * 63 / 51)), "b": "0", "deadline": "good"}
    return "libvpx-vp9", vp9 | {"cpu-used": "5", "row-mt": "1"}


def _open_output(job: _Job, muxer: str) -> av.container.OutputContainer:
    import av

    flags = "+faststart"
    if not _MP4_KEYS.issuperset(job.metadata):
        flags += "+use_metadata_tags"
    # The prefix keeps a colon in the path from being read as the end of a protocol's name.
    return av.open(
        f"file:{job.temporary}",
        mode="w",
        format=muxer,
        container_options={"movflags": flags} if muxer == "mp4" else {},
    )


def _output_kind(path: str | Path) -> str:
    """``.mp4``, ``.webm``, ``.gif`` or ``FOLDER``."""
    text = os.fspath(path)
    separators = tuple(s for s in (os.sep, os.altsep) if s)
    if not Path(text).name:
        raise OutputError(f"{text or '(empty)'}: not a name to write to; give {OUTPUT_FORMATS}")
    suffix = Path(text).suffix.lower()
    if text.endswith(separators) or not suffix:
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
    foreign = [name for name in names if not _OWN_FILE.fullmatch(name)]
    if foreign:
        raise OutputError(
            f"{target}: holds other files ({foreign[0]}) and is not overwritten; choose another "
            "name"
        )


def _check_settings(fps: int, crf: int, audio: Waveform | None, sample_rate: int) -> None:
    for setting, value in (("fps", fps), ("sample_rate", sample_rate)):
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"{setting} is {value!r}, it must be a positive whole number")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}, it must be 0 to 51")
    if audio is None:
        return
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise ValueError(f"audio is {audio.dtype} {audio.shape}, it must be (S,) float32")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")


def _check_frame(frame: Frame, index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
        raise ValueError(
            f"frame {index} is {frame.dtype} {frame.shape}, it must be (H, W, 3) uint8"
        )
    if shape and frame.shape != shape:
        raise ValueError(f"frame {index} has shape {frame.shape}, the first one {shape}")
    return frame.shape


@contextmanager
def _output_errors(name: str) -> Iterator[None]:
    """What the operating system and FFmpeg say, as one line about ``name``."""
    import av

    try:
        yield
    except (OSError, av.FFmpegError, av.codec.codec.UnknownCodecError) as problem:
        if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"{name}: the disk is full; free some space or write elsewhere"
            ) from problem
        raise OutputError(f"{name}: cannot be written ({reason(problem)})") from problem


def _put_in_place(temporary: Path, target: Path) -> None:
    """Move a finished file or folder to its name in one step."""
    if not temporary.is_dir() or not target.exists():
        temporary.replace(target)
        return
    # A folder cannot replace one that holds files: the old one steps aside first.
    aside = temporary.with_suffix(".old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    """Remove a file or folder of ours if it is there; never hides the error being handled."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
