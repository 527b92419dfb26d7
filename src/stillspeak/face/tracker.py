"""Follow one face through the frames of a video, of any length, in bounded memory.

The whole picture is searched at the beginning, at a cut, and while the face is lost. In between a
crop around it is enough, in the video's own pixels: MediaPipe then begins where the landmarks were
last, which is quicker and trembles half as much as finding the face anew. Its built-in smoothing,
which makes lips lag, is switched off; :mod:`stillspeak.face.steady` steadies without lag.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from stillspeak.face.landmarks import (
    MIN_EYE_DISTANCE,
    Face,
    LandmarkDetector,
    MediaPipeDetector,
    choose_face,
)
from stillspeak.face.scenes import Changes
from stillspeak.face.steady import Points, eye_distance, place_of, steady
from stillspeak.face.who import Who

T = TypeVar("T")
Picture = npt.NDArray[np.uint8]

AHEAD = 3
"""Frames of look-ahead: what a film can afford, and a call cannot."""

TURNED = (35.0, 45.0)
"""Degrees to a side from which a face is less sure, and from which it is of no use."""

LEAP = 0.35
"""Face widths, or shares of its size, that no head moves from one frame to the next."""

ANOTHER, UNLIKE, JUMP = 0.4, 0.12, 0.01
"""Sudden differences of two pictures, see :mod:`~stillspeak.face.scenes`: from the first on the
scene is another one, from the second if the face is gone as well, from the third if it leaps."""

REACH = 3
"""Frames over which :attr:`TrackedFace.sure` falls off towards frames without the face."""

_CROP = 2.0  # face sizes
_WIDE = 1280  # pixels of the longer side in which faces are looked for
_MOST_IDLE = 4  # followers kept for the next video
_STEP_MS = 10**6
# MediaPipe's filter forgets with time: at a thousand seconds a frame it has forgotten everything.


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """A face in one frame.

    Attributes:
        points: (478, 2) float32 pixels (x, y): the head steady, the lips as they were seen.
        person: which of the faces that were found at first, 0 being the largest.
        cut: the first frame with the face in a new scene; nothing before it counts any more.
        sure: 0 to 1, falling off towards frames in which the face is lost, so that what is drawn
            can fade.
    """

    points: Points
    person: int
    cut: bool
    sure: float


@dataclass(eq=False)
class _Seen(Generic[T]):
    """A frame on its way. scene: counted; reason: why there is no face, empty if there is one."""

    frame: T
    scene: int
    points: Points | None
    reason: str = ""
    sure: float = 1.0


class FaceTracker:
    """Follows a face through one video.

    Args:
        detector: looks for faces in whole pictures. With a :class:`MediaPipeDetector` crops are
            followed as well, see above; any other looks at each whole picture.
        face: which face of the first frame that has one, 0 being the largest; None: the largest.
        who: the person to find, as :func:`~stillspeak.face.speaker.choose_speaker` says; comes
            before ``face``.
        ahead: frames held back to steady a frame by those after it; 0 for a live picture.

    Attributes:
        missing: how many frames came without a face, by reason: ``none`` (no face was found),
            ``small``, ``turned``, ``other`` (somebody else).
    """

    def __init__(
        self,
        detector: LandmarkDetector,
        *,
        face: int | None = None,
        who: Who | None = None,
        ahead: int = AHEAD,
    ) -> None:
        if ahead < 0:
            raise ValueError(f"ahead must be 0 or more, got {ahead}")
        self._detector, self._face, self._ahead = detector, face, ahead
        self._who = who
        self.missing: Counter[str] = Counter()

    def track(
        self, frames: Iterable[T], picture: Callable[[T], Picture]
    ) -> Iterator[tuple[T, TrackedFace | None]]:
        """Every frame in order, each with its face or None.

        Args:
            frames: of one video, anything.
            picture: their (H, W, 3) uint8 RGB, asked for once a frame.
        """
        with following(self._detector) as follower:
            found = self._find(frames, picture, FaceSearch(self._detector, follower))
            yield from self._steady(self._filled(found))

    def _find(
        self, frames: Iterable[T], picture: Callable[[T], Picture], search: FaceSearch
    ) -> Iterator[_Seen[T]]:
        """The face as each frame shows it."""
        changes, scene = Changes(), 0
        who = self._who or Who()
        for frame in frames:
            image = picture(frame)
            change = changes.sudden(image)
            before = search.last
            face = None if change > ANOTHER else search.again(image)
            if change > ANOTHER or (face is None and before is not None and change > UNLIKE):
                scene += 1
                search.forget()
            elif face is not None and before is not None and change > JUMP:
                scene += _far(before.points, face.points, 2)
            if face is None:
                face = self._choose(search, image, who)
            if face is None:
                yield _Seen(frame, scene, None, search.reason)
            elif face.eye_distance < MIN_EYE_DISTANCE:
                yield _Seen(frame, scene, None, "small")
            elif abs(face.yaw) >= TURNED[1]:
                yield _Seen(frame, scene, None, "turned")
            else:
                who.learn(image, face)
                sure = (TURNED[1] - abs(face.yaw)) / (TURNED[1] - TURNED[0])
                yield _Seen(frame, scene, face.points, sure=min(1.0, sure))

    def _choose(self, search: FaceSearch, image: Picture, who: Who) -> Face | None:
        """Look for the person in a whole picture."""
        faces = search.whole(image)
        if not faces:
            return None
        if not who.known:
            if self._face is not None and self._face >= len(faces):
                return None
            return search.take(image, choose_face(faces, self._face))
        if search.last is not None and (near := _nearest(faces, search.last)):
            return search.take(image, near)
        found = [face for face in map(partial(search.exact, image), faces) if face is not None]
        chosen = who.choose(image, found)
        if chosen is None:
            search.reason = "other"
            return None
        return search.take(image, chosen)

    def _filled(self, found: Iterable[_Seen[T]]) -> Iterator[_Seen[T]]:
        """The same with gaps of no more than ``ahead`` frames filled in, where nothing leaps."""
        last: _Seen[T] | None = None
        gap: list[_Seen[T]] = []
        for one in found:
            if one.points is None:
                gap.append(one)
                if last is None or one.reason != "none" or len(gap) > self._ahead:
                    yield from gap
                    gap, last = [], None
                continue
            if gap and last is not None and last.scene == one.scene:
                assert last.points is not None
                steps = len(gap) + 1
                if not _far(last.points, one.points, steps):
                    for k, lost in enumerate(gap, start=1):
                        lost.points = last.points + np.float32(k / steps) * (
                            one.points - last.points
                        )
                        lost.reason, lost.sure = "", 0.5
            yield from gap
            yield one
            gap, last = [], one
        yield from gap

    def _steady(self, found: Iterable[_Seen[T]]) -> Iterator[tuple[T, TrackedFace | None]]:
        """The same, each frame steadied by those around it."""
        reach = max(self._ahead, REACH)
        window: deque[_Seen[T]] = deque()
        centre = 0  # of the window: the frame whose turn it is
        scene = 0

        def turn() -> tuple[T, TrackedFace | None]:
            nonlocal scene
            one = window[centre]
            if one.points is None:
                self.missing[one.reason] += 1
                return one.frame, None
            near = [
                (seen, k)
                for k, seen in enumerate(window, start=-centre)
                if seen.scene == one.scene and abs(k) <= reach
            ]
            gaps = [abs(k) for seen, k in near if seen.points is None]
            sure = min(one.sure, min(gaps, default=reach + 1) / (reach + 1))
            run = _run(near)
            points = steady([p for p, _ in run], [k for _, k in run])
            cut, scene = one.scene != scene, one.scene
            return one.frame, TrackedFace(points, self._face or 0, cut, sure)

        for one in found:
            window.append(one)
            if len(window) - 1 - centre < self._ahead:
                continue
            yield turn()
            centre += 1
            if centre > reach:
                window.popleft()
                centre -= 1
        while centre < len(window):
            yield turn()
            centre += 1


def _run(near: list[tuple[_Seen[T], int]]) -> list[tuple[Points, int]]:
    """The frames with a face around offset 0, up to the next ones without."""
    run: list[tuple[Points, int]] = []
    for seen, k in near:
        if seen.points is not None:
            run.append((seen.points, k))
        elif k < 0:
            run.clear()
        else:
            break
    return run


class FaceSearch:
    """Where the face was last, and the ways to find it again.

    Attributes:
        last: the face as it was found last in this scene.
        reason: why there is none now, see :class:`FaceTracker`.
    """

    def __init__(self, detector: LandmarkDetector, follower: Follower | None) -> None:
        self._detector, self._follower = detector, follower
        self.forget()

    def forget(self) -> None:
        """A new scene: nothing is where it was."""
        self.last: Face | None = None
        self.reason = "none"
        self._side = self._age = 0
        if self._follower is not None:
            self._follower.reset()

    def again(self, image: Picture) -> Face | None:
        """The face near where it was in the frame before."""
        if self.last is None or self._age:
            return None
        if self._follower is None:
            near = _nearest(self._detector.detect(image), self.last)
            found = near
        else:
            found = self._look(image, self.last) or self._look(image, self.last)
        if found is not None and not _leaps(self.last, found):
            self.last = found
            return found
        return None

    def whole(self, image: Picture) -> list[Face]:
        """All faces of the picture, the largest first; thoroughly only now and then, while none
        is found or all are somebody else's."""
        age, self._age = self._age, self._age + 1
        if self.reason == "other" and age % 5 > 1:
            return []
        self.reason = "none"
        step = -(-max(image.shape[:2]) // _WIDE)
        small = image if step == 1 else _shrunk(image, step)
        if self._follower is not None and age not in (2, 5) and age % 10:
            self._follower.reset()
            if not self._follower.detect(small):
                return []
        return [_grown(face, step) for face in self._detector.detect(small)]

    def take(self, image: Picture, face: Face) -> Face | None:
        """Follow this face from here on."""
        self.last, self._age = self.exact(image, face), 0
        return self.last

    def exact(self, image: Picture, face: Face) -> Face | None:
        """The face as it is found in the picture's own pixels."""
        if self._follower is None:
            return face
        self._follower.reset()
        self._side = 0
        found = self._look(image, face)
        # Once more from its own landmarks, as in the frames to come.
        return found and self._look(image, found)

    def _look(self, image: Picture, face: Face) -> Face | None:
        assert self._follower is not None
        side = round(_CROP * face.size)
        if not 0.8 < side / max(self._side, 1) < 1.25:
            if self._side:
                self._follower.reset()
            self._side = side
        x0, y0, x1, y1 = _crop(image, face, self._side)
        faces = self._follower.detect(image[y0:y1, x0:x1], (x0, y0))
        return _nearest(faces, face)


class Follower:
    """Finds one face in picture after picture, beginning from where it was in the last one."""

    def __init__(self) -> None:
        self._detector = MediaPipeDetector(video=True)
        self._time = 0

    def detect(self, picture: Picture, offset: tuple[int, int] = (0, 0)) -> list[Face]:
        """The face of a picture, its points moved by ``offset`` (x, y), or none. Pictures are best
        of one size, with the face at about the same place."""
        self._time += _STEP_MS
        return [_moved(face, offset) for face in self._detector.detect(picture, self._time)]

    def reset(self) -> None:
        """Forget where the face was."""
        self.detect(_NOTHING)

    def close(self) -> None:
        """Release the model."""
        self._detector.close()


_NOTHING = np.zeros((64, 64, 3), np.uint8)
_idle: list[Follower] = []
_lock = threading.Lock()


@contextmanager
def following(detector: LandmarkDetector) -> Iterator[Follower | None]:
    """A follower for as long as it is needed, kept for the next one afterwards; None for detectors
    other than :class:`MediaPipeDetector`."""
    if not isinstance(detector, MediaPipeDetector):
        yield None
        return
    with _lock:
        follower = _idle.pop() if _idle else None
    follower = follower or Follower()
    follower.reset()
    try:
        yield follower
    finally:
        with _lock:
            kept = len(_idle) < _MOST_IDLE
            if kept:
                _idle.append(follower)
        if not kept:
            follower.close()


def _crop(picture: Picture, face: Face, side: int) -> tuple[int, int, int, int]:
    """A square around a face, moved into the picture as far as it goes: x0, y0, x1, y1."""
    ends = []
    for middle, length in zip(face.centre, picture.shape[1::-1], strict=True):
        start = max(0, min(round(middle - side / 2), length - side))
        ends.append((start, min(start + side, length)))
    (x0, x1), (y0, y1) = ends
    return x0, y0, x1, y1


def _nearest(faces: list[Face], face: Face) -> Face | None:
    """The one at a face's place and about as large, if any."""
    near = [other for other in faces if not _leaps(face, other, 2 * LEAP)]
    return min(near, key=lambda other: _way(face, other), default=None)


def _way(face: Face, other: Face) -> float:
    return float(np.hypot(*np.subtract(face.centre, other.centre))) / face.size


def _leaps(face: Face, other: Face, most: float = LEAP) -> bool:
    """Whether a face is too far from where it was, or too much larger or smaller, to be it."""
    return _way(face, other) > most or abs(np.log(other.size / face.size)) > most


def _far(before: Points, after: Points, steps: int) -> bool:
    """Whether a head would have moved too much in some frames for its way to be guessed."""
    turn, middle = place_of(after, before)
    way = abs(middle - place_of(before, before)[1]) / eye_distance(before)
    return way > 0.25 * steps or abs(np.log(turn)) > 0.12 * steps


def _moved(face: Face, offset: tuple[int, int]) -> Face:
    return replace(face, points=face.points + np.array(offset, np.float32))


def _grown(face: Face, step: int) -> Face:
    """A face that was found in a picture ``step`` times as small."""
    return replace(face, points=(face.points + np.float32(0.5)) * step - np.float32(0.5))


def _shrunk(picture: Picture, step: int) -> Picture:
    import cv2

    size = (picture.shape[1] // step, picture.shape[0] // step)
    whole = picture[: size[1] * step, : size[0] * step]
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
