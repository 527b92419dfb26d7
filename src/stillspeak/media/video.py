"""Video in and out: frames (H, W, 3) uint8 RGB, one at a time, with sound that stays in step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.errors import VideoError
from stillspeak.media.audio import load_track
from stillspeak.media.source import open_source, reason

if TYPE_CHECKING:
    import av

Frame = npt.NDArray[np.uint8]

VIDEO_FORMATS = "an MP4, MOV, WebM, MKV, AVI or MPEG file"


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


def iter_frames(path: str | Path, *, fps: float | None = None) -> Iterator[Frame]:
    """Decode a video: frames (H, W, 3) uint8 RGB, contiguous, upright, one at a time.

    Args:
        path: the video file.
        fps: frames a second to yield. Output frame k is the source frame nearest to the
            time k / fps, counted from the first frame (a frame that stands for longer than
            usual is held until its successor is due). None yields every frame as decoded.

    Raises:
        VideoError: missing, empty, text or damaged file, or no picture track in it; from
            the first ``next`` on.
    """
    if fps is not None and not fps > 0:
        raise ValueError(f"fps is {fps}, it must be positive")
    count = 0
    with _open_video(path) as (container, stream):
        decoded = _decoded(container, stream, str(path))
        if fps is None:
            for source in decoded:
                count += 1
                yield _to_rgb(source)
        else:
            for frame in _at_rate(decoded, fps, _nominal_fps(stream)):
                count += 1
                yield frame
    if not count:
        raise VideoError(f"{path}: holds no video frames; give {VIDEO_FORMATS}")


def read_clip(
    path: str | Path, *, fps: float = VIDEO_FPS, sample_rate: int = SAMPLE_RATE
) -> tuple[Iterator[Frame], npt.NDArray[np.float32]]:
    """A video's frames and its sound on one clock: audio sample 0 sounds at frame 0.

    Args:
        path: a video file with a sound track.
        fps: frames a second, as in ``iter_frames``.
        sample_rate: audio samples a second.

    Returns:
        Frames (H, W, 3) uint8 RGB, decoded as they are asked for, and the sound (S,)
        float32 mono in [-1, 1]. The sound is cut or zero-padded at its beginning only: it
        may end before or after the picture, as it does in the file.

    Raises:
        VideoError: the picture cannot be read.
        AudioError: the sound cannot be read, or there is none.
    """
    with _open_video(path) as (container, stream):
        first = next(_decoded(container, stream, str(path)), None)
        if first is None:
            raise VideoError(f"{path}: holds no video frames; give {VIDEO_FORMATS}")
        picture_start = _seconds(first) or 0.0
    audio, sound_start = load_track(path, sample_rate=sample_rate)
    lead = round((sound_start - picture_start) * sample_rate)
    if lead > 0:
        audio = np.concatenate([np.zeros(lead, np.float32), audio])
    elif lead < 0:
        audio = audio[-lead:]
    return iter_frames(path, fps=fps), audio


@contextmanager
def _open_video(
    path: str | Path,
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The open container and its first picture track (not a cover picture)."""
    import av
    from av.stream import Disposition

    name, wanted = str(path), "a video"
    with open_source(
        path, name=name, wanted=wanted, formats=VIDEO_FORMATS, error=VideoError
    ) as file:
        try:
            # No protocol is allowed, so that a playlist cannot make FFmpeg open other files.
            container = av.open(file, mode="r", options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError, OSError) as problem:
            raise VideoError(
                f"{name}: not {wanted} stillspeak can read ({reason(problem)}); "
                f"give {VIDEO_FORMATS}"
            ) from problem
        with container:
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
    import av

    try:
        yield from container.decode(stream)
    except av.FFmpegError as problem:
        raise VideoError(
            f"{name}: the video is damaged ({reason(problem)}); re-export or download it again"
        ) from problem


def _at_rate(
    frames: Iterator[av.VideoFrame], fps: float, source_fps: float | None
) -> Iterator[Frame]:
    """Resample frames by their timestamps; holds one frame, whatever the length."""
    interval = 1.0 / (source_fps or fps)
    # Half an interval makes the choice the nearest frame in time and absorbs timestamps
    # rounded to the millisecond; a tie goes to the earlier frame.
    early = 0.5 * min(interval, 1.0 / fps) - 1e-6
    k = 0
    current: av.VideoFrame | None = None
    shown: Frame | None = None
    zero = time = 0.0
    for frame in frames:
        seconds = _seconds(frame)
        if current is None:
            zero = seconds or 0.0
        else:
            last, time = time, time + interval if seconds is None else seconds - zero
            if time <= last:
                # The clock was set back inside the file: go on from here.
                time = last + interval
                zero = zero if seconds is None else seconds - time
            while k / fps < time - early:
                shown = _to_rgb(current) if shown is None else shown.copy()
                yield shown
                k += 1
        current, shown = frame, None
    if current is None:
        return
    if current.duration and current.time_base:
        interval = float(current.duration * current.time_base)
    total = max(round((time + interval) * fps), 1)
    while k < total:
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
    import av

    count, begin, end = 0, float("inf"), 0.0
    with _open_video(path) as (container, stream):
        interval = 1.0 / (_nominal_fps(stream) or VIDEO_FPS)
        try:
            for packet in container.demux(stream):
                if packet.pts is None or packet.time_base is None:
                    continue
                count += 1
                time = float(packet.pts * packet.time_base)
                own = float(packet.duration * packet.time_base) if packet.duration else interval
                begin, end = min(begin, time), max(end, time + own)
        except av.FFmpegError as problem:
            raise VideoError(
                f"{path}: the video is damaged ({reason(problem)}); re-export or download it again"
            ) from problem
    return count, max(end - begin, 0.0) if count else 0.0
