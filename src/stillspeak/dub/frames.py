"""Which frames of a video are shown when its new sound has another length; and samples of it.

Frames pass one at a time. Those that are shown backward are decoded from key frame to key frame,
from the end of the video to its beginning, a bounded number of them at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from stillspeak.dub.options import Fit
from stillspeak.errors import VideoError
from stillspeak.media.dynamic_range import standard_range
from stillspeak.media.source import can_jump
from stillspeak.media.video import Frame, decode, enter, frame_time, open_video, to_rgb
from stillspeak.media.video_editor import TimedFrame, VideoScan, timed_frames

BURSTS, BURST = 20, 6
"""How many times frames are taken of a video as samples, and how many consecutive ones."""

IN_A_ROW = 3000
"""Frames of a video up to which all are decoded to take samples, and among which they are taken
where a file cannot be entered in its middle."""

HELD = 256 * 2**20
"""Bytes of decoded frames that are held while a video is shown backward."""

_HELD_FRAMES = 8, 250  # however large or small they are
_WASTED = 24  # frames that may be decoded for each one that is shown backward
_NEXT_TO_NOTHING = 0.02  # seconds of sound for which no frame is added: packets end late
_ON_TIME = 1.5e-3  # seconds: Matroska counts milliseconds


def sampled_bursts(video: str | Path, scan: VideoScan) -> Generator[list[Frame]]:
    """Frames (H, W, 3) uint8, upright, from all over a video: lists of consecutive ones.

    Of a short one all. Of a long one those that follow :data:`BURSTS` key frames, which takes no
    longer the longer it is.

    Raises:
        VideoError: it cannot be read.
    """
    if scan.frames > IN_A_ROW:
        places: set[float] = set()
        for number in range(BURSTS):
            place, burst = _burst_at(video, (number + 0.5) / BURSTS * (scan.end - scan.start))
            if place is not None and place not in places:
                places.add(place)
                yield burst
        if places:
            return
    total = min(scan.frames, IN_A_ROW)
    period = BURST * max(1, total // (BURSTS * BURST))
    taken: list[Frame] = []
    for index, frame in enumerate(islice(timed_frames(video), total)):
        if index % period < BURST:
            taken.append(frame.rgb())
        if len(taken) == BURST:
            yield taken
            taken = []
    if taken:
        yield taken


def _burst_at(video: str | Path, start: float) -> tuple[float | None, list[Frame]]:
    """The key frame before a time and those after it, and its time; None: no way to enter."""
    with open_video(video) as (container, stream):
        entered = enter(container, stream, str(video), start)
        if entered is None:
            return None, []
        frames = list(islice(entered[0], BURST))
        return frame_time(frames[0]), [to_rgb(frame) for frame in frames]


def shown_seconds(scan: VideoScan, seconds: float, fit: Fit) -> float:
    """How long a video is shown with a sound of so many seconds, but for a part of a frame."""
    own = scan.end - scan.start
    return min(own, seconds) if fit == "trim" else max(own, seconds)


def fitted(video: str | Path, scan: VideoScan, seconds: float, fit: Fit) -> Iterator[TimedFrame]:
    """A video's frames in the order in which they are shown with a new sound.

    Args:
        scan: of the video.
        seconds: length of the new sound.
        fit: ``loop`` goes back and forth until the sound is over, ``freeze`` holds the last
            frame; with both a video longer than the sound is shown whole. ``trim`` ends with the
            shorter of the two.

    Yields:
        Frames at increasing times, in seconds on the source's clock, from the source's first on;
        each stands beside its neighbour as long as it does in the source.

    Raises:
        VideoError: it cannot be read, or would have to go backward and cannot.
    """
    step = 1 / float(scan.fps)
    until = scan.start + shown_seconds(scan, seconds, fit) - min(_NEXT_TO_NOTHING, step / 2)
    first = last = None
    for frame in timed_frames(video):
        if first is not None and frame.time >= until:
            return
        first, last = first or frame, frame
        yield frame
    if first is None or last is None or fit == "trim":
        return
    if fit == "freeze" or first is last:
        count = 1
        while (time := last.time + count * step) < until:
            yield replace(last, time=time)
            count += 1
    elif last.time + step < until:
        yield from _to_and_fro(video, scan, first, last, until)


def _to_and_fro(
    video: str | Path, scan: VideoScan, first: TimedFrame, last: TimedFrame, until: float
) -> Iterator[TimedFrame]:
    """The frames before the last one backward, then those after the first one forward, and so on
    until a time."""
    room = HELD // max(sum(plane.buffer_size for plane in last.source.planes), 1)
    held = min(max(room, _HELD_FRAMES[0]), _HELD_FRAMES[1])
    _check_backward(video, scan, held)
    at, due = last.time, last.time
    while True:
        back = _backward(video, scan, first.time, last.time, held)
        forth = (frame for frame in timed_frames(video) if frame.time > first.time)
        for frame in chain(back, forth):
            at, due = frame.time, due + abs(frame.time - at)
            if due >= until:
                return
            yield replace(frame, time=due)


def _check_backward(video: str | Path, scan: VideoScan, held: int) -> None:
    """Refuse a video of which frame after frame would be decoded from far before it."""
    with open_video(video) as (container, _):
        enters, kind = can_jump(container), container.format.name.split(",")[0]
    run = scan.key_interval if enters else scan.frames
    if run > 2 * _WASTED * held:
        why = f"its key frames are {run} frames apart" if enters else f"{kind} has no index"
        raise VideoError(
            f"{video}: cannot be shown backward, to fill the time of the speech ({why}); use "
            "fit freeze or trim, or convert it to .mp4 first"
        )


def _backward(
    video: str | Path, scan: VideoScan, first: float, before: float, held: int
) -> Iterator[TimedFrame]:
    """Frames before a time, the last one first, down to the first one."""
    while before > first:
        frames = _frames_before(video, scan, first, before, held)
        if not frames:
            return
        before = frames[0].time
        while frames:
            frame = frames.pop()
            yield replace(frame, source=standard_range(frame.source))


def _frames_before(
    video: str | Path, scan: VideoScan, first: float, before: float, held: int
) -> deque[TimedFrame]:
    """The last frames before a time, ``held`` of them at most."""
    frames = deque[TimedFrame](maxlen=held)
    for start in (before - first - held / float(scan.fps), None):
        with open_video(video) as (container, stream):
            decoded = None
            if start is None:
                decoded = decode(container, stream, str(video))
            elif start > 0 and (entered := enter(container, stream, str(video), start)):
                decoded = entered[0]
            for frame in decoded or ():
                time = frame_time(frame)
                if time is None or (frames and time <= frames[-1].time):
                    continue
                if time >= before - _ON_TIME:
                    break
                frames.append(TimedFrame(frame, time))
        if frames:
            break
    return frames
