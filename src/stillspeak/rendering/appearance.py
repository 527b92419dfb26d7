"""What a whole video tells of its speaker's mouth: how it rests, its teeth, its closed lips.

A frame in which the mouth is shut tells nothing of the teeth, and one in which it is open little of
how it rests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillspeak.errors import NoFaceError
from stillspeak.face.align import Transform
from stillspeak.face.mouth import CHIN, LIPS, POSE_POINTS, REST_SHARE, opening_of
from stillspeak.rendering.light import Light, median_colour, still_light, toothy
from stillspeak.rendering.lipline import inner_lips
from stillspeak.rendering.mesh import (
    AROUND,
    LOWER,
    UPPER,
    FaceFrame,
    Rest,
    face_frame,
    face_model,
    open_share,
    rest_pose,
)
from stillspeak.rendering.mouth import light_within
from stillspeak.rendering.raster import LUMA, Picture, Points, box_of, filled, sampled
from stillspeak.rendering.sheets import LipSheets
from stillspeak.rendering.teeth import InsideMouth

POSE = list(POSE_POINTS)

SHUT = 0.035
"""Distance of the inner lips, in distances between the eyes, up to which lips count as closed."""

_SURELY_SHUT = 0.015
# How wide a mouth is in one frame of ten; seven recordings were heard as .18 to .22.
_USUALLY = 0.205
_SPEAKS = 0.08  # less is no speech
_CHEEKS = (50, 280, 205, 425, 101, 330)
_FACING = np.cos(np.radians(25.0))  # of a face that lends its teeth
_WHITEST = 1.3  # times as bright as the cheeks as teeth can be
_PER_VIEW = np.radians(12.0)  # by which heads are turned that each lend their closed lips
_MOST_VIEWS = 8
_SPARE = 3  # faces that are kept of each view, should something be before the best one's mouth
_TEETH_SHORT = 0.5  # times as bright as the cheeks: darker is no tooth


@dataclass(frozen=True, eq=False)
class ClosedLips:
    """A part of a frame in which the lips are closed.

    picture: (h, w, 3) uint8. points: (478, 2) landmarks in it. facing: (3,) where the face looks.
    """

    picture: Picture
    points: Points
    facing: Points


@dataclass(frozen=True, eq=False)
class Appearance:
    """What a video tells of its speaker's mouth.

    Attributes:
        rest: (41, 2) ``face.mouth.POSE_POINTS`` with the lips met, in the face's own frame.
        scale: this mouth's size and liveliness over the usual one's, by which speech is multiplied.
        inside: of the frame that shows most of the teeth.
        light: of that frame.
        unit: pixels between its eyes.
        cheeks: (3,) levels of its skin.
        to_picture: (2, 3) the face's own frame -> its pixels, at the lips.
        closed: lips of frames in which they are closed, of heads turned differently.
    """

    rest: Points
    scale: float
    inside: InsideMouth
    light: Light
    unit: float
    cheeks: Points
    to_picture: Transform
    closed: tuple[ClosedLips, ...]

    @classmethod
    def gather(cls, samples: Iterable[tuple[Picture, npt.NDArray[np.floating]]]) -> Appearance:
        """Look at frames of one person, spread over a video.

        Args:
            samples: pictures (H, W, 3) uint8, each with landmarks (478, 2) in pixels. A dozen
                parts of them are kept at a time.

        Raises:
            NoFaceError: there are none.
        """
        gatherer = AppearanceGatherer()
        for picture, points in samples:
            gatherer.add(picture, points)
        return gatherer.appearance()


class AppearanceGatherer:
    """Looks at frames of one person, one by one, and keeps a few parts of them."""

    def __init__(self) -> None:
        self._points: list[Points] = []
        self._teeth: list[_Candidate] = []
        self._closed: list[_Candidate] = []

    def add(self, picture: Picture, landmarks: npt.NDArray[np.floating]) -> None:
        """A picture (H, W, 3) uint8 and landmarks (478, 2) in its pixels."""
        points = np.asarray(landmarks, np.float64)[:, :2]
        frame = face_frame(points)
        index = len(self._points)
        self._points.append(frame.points)
        shown = _teeth_shown(picture, points, frame)
        self._teeth = _best([*self._teeth, _Candidate(shown, index, picture, points, frame)], 1)
        gap = float(opening_of(frame.points[POSE]))
        if gap <= SHUT:
            # A larger head shows its lips more sharply; pressed lips show little of themselves.
            seen = float(lip_thickness(frame.points[POSE])) ** 2
            worth = frame.scale * (1 - gap / (2 * SHUT)) * seen
            one = _Candidate(worth, index, picture, points, frame)
            self._closed = _best([*self._closed, one], _MOST_VIEWS)

    def appearance(self, bare: npt.NDArray[np.bool_] | None = None) -> Appearance:
        """What they tell.

        Args:
            bare: of each frame in order, whether nothing was before the mouth; None: of all.

        Raises:
            NoFaceError: there were none.
        """
        if not self._points:
            raise NoFaceError("no frame shows a usable face")
        if bare is None or not bare.any():
            bare = np.ones(len(self._points), bool)
        seen = np.array(self._points)[bare]
        rest, size = _rest(seen)
        teeth = [one for one in self._teeth if bare[one.index]] or self._teeth
        picture, points, frame = teeth[0].picture, teeth[0].points, teeth[0].frame
        known = rest_from(frame, rest, size)
        rows, columns = picture.shape[:2]
        light = still_light(picture, points, frame.scale, box_of(points, rows, columns))
        lips = inner_lips(picture, frame, points, known, light.blur)
        seam = LipSheets(frame, known, lips.upper, lips.lower, points, (rows, columns)).seam
        inside = InsideMouth(picture, frame, known, lips, seam, light)
        ring = np.concatenate([lips.upper, lips.lower[::-1]])
        x0, y0, x1, y1 = box = box_of(ring, rows, columns, 2)
        hole = filled(ring - np.array((x0, y0)), y1 - y0, x1 - x0)
        inside.brighten(box, light_within(hole, frame.scale, frame.axes[:, 1]))
        closed = _apart([one for one in self._closed if bare[one.index]])
        return Appearance(
            *(rest, size * _liveliness(seen, rest), inside, light, frame.scale),
            cheeks=cheeks(picture, points, frame.scale),
            to_picture=face_at_lips(frame),
            closed=tuple(ClosedLips(one.picture, one.points, one.facing) for one in closed),
        )


class _Candidate:
    """The face of a frame that may lend its teeth or its lips: better ones have more ``worth``."""

    def __init__(
        self, worth: float, index: int, picture: Picture, points: Points, frame: FaceFrame
    ) -> None:
        self.worth, self.index = worth, index
        self._frame_picture: Picture | None = picture
        self.picture = picture
        rows, columns = picture.shape[:2]
        self._box = box_of(points, rows, columns, int(0.2 * frame.scale))
        self.points = points - np.array(self._box[:2])
        self.frame = face_frame(self.points)
        self.facing = frame.rotation[:, 2]

    def keep(self) -> None:
        """Let go of all of the frame but the face."""
        if self._frame_picture is not None:
            x0, y0, x1, y1 = self._box
            self.picture = self._frame_picture[y0:y1, x0:x1].copy()
            self._frame_picture = None


def _best(candidates: list[_Candidate], views: int) -> list[_Candidate]:
    """:data:`_SPARE` of each view of the head, the best first; of so many views."""
    kept: list[_Candidate] = []
    for one in sorted(candidates, key=lambda one: -one.worth):
        like = [_angle(one.facing, other.facing) < _PER_VIEW for other in kept]
        if len(kept) < views * _SPARE and (views == 1 or sum(like) < _SPARE):
            kept.append(one)
    for one in kept:
        one.keep()
    return kept


def _apart(candidates: list[_Candidate]) -> list[_Candidate]:
    """The best of each view."""
    kept: list[_Candidate] = []
    for one in candidates:
        if all(_angle(one.facing, other.facing) >= _PER_VIEW for other in kept):
            kept.append(one)
    return kept


def _angle(one: Points, other: Points) -> float:
    return float(np.arccos(np.clip(one @ other, -1, 1)))


def _teeth_shown(picture: Picture, points: Points, frame: FaceFrame) -> float:
    """How much of its teeth a frame shows, in pixels, less where it is dark or turned."""
    inner = points[list(LIPS[20:])]
    upper, lower = inner[list(UPPER)][2:-2], inner[list(LOWER)][2:-2]
    steps = np.linspace(0.15, 0.85, 9)[:, None, None]
    seen = sampled(picture, upper + steps * (lower - upper)).astype(np.float64)
    bright = seen @ LUMA
    white = seen[bright >= np.quantile(bright, 0.9)].mean(axis=0)
    lit = float((white @ LUMA) / (cheeks(picture, points, frame.scale) @ LUMA))
    if lit < _TEETH_SHORT:
        return 0.0
    height = np.linalg.norm(lower - upper, axis=1).mean()
    width = np.linalg.norm(upper[-1] - upper[0])
    facing = np.clip((frame.rotation[2, 2] - _FACING) / 0.1 + 1, 0.05, 1)
    share = facing * min(lit, _WHITEST) ** 2
    return float(toothy(seen, white).mean() * height * width * share)


def lip_thickness(own: Points) -> Points:
    """How much of the lips is seen, of their points (..., 41, 2) in the face's own frame."""
    middle = np.r_[3:8, 13:18]
    outer, inner = own[..., middle, :], own[..., 20 + middle, :]
    return np.asarray(np.linalg.norm(outer - inner, axis=-1).mean(axis=-1))


def _rest(points: Points) -> tuple[Points, float]:
    """Rest (41, 2) and scale, of landmarks (T, 478, 2) in the face's own frame."""
    gap = opening_of(points[:, POSE])
    few = max(round(REST_SHARE * len(gap)), 1)
    shut = points[gap <= max(float(np.sort(gap)[few - 1]), _SURELY_SHUT)]
    # Lips that are pressed together close the mouth as well, and are not at rest.
    thick = lip_thickness(shut[:, POSE])
    mean = shut[thick >= np.median(thick)].mean(axis=0)
    # A mouth that never closes is let come to rest like a still's.
    still = rest_pose(mean)
    chin = still.around[AROUND.index(CHIN)]
    return mean[POSE] + np.concatenate([still.lips, chin[None]]), still.scale


def _liveliness(points: Points, rest: Points) -> float:
    """How widely somebody speaks over how widely people do, of landmarks (T, 478, 2)."""
    wide = float(np.quantile(opening_of(points[:, POSE]), 0.9) - opening_of(rest))
    if wide < _SPEAKS:
        return 1.0
    return float(np.clip((wide / _USUALLY) ** 0.7, 0.8, 1.25))


def rest_from(frame: FaceFrame, rest: Points, scale: float, moved: Points | None = None) -> Rest:
    """How one frame's mouth comes to rest (41, 2); ``moved`` is as for :meth:`VideoMouth.draw`."""
    move = rest - frame.points[POSE]
    skin = None if moved is None else _around(moved)
    return Rest(move[:-1], _around(move), scale, open_share(frame.points), True, skin)


def _around(move: Points) -> Points:
    """(F, 2) how ``AROUND`` moves with lips and chin (41, 2)."""
    return np.asarray((face_model().follow @ move.ravel()).reshape(-1, 2))


def cheeks(picture: Picture, points: Points, unit: float) -> Points:
    """(3,) levels of the skin beside the nose, ``unit`` pixels being between the eyes."""
    return median_colour(picture, points[list(_CHEEKS)], 0.06 * unit)


def face_at_lips(frame: FaceFrame) -> Transform:
    """(2, 3) the face's own frame -> pixels, at the lips; speech does not move it."""
    axes = frame.jacobians[list(LIPS)].mean(axis=0)
    seen = frame.pixels[list(LIPS)].mean(axis=0)
    return np.column_stack([axes, seen - axes @ frame.points[list(LIPS)].mean(axis=0)])
