"""What moves a face beside its speech, frame by frame: numbers that the renderer draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

UNITS = (
    "inner_brow_raiser",
    "outer_brow_raiser",
    "brow_lowerer",
    "upper_lid_raiser",
    "cheek_raiser",
    "lid_tightener",
    "nose_wrinkler",
    "upper_lip_raiser",
    "lip_corner_puller",
    "lip_corner_depressor",
    "chin_raiser",
    "lip_stretcher",
    "lip_tightener",
    "jaw_drop",
)
"""Action units 1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23 and 26, in this order, of the Facial
Action Coding System (Ekman, Friesen, Hager 2002)."""

_INDEX = {name: index for index, name in enumerate(UNITS)}


class FaceMotion(NamedTuple):
    """The motion of T frames, relative to the reference image. All float32.

    head: (T, 3) degrees: turn towards the picture's right, nod with the chin down, and tilt
        clockwise in the picture.
    closure: (T,) how much further the eyes are closed; ``constants.BLINK_PEAK`` shuts them.
    gaze: (T, 2) degrees to the right and down.
    units: (T, len(UNITS)) action units: 0 none, 1 as strong as people show it.
    """

    head: Floats
    closure: Floats
    gaze: Floats
    units: Floats

    @classmethod
    def rest(cls, frames: int) -> FaceMotion:
        """Nothing moves."""
        sizes = ((frames, 3), (frames,), (frames, 2), (frames, len(UNITS)))
        return cls(*(np.zeros(size, np.float32) for size in sizes))

    def within_face(self) -> Floats:
        """All but the head's motion, (T, 3 + len(UNITS)): closure, gaze, units."""
        return np.hstack((self.closure[:, None], self.gaze, self.units))

    @classmethod
    def from_face(cls, values: Floats) -> FaceMotion:
        """The motion that :meth:`within_face` gave, of a head at rest."""
        head = np.zeros((len(values), 3), np.float32)
        return cls(head, values[:, 0], values[:, 1:3], values[:, 3:])

    def at(self, index: int) -> FaceMotion:
        """One frame, T being 1."""
        return FaceMotion(*(part[index : index + 1] for part in self))


def unit(name: str) -> int:
    """The column of an action unit."""
    return _INDEX[name]
