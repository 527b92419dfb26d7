"""A camera's face with the lips of a new sound, live: a translated voice, say.

    face = stillspeak.LiveDub(sample_rate=48_000)
    face.look(picture)  # each frame of the camera, from any thread
    frames = face.push(samples)  # the new sound

It stands wherever a :class:`~stillspeak.stream.StreamSession` does: on the live page, in
``RealtimeSession``, and in the LiveKit and Pipecat adapters. Nothing waits for anything: a frame
shows the newest picture of the camera, with the mouth of the frame's own sound, and pictures that
come faster than frames are left out.

What the mouth looks like is learned from the camera's pictures, anew now and then, in a thread of
its own. Until the first time, half a second, the picture shows the person's own lips.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.animate import Animator
from stillspeak.constants import SAMPLE_RATE
from stillspeak.dub.cover import MouthCover
from stillspeak.errors import ConfigError, InputError, NoFaceError
from stillspeak.face.landmarks import LandmarkDetector, MediaPipeDetector
from stillspeak.face.mouth import lip_opening, opening_of
from stillspeak.face.tracker import FaceTracker, TrackedFace
from stillspeak.face.who import Who
from stillspeak.media.marks.origin import Origin
from stillspeak.models.decoders import Decoded
from stillspeak.models.engine import Engine
from stillspeak.models.generator import Generator
from stillspeak.motion.frames import FaceMotion
from stillspeak.motion.moods import Mood
from stillspeak.options import AnimateOptions
from stillspeak.rendering.appearance import Appearance
from stillspeak.rendering.check import StillWarning
from stillspeak.rendering.raster import Picture, Points
from stillspeak.rendering.video_mouth import VideoMouth
from stillspeak.stream import StreamSession, check_threads
from stillspeak.synthesis import Performer
from stillspeak.system.runtime import torch_threads
from stillspeak.weights import DEFAULT_MODEL

LARGEST = 1920
"""Pixels of a picture's longer side; larger ones are shown smaller."""

WAITING = (360, 640)
"""Height and width of the grey picture that is shown before the camera's first."""

EVERY = 5
"""Of how many of the camera's pictures one is kept to learn from."""

KEPT = 24
"""How many are kept: those with the lips closest, those with the lips farthest, the latest."""

LEARNED = (3, 6, 12, 24)
"""After how many kept pictures the mouth is learned; then again each so many as the last."""

SHUT, LATEST = 0.03, 25
"""A mouth that was learned anew takes over where the lips are so close, in distances between the
eyes, or after so many frames."""

FADE = 1 / 3
"""By how much a drawing comes or goes from one frame to the next."""

Look = Picture | Callable[[], Picture]


@dataclass
class CameraCounts:
    """What became of the camera's pictures."""

    seen: int = 0
    left_out: int = 0
    """Another one came before they could be shown."""
    drawn: int = 0
    """Frames with a new mouth."""
    no_face: int = 0
    """Frames as the camera gave them: no usable face."""
    covered: int = 0
    """Likewise: something before the mouth."""
    learned: int = 0
    """Times that the mouth was learned."""


class LiveDub(StreamSession):
    """Someone before a camera who says another sound than their own.

    Its frames and methods are those of a :class:`~stillspeak.stream.StreamSession`, beside
    :meth:`look`. It has no moods: the face is the camera's. Frames carry no marks; say where they
    are shown that the lips are synthetic.

    Args:
        model, device, precision, sample_rate, threads, animator: as there.
        fps: frames a second, the model's 25 by default; others wait for two frames more.
        detector: finds the face; one for all sessions by default.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: the model paints frames; the device is not there; no such number of threads.
        AudioError: a sample rate that cannot be.
    """

    def __init__(
        self,
        *,
        model: str | Path | Generator = DEFAULT_MODEL,
        sample_rate: int = SAMPLE_RATE,
        fps: float | None = None,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = 1,
        detector: LandmarkDetector | None = None,
        animator: Animator | None = None,
    ) -> None:
        check_threads(threads)
        with torch_threads(threads), ExitStack() as after:
            own = animator
            if own is None:
                own = after.enter_context(Animator(model, device=device, precision=precision))
            if not own.generator.predicts_poses:
                raise ConfigError(
                    "this model paints frames and cannot move lips that a camera shows; use one "
                    f"that can, such as {DEFAULT_MODEL}"
                )
            self.camera = CameraFace(own.engine, detector or quick_detector(), fps)
            """What the camera shows."""
            name, sha256 = own.model_identity
        self._origin = Origin(name, sha256, settings={"live": secrets.token_hex(8)})
        self._open(self.camera, sample_rate, threads)

    def look(self, picture: Look) -> None:
        """The camera's newest picture, in any size and at any time.

        Args:
            picture: (H, W, 3) uint8 RGB, or what makes it: it is asked when it is shown, in the
                thread that computes, and not at all if another one comes first.
        """
        self.camera.look(picture)

    @property
    def counts(self) -> CameraCounts:
        """What became of the camera's pictures so far."""
        return self.camera.counts

    def close(self) -> None:
        """Stop learning; no frame may be asked for any more."""
        self.camera.close()


class CameraFace(Performer):
    """The face that a camera shows, as a session's face; see :class:`LiveDub`.

    Args:
        engine: of a model that predicts poses.
        detector: finds the face.
        fps: frames a second; None: the model's.
    """

    warnings: tuple[StillWarning, ...] = ()

    def __init__(
        self, engine: Engine[Any], detector: LandmarkDetector, fps: float | None = None
    ) -> None:
        super().__init__(engine, AnimateOptions(blink=0, expression=0, head_motion=0, fps=fps))
        self.counts = CameraCounts()
        self._detector, self._who = detector, Who()
        self._newest: Look | None = None
        self._picture: Picture = np.full((*WAITING, 3), 64, np.uint8)
        self._face: TrackedFace | None = None
        self._tracked: Iterator[tuple[Picture, TrackedFace | None]] | None = None
        self._learner = MouthLearner()
        self._share = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture that is shown now."""
        return self._picture.shape[0], self._picture.shape[1]

    def look(self, picture: Look) -> None:
        """See :meth:`LiveDub.look`."""
        self.counts.seen += 1
        self.counts.left_out += self._newest is not None
        self._newest = picture

    def step(self, windows: npt.NDArray[np.float32]) -> Iterator[Picture]:
        """The next frames, (H, W, 3) uint8 each, of windows (T, N) float32 in [-1, 1]."""
        return self._shown(self.compute(windows))

    def rest(self) -> Iterator[Picture]:
        """Frames that :meth:`step` held back, where the frame rate is not the model's."""
        for held in self.finish():
            yield from self._shown(held)

    def check_mood(self, mood: Mood) -> None:
        """Raise ConfigError: there are none."""
        raise ConfigError("a face before a camera has its own mood")

    def close(self) -> None:
        """Stop what runs beside."""
        self._learner.close()
        self._forget()

    def _shown(self, made: tuple[Decoded, FaceMotion]) -> Iterator[Picture]:
        poses = made[0].pose
        assert poses is not None
        for pose in poses[0].double().cpu().numpy():
            self._see()
            yield self._drawn(pose)

    def _see(self) -> None:
        """Take the newest picture, if there is one, and find the face in it."""
        newest, self._newest = self._newest, None
        if newest is None:
            return
        picture = fitted(newest() if callable(newest) else newest)
        if self._tracked is None or picture.shape != self._picture.shape:
            # A call's pictures change their size as the network does.
            self._forget()
            self._tracked = self._follow()
        self._picture = picture
        _, self._face = next(self._tracked)
        if self._face is not None:
            if self._face.cut:
                self._learner.forget()
                self._share = 0.0
            if self._face.sure == 1:
                self._learner.see(picture, self._face.points)

    def _follow(self) -> Iterator[tuple[Picture, TrackedFace | None]]:
        """The face in one picture after another, each time in the one that is there now."""

        def pictures() -> Iterator[Picture]:
            while True:
                yield self._picture

        tracker = FaceTracker(self._detector, who=self._who, ahead=0)
        return tracker.track(pictures(), lambda picture: picture)

    def _forget(self) -> None:
        """Nothing is where it was."""
        if self._tracked is not None:
            self._tracked.close()  # type: ignore[attr-defined]
        self._tracked = None

    def _drawn(self, pose: Points) -> Picture:
        """The picture with the mouth in a pose (41, 2)."""
        face, learned = self._face, self._learner.latest(float(opening_of(pose)))
        self.counts.learned = self._learner.times
        wanted = 0.0
        if face is None:
            self.counts.no_face += 1
        elif learned is not None:
            if learned.cover.before(self._picture, face.points):
                self.counts.covered += 1
            else:
                wanted = face.sure
        self._share += float(np.clip(wanted - self._share, -FADE, FADE))
        if face is None:
            self._share = 0.0
        if face is None or learned is None or self._share <= 0:
            return self._picture.copy()
        self.counts.drawn += 1
        return learned.mouth.draw(self._picture, face.points, pose, self._share)[0]


@dataclass(frozen=True, eq=False)
class LearnedMouth:
    """What the camera's pictures tell of a mouth."""

    mouth: VideoMouth
    cover: MouthCover


@dataclass(frozen=True, eq=False)
class _Sample:
    """A picture around a face, its landmarks (478, 2), and how far apart its lips are."""

    picture: Picture
    points: Points
    gap: float


class MouthLearner:
    """Learns from pictures that go by what a mouth looks like, in a thread of its own."""

    def __init__(self) -> None:
        self.times = 0
        """How often it was learned."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="learn a mouth")
        self._work: Future[LearnedMouth | None] | None = None
        self._next: LearnedMouth | None = None
        self.forget()

    def forget(self) -> None:
        """Another scene, another light: begin anew."""
        self._samples: list[_Sample] = []
        self._passed = self._kept = self._waits = 0
        self._due = list(LEARNED)
        self._now: LearnedMouth | None = None
        self._next = None
        self._work = None

    def see(self, picture: Picture, points: npt.NDArray[np.floating]) -> None:
        """A picture (H, W, 3) uint8 with its landmarks (478, 2); some are kept."""
        self._passed += 1
        if self._passed % EVERY != 1:
            return
        self._samples.append(_sample(picture, points))
        if len(self._samples) > KEPT:
            third = KEPT // 3
            by_gap = sorted(range(KEPT + 1), key=lambda k: self._samples[k].gap)
            spared = {*by_gap[:third], *by_gap[-third:]}
            del self._samples[next(k for k in range(KEPT + 1) if k not in spared)]
        self._kept += 1
        if self._kept >= self._due[0] and self._work is None:
            if len(self._due) > 1:
                self._due.pop(0)
            else:
                self._due[0] = self._kept + 2 * LEARNED[-1]
            self._work = self._thread.submit(_learned, list(self._samples))

    def latest(self, opening: float) -> LearnedMouth | None:
        """What is known, for a frame whose lips are so far apart; None: nothing yet.

        Raises:
            Exception: what went wrong in the thread.
        """
        if self._work is not None and self._work.done():
            found, self._work = self._work.result(), None
            if found is not None:
                self._next, self._waits = found, 0
                self.times += 1
        if self._next is not None:
            self._waits += 1
            if self._now is None or opening < SHUT or self._waits > LATEST:
                self._now, self._next = self._next, None
        return self._now

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _sample(picture: Picture, points: npt.NDArray[np.floating]) -> _Sample:
    """What is around a face, and no more."""
    flat = np.asarray(points, np.float64)[:, :2]
    low, high = flat.min(0), flat.max(0)
    margin = 0.25 * (high - low).max()
    x0, y0 = np.maximum(low - margin, 0).astype(int).tolist()
    x1, y1 = (high + margin).astype(int).tolist()
    part = picture[y0 : y1 + 1, x0 : x1 + 1].copy()
    return _Sample(part, flat - (x0, y0), float(lip_opening(flat)) / float((high - low)[1]))


def _learned(samples: list[_Sample]) -> LearnedMouth | None:
    """In the thread; None: they tell nothing."""
    cover = MouthCover()
    try:
        mouth = VideoMouth(Appearance.gather((one.picture, one.points) for one in samples))
    except NoFaceError:
        return None
    for one in samples:
        cover.add(one.picture, one.points)
    # What is made when a mouth is first drawn and first closed is made here.
    widest = max(samples, key=lambda one: one.gap)
    mouth.draw(widest.picture, widest.points, np.zeros((41, 2)))
    cover.before(widest.picture, widest.points)
    return LearnedMouth(mouth, cover)


@cache
def quick_detector() -> LandmarkDetector:
    """One for all cameras: it does not look for long where there is nobody."""
    return MediaPipeDetector(search=False)


def fitted(picture: Picture) -> Picture:
    """A picture (H, W, 3) uint8, smaller if its longer side is above :data:`LARGEST`.

    Raises:
        InputError: it is none.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3:
        raise InputError("<camera>: pictures are arrays (H, W, 3) of type uint8")
    rows, columns = picture.shape[:2]
    if picture.shape[2] != 3 or min(rows, columns) < 1:
        raise InputError(f"<camera>: a picture of shape {picture.shape}; give (H, W, 3)")
    scale = LARGEST / max(rows, columns)
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = max(round(columns * scale), 1), max(round(rows * scale), 1)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
