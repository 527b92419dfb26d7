"""Video in: frames (H, W, 3) uint8 RGB, one at a time, and the sound on the same clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.errors import VideoError
from stillspeak.media.audio import Waveform, load_stretch, load_track
from stillspeak.media.dynamic_range import standard_range
from stillspeak.media.source import Wanted, can_jump, open_container, reason

if TYPE_CHECKING:
    import av

Frame = npt.NDArray[np.uint8]

VIDEO_FORMATS = "an MP4, MOV, WebM, MKV, AVI or MPEG file"
_WANTED = Wanted("a video", VIDEO_FORMATS, VideoError)

# Before this many seconds, decoding from the beginning is as quick as jumping.
_WORTH_A_JUMP = 4.0
# A jump lands on a key frame at least this long before what is wanted.
_RUN_UP = 1.0
# A frame that stands for longer was not held: the clock jumped.
_LONGEST_STILL = 3600.0


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
    with open_video(path) as (container, stream):
        has_audio = bool(container.streams.audio)
        first = _first_frame(container, stream, path)
        width, height = first.width, first.height
        if first.rotation % 180:
            width, height = height, width
        fps = float(nominal_rate(stream) or 0)
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
    for jump in (True, False) if start > _WORTH_A_JUMP else (False,):
        with open_video(path) as (container, stream):
            zero: float | None = None
            if not jump:
                decoded = decode(container, stream, str(path))
            elif entered := enter(container, stream, str(path), start):
                decoded, zero = entered
            else:
                continue
            if fps is None:
                frames: Iterator[Frame] = map(to_rgb, decoded)
            else:
                span = round(start * fps), None if end is None else round(end * fps)
                frames = _at_rate(decoded, fps, nominal_rate(stream), zero, span)
            found = False
            for frame in frames:
                found = True
                yield frame
        if found:
            return
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
        fps, start: as in ``iter_frames``.
        sample_rate: audio samples a second.
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
        audio = np.pad(audio, (lead, 0))
    return frames, audio[max(-lead, 0) :]


def sound_lead(path: str | Path, sound_start: float) -> float:
    """Seconds from the first frame to a time on the container's clock, as ``read_track`` gives.

    Raises:
        VideoError: the picture cannot be read.
    """
    return sound_start - _picture_start(path)


def clock_set_back(path: str | Path) -> float | None:
    """Where a video's clock jumps back by more than a second, as in files joined end to end.

    In seconds on the container's clock, or None. No stretch of such a file can be found again.

    Raises:
        VideoError: the picture cannot be read.
    """
    last: float | None = None
    with open_video(path) as (container, stream), read_errors(str(path)):
        for packet in container.demux(stream):
            if packet.dts is not None and packet.time_base is not None:
                time = float(packet.dts * packet.time_base)
                if last is not None and time < last - 1.0:
                    return last
                last = time
    return None


def _picture_start(path: str | Path) -> float:
    """Time of the first frame in seconds on the container's clock."""
    with open_video(path) as (container, stream):
        return frame_time(_first_frame(container, stream, path)) or 0.0


def _first_frame(
    container: av.container.InputContainer, stream: av.VideoStream, path: str | Path
) -> av.VideoFrame:
    first = next(decode(container, stream, str(path)), None)
    if first is None:
        raise VideoError(f"{path}: holds no video frames; give {VIDEO_FORMATS}")
    return first


def enter(
    container: av.container.InputContainer, stream: av.VideoStream, name: str, start: float
) -> tuple[Iterator[av.VideoFrame], float] | None:
    """Decode from the last key frame well before ``start`` seconds after the first frame.

    Also returns the time of that first frame. None where the file cannot be entered there: it has
    no time stamps or no index.
    """
    import av

    if not can_jump(container):
        return None
    first = next(decode(container, stream, name), None)
    zero = None if first is None else frame_time(first)
    if zero is None or stream.time_base is None:
        return None
    latest = zero + start - _RUN_UP
    try:
        container.seek(int(latest / stream.time_base), stream=stream)
    except (av.FFmpegError, OSError):
        return None
    decoded = decode(container, stream, name)
    # What comes before the key frame depends on frames that were skipped.
    landed = next((frame for frame in decoded if frame.key_frame), None)
    at = None if landed is None else frame_time(landed)
    if landed is None or at is None or at > latest + _RUN_UP / 2:
        return None
    return chain([landed], decoded), zero


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The open container and its first picture track (not a cover picture)."""
    from av.stream import Disposition

    name = str(path)
    with open_container(path, name, _WANTED) as container:
        if container.format.name.endswith("_pipe"):
            raise VideoError(f"{name}: a still picture, not a video; give {VIDEO_FORMATS}")
        for stream in container.streams.video:
            if not stream.disposition & Disposition.attached_pic:
                break
        else:
            raise VideoError(f"{name}: has no picture track; give {VIDEO_FORMATS}")
        stream.thread_type = "AUTO"
        yield container, stream


def decode(
    container: av.container.InputContainer, stream: av.VideoStream, name: str
) -> Iterator[av.VideoFrame]:
    """Every frame of the track, in the order of display."""
    with read_errors(name):
        yield from container.decode(stream)


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turn errors of FFmpeg and the disk into one line about ``name``."""
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
    source_fps: Fraction | None,
    zero: float | None,
    span: tuple[int, int | None],
) -> Iterator[Frame]:
    """Resample frames by their timestamps; holds one frame, whatever the length.

    ``zero`` is when the video begins, in seconds, if ``frames`` do not begin there. ``span`` says
    which output frames are made, counted from the video's beginning.
    """
    interval = 1.0 / float(source_fps or fps)
    k, stop = span
    current: av.VideoFrame | None = None
    shown: Frame | None = None
    time = 0.0
    for frame in frames:
        seconds = frame_time(frame)
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
                shown = to_rgb(current) if shown is None else shown.copy()
                yield shown
                k += 1
        current, shown = frame, None
    if current is None:
        return
    if current.duration and current.time_base:
        interval = min(float(current.duration * current.time_base), _LONGEST_STILL)
    total = max(round((time + interval) * fps), 1)
    while k < (total if stop is None else min(stop, total)):
        shown = to_rgb(current) if shown is None else shown.copy()
        yield shown
        k += 1


def to_rgb(frame: av.VideoFrame) -> Frame:
    """A decoded frame as (H, W, 3) uint8 RGB of standard range, contiguous and turned upright."""
    frame = standard_range(frame)
    array: Frame = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    array = np.rot90(array, round(frame.rotation / 90))
    # Rows are padded where the width is not a multiple of the codec's alignment.
    return np.ascontiguousarray(array)


def frame_time(frame: av.VideoFrame) -> float | None:
    """Seconds on the container's clock, where the frame has a time stamp."""
    return None if frame.pts is None else frame.time


def nominal_rate(stream: av.VideoStream) -> Fraction | None:
    """Frames a second as the container states or guesses them."""
    return stream.average_rate or stream.guessed_rate or stream.base_rate or None


def _measure(path: str | Path) -> tuple[int, float]:
    """Number of picture packets and the seconds they span, without decoding them."""
    count, begin, end = 0, float("inf"), 0.0
    with open_video(path) as (container, stream), read_errors(str(path)):
        interval = 1.0 / float(nominal_rate(stream) or VIDEO_FPS)
        for packet in container.demux(stream):
            if packet.pts is None or packet.time_base is None:
                continue
            count += 1
            time = float(packet.pts * packet.time_base)
            own = float(packet.duration * packet.time_base) if packet.duration else interval
            begin, end = min(begin, time), max(end, time + own)
    return count, max(end - begin, 0.0) if count else 0.0
