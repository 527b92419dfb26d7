"""Conceal what a video file lost: streaming from file to file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from stillspeak.conceal.concealer import (
    Concealer,
    GapStats,
    InputFrame,
)
from stillspeak.conceal.lost_frames import Interval, PictureCheck, lost_from
from stillspeak.conceal.options import GapKeywords, GapOptions
from stillspeak.dub.heard import model_place
from stillspeak.dub.output import EditedVideo, OutputKeywords, OutputOptions, Progress
from stillspeak.errors import AudioError, ConfigError, InputError, VideoError
from stillspeak.media.audio import Waveform, read_track
from stillspeak.media.video_editor import (
    MAX_HOLE,
    Rewriter,
    TimedFrame,
    VideoScan,
    check_rewrite,
    scan_video,
    timed_frames,
)

ENDS = 0.5
"""Seconds by which the sound has to go beyond the picture for frames to be missing there."""

MIN_FPS, MAX_FPS = 1, 240


class ConcealKeywords(GapKeywords, OutputKeywords, total=False):
    """The fields of :class:`GapOptions` and of :class:`OutputOptions` as keywords."""


@dataclass(frozen=True)
class ConcealedVideo(EditedVideo):
    """What was done to a video with lost frames.

    dropped, marked, seen: why they were lost: a hole in the time stamps, named by you, or frozen,
        black or damaged pictures found by ``detect``.
    gaps: runs of lost frames; ``longest`` of them in seconds.
    without_face: gaps beside which no face could be used: mixed or held.
    cuts: gaps in which the scene changes.
    eased: good frames changed by ``ease``.
    """

    dropped: int
    marked: int
    seen: int
    gaps: int
    longest: float
    without_face: int
    cuts: int
    eased: int

    def summary(self) -> str:
        """The same in a line."""
        if not self.generated:
            return f"{self.frames} frames, none of them lost"
        gaps = "1 gap" if self.gaps == 1 else f"{self.gaps} gaps"
        text = (
            f"{self.generated} of {self.frames} frames generated in {gaps}, "
            f"the longest of {self.longest:.2f} s"
        )
        if self.without_face:
            text += f"; {self.without_face} without a usable face beside them"
        return text


def conceal_video(
    video: str | Path,
    output: str | Path,
    *,
    lost: str | Sequence[Interval] | None = None,
    detect: bool = False,
    extend: bool = True,
    fps: float | None = None,
    concealer: Concealer | None = None,
    progress: Progress = None,
    **options: Unpack[ConcealKeywords],
) -> ConcealedVideo:
    """Write a video again with its lost frames generated from its sound.

    Lost are: frames that the time stamps leave out; those that ``lost`` names; those found by
    ``detect``. Good frames are encoded again as they are, the sound's packets are copied.

    Args:
        video: a video with its whole sound.
        output: .mp4, .mov, .mkv or .webm.
        lost: intervals, or text as ``--lost`` takes it, or a file's name.
        detect: frozen, repeated, black and damaged frames count as lost.
        extend: also make the frames missing before the first and after the last one, where the
            sound goes on for :data:`ENDS` seconds or more.
        fps: the video's true rate, where too few frames are left to tell.
        concealer: with the model; by default one is made.
        progress: told of every frame.
        options: seed, face, blink, expression, online, memory, ease: see
            :class:`~stillspeak.conceal.options.GapOptions`; crf, overwrite, mark, certificate,
            key: see :class:`OutputOptions`.

    Raises:
        VideoError, AudioError: the video cannot be read or has no sound; it has no good frame.
        InputError: ``lost`` is not a list of intervals, or names no frame of the video.
        NoFaceError: no usable face beside any gap.
        ConfigError: an option out of range.
        OutputError, OutputExistsError: the output cannot be written.
    """
    kept: dict[str, Any] = {**options}
    written, gaps = OutputOptions.out_of(kept), GapOptions(**kept)
    rate = _rate(fps)
    check_rewrite(video, output, overwrite=written.overwrite)
    intervals = lost_from(lost) if isinstance(lost, str) else tuple(lost or ())
    scan = scan_video(video, fps=rate)
    check_sound(video, scan, "the lost frames are")
    settings = {
        **gaps.motion.record("seed", "blink", "expression", "face"),
        "detect": detect,
        "online": gaps.online,
    }
    stats, queue = GapStats(), deque[tuple[float, TimedFrame | None]]()
    with rewriting(video, output, scan, concealer, settings, written) as (own, writer):
        timeline = _Timeline(video, scan, own, intervals, detect, extend)

        def frames() -> Iterator[InputFrame]:
            for time, frame in timeline.walk():
                if timeline.first is not None:
                    writer.start(timeline.first)
                # What is asked for and not yet answered: the frames of the open gap.
                queue.append((time, frame))
                picture = None if frame is None else frame.rgb()
                yield InputFrame(timeline.place(time), picture)

        height = width = 0
        filled = own.fill(frames(), timeline.sound(), stats=stats, name=str(video), **asdict(gaps))
        for picture, generated in filled:
            time, frame = queue.popleft()
            if frame is not None and not generated:
                writer.keep(frame)
            else:
                writer.add(picture, time)
            height, width = picture.shape[:2]
            if progress is not None:
                progress(writer.frames)
        if intervals and not timeline.lost["marked"]:
            raise InputError(
                f"{video}: none of its {scan.frames} frames ({scan.end - scan.start:.2f} s) "
                "lies in the lost intervals; check their unit"
            )
    counted = {**vars(stats), "longest": round(stats.longest, 3)}
    del counted["reasons"]
    return ConcealedVideo(
        output=str(output),
        fps=float(scan.fps),
        width=width,
        height=height,
        **timeline.lost,
        **counted,
    )


def check_sound(video: str | Path, scan: VideoScan, what: str) -> None:
    """Refuse a video without sound: AudioError."""
    if scan.sound_start is None or scan.sound_end is None:
        raise AudioError(
            f"{video}: has no sound track, and {what} made from the sound; give a video with its "
            "sound"
        )


@contextmanager
def rewriting(
    video: str | Path,
    output: str | Path,
    scan: VideoScan,
    concealer: Concealer | None,
    settings: Mapping[str, Any],
    written: OutputOptions,
) -> Iterator[tuple[Concealer, Rewriter]]:
    """What generates new pictures and what writes them; settings go into the credentials."""
    own = concealer or Concealer()
    try:
        marks = written.marks(video, own.model, settings)
        with Rewriter(
            *(video, output, scan), overwrite=written.overwrite, crf=written.crf, marks=marks
        ) as writer:
            yield own, writer
    finally:
        if concealer is None:
            own.close()


def picture_sound(video: str | Path, zero: float, rate: int) -> Iterator[Waveform]:
    """Pieces (S,) of a video's sound at a rate, from ``zero`` seconds on the container's clock on.

    Raises:
        AudioError: it cannot be read.
    """
    skip: int | None = None
    for piece, start in read_track(video, sample_rate=rate):
        if skip is None:
            skip = round((zero - start) * rate)
            if skip < 0:
                yield np.zeros(-skip, np.float32)
                skip = 0
        taken = min(skip, len(piece))
        skip -= taken
        if taken < len(piece):
            yield piece[taken:]


class _Timeline:
    """The frames of a video in order, and where some are missing."""

    def __init__(
        self,
        video: str | Path,
        scan: VideoScan,
        concealer: Concealer,
        intervals: Sequence[Interval],
        detect: bool,
        extend: bool,
    ) -> None:
        assert scan.sound_start is not None and scan.sound_end is not None
        self.first: TimedFrame | None = None
        self._video, self._scan, self._generator = video, scan, concealer.generator
        self._intervals, self._detect = intervals, detect
        self.lost = {"dropped": 0, "marked": 0, "seen": 0}
        """Frames by why they are lost, see :class:`ConcealedVideo`."""
        self._fps = float(scan.fps)
        early = scan.start - scan.sound_start if extend else 0.0
        late = scan.sound_end - scan.end if extend else 0.0
        # Not a frame more than there is whole sound for.
        self._lead = int(early * self._fps + 1e-3) if early >= ENDS else 0
        self._rest = int(late * self._fps + 1e-3) if late >= ENDS else 0
        self._zero = scan.start - self._lead / self._fps
        longest = max(early, late)
        if longest > MAX_HOLE:
            raise VideoError(
                f"{video}: its sound goes on for {longest:.0f} s without a picture, more than "
                f"{MAX_HOLE:.0f}; cut it, or leave the ends alone"
            )

    def place(self, time: float) -> float:
        """A time on the container's clock in model frames from the first frame on."""
        return model_place(time - self._zero, self._fps, self._generator)

    def sound(self) -> Iterator[Waveform]:
        """The sound from the first frame on, at the model's rate."""
        return picture_sound(self._video, self._zero, self._generator.config.sample_rate)

    def walk(self) -> Iterator[tuple[float, TimedFrame | None]]:
        """Times, each with its frame or None where that is lost."""
        check = PictureCheck() if self._detect else None
        interval = 1 / self._fps
        last: float | None = None
        for index, frame in enumerate(timed_frames(self._video)):
            if self.first is None:
                self.first = frame
            if last is None:
                yield from self._missing(frame.time - self._lead * interval, self._lead)
            else:
                hole = frame.time - last
                count = round(hole / interval) - 1
                if count > 0:
                    step = hole / (count + 1)
                    yield from self._missing(last + step, count, step)
            last = frame.time
            seconds = frame.time - self._scan.start
            if any(one.holds(index, seconds, interval) for one in self._intervals):
                self.lost["marked"] += 1
                yield frame.time, None
            elif check is not None and (frame.corrupt or check.lost(frame.rgb())):
                self.lost["seen"] += 1
                yield frame.time, None
            else:
                yield frame.time, frame
        if last is not None:
            yield from self._missing(last + interval, self._rest)

    def _missing(
        self, time: float, count: int, step: float | None = None
    ) -> Iterator[tuple[float, None]]:
        self.lost["dropped"] += count
        for number in range(count):
            yield time + number * (step or 1 / self._fps), None


def _rate(fps: float | None) -> Fraction | None:
    if fps is None:
        return None
    if not MIN_FPS <= fps <= MAX_FPS:
        raise ConfigError(f"fps {fps:g} is out of range; give {MIN_FPS} to {MAX_FPS}")
    return Fraction(fps).limit_denominator(1001)
