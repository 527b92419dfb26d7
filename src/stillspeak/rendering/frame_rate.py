"""Poses and motion at another frame rate than the model's: interpolated, so that nothing judders.

A frame shows the middle of its own time, at both rates. What lasts for one frame only would be
lost in between: lips that close, and lids. The frame in whose time they are closest shows them as
they are then.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.face.mouth import INNER_LIPS, LIPS, POSE_POINTS
from stillspeak.motion.frames import FaceMotion

Poses = npt.NDArray[np.float64]

_HALF = Fraction(1, 2)
_PAIRS = ((13, 14), (82, 87), (312, 317))
_TOPS, _BOTTOMS = ([POSE_POINTS.index(pair[side]) for pair in _PAIRS] for side in (0, 1))


class FrameRateConverter:
    """Takes frames at one rate and gives them at another; how many come at a time does not matter.

    Args:
        rate_in, rate_out: frames a second.
    """

    def __init__(self, rate_in: int, rate_out: Fraction) -> None:
        self._step = rate_in / rate_out
        """Frames that come in for one that goes out."""
        self._kept = ceil(self._step) + 3
        self._made = 0
        self._heard = 0
        self._poses: Poses = np.zeros((0, len(POSE_POINTS), 2))
        self._motion = FaceMotion.rest(0)

    def feed(self, poses: Poses, motion: FaceMotion) -> tuple[Poses, FaceMotion]:
        """The next frames (T, 41, 2) and their motion -> those that are ready at the other rate."""
        self._poses = np.concatenate((self._poses, poses))
        self._motion = FaceMotion(*map(np.concatenate, zip(self._motion, motion, strict=True)))
        self._heard += len(poses)
        places: list[Fraction] = []
        # Whether lips are closest in a frame, the one after it tells.
        while floor((place := self._place(len(places))) + self._step / 2) + 2 <= self._heard:
            places.append(place)
        return self._take(places)

    def finish(self) -> tuple[Poses, FaceMotion]:
        """Frames up to the end of what came in; what follows goes on from there."""
        places: list[Fraction] = []
        while (self._made + len(places) + 1) * self._step <= self._heard:
            places.append(self._place(len(places)))
        return self._take(places)

    def _place(self, ahead: int) -> Fraction:
        """Where a frame lies among those that came in, counted from the middle of the first."""
        return (self._made + ahead + _HALF) * self._step - _HALF

    def _take(self, places: list[Fraction]) -> tuple[Poses, FaceMotion]:
        first = self._heard - len(self._poses)
        mouth = [self._near(place, first, _opening(self._poses)) for place in places]
        lids = [self._near(place, first, -self._motion.closure) for place in places]
        whole = [self._mixing(place - first) for place in places]
        head, closure, gaze, units = (
            _mixed(part, at)
            for part, at in zip(self._motion, (whole, lids, whole, whole), strict=True)
        )
        poses = _mixed(self._poses, mouth)
        self._made += len(places)
        self._poses = self._poses[-self._kept :]
        self._motion = FaceMotion(*(part[-self._kept :] for part in self._motion))
        return poses, FaceMotion(head, closure, gaze, units)

    def _near(
        self, place: Fraction, first: int, openings: npt.NDArray[np.floating]
    ) -> tuple[int, float]:
        """How to mix a place: the most closed of the frames within half an output frame's time, if
        it is more closed than those around it."""
        here, most = place - first, len(openings) - 2
        around = range(
            max(ceil(here - self._step / 2), 1), min(floor(here + self._step / 2), most) + 1
        )
        closed = [n for n in around if openings[n] <= min(openings[n - 1], openings[n + 1])]
        return (min(closed, key=lambda n: openings[n]), 0.0) if closed else self._mixing(here)

    def _mixing(self, here: Fraction) -> tuple[int, float]:
        """The frame before a place among those kept, and the share of the one after it."""
        last = len(self._poses) - 1
        held = min(max(here, Fraction(0)), Fraction(last))
        index = min(int(held), max(last - 1, 0))
        return index, float(held - index)


def _opening(poses: Poses) -> npt.NDArray[np.float64]:
    """How far the inner lips of poses (T, 41, 2) are apart, but for a constant: (T,)."""
    assert LIPS[20:] == INNER_LIPS
    return np.asarray((poses[:, _BOTTOMS, 1] - poses[:, _TOPS, 1]).mean(axis=1))


def _mixed(values: npt.NDArray[np.floating], at: list[tuple[int, float]]) -> npt.NDArray[Any]:
    """Values (T, ...) at places, each between a frame and the next one."""
    if not at:
        return values[:0]
    index, share = (np.array(part) for part in zip(*at, strict=True))
    share = share.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
    after = values[np.minimum(index + 1, len(values) - 1)]
    return np.asarray(values[index] + share * (after - values[index]))
