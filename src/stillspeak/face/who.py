"""Is it the same person, as far as a light signature tells?

Textures and edges of the aligned face from the forehead down to the nose, which speech leaves
alone: local binary patterns (T. Ojala, M. Pietikainen, T. Maenpaa, 2002) and histograms of
gradients (N. Dalal, B. Triggs, 2005). No network, a millisecond. It tells people apart within a
film, where camera and light are one for all; across years or under other light it does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.face.align import crop_face, face_transform
from stillspeak.face.landmarks import Face

Picture = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]

OTHER = 0.4
"""Difference from which a face is taken for somebody else's. Of 39 people, in frames of the same
clips that were not learned, no face was beyond it (1.6 % with the light from a side), and 6 % of
other people's, most of them filmed in one studio, were below."""

_ROWS = slice(8, 84)  # of the aligned crop: the mouth begins below
_EXEMPLARS, _EVERY = 8, 8
_RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
_BINS = 8


class Who:
    """One person, as seen in a few frames."""

    def __init__(self) -> None:
        self._exemplars: list[Vector] = []
        self._seen = 0

    @property
    def known(self) -> bool:
        """Whether a face was learned."""
        return bool(self._exemplars)

    def learn(self, picture: Picture, face: Face) -> None:
        """This is the person, in (H, W, 3) uint8 pixels: every eighth frame up to eight."""
        self._seen += 1
        if self._seen % _EVERY == 1:
            self.add(picture, face)

    def add(self, picture: Picture, face: Face) -> None:
        """As :meth:`learn`, of frames that are far apart: each up to eight."""
        if len(self._exemplars) < _EXEMPLARS:
            self._exemplars.append(signature(picture, face.points))

    def difference(self, picture: Picture, face: Face) -> float:
        """From 0, the same picture, on; see :data:`OTHER`."""
        seen = signature(picture, face.points)
        return min(float(2 - one @ seen) for one in self._exemplars)

    def choose(self, picture: Picture, faces: Sequence[Face]) -> Face | None:
        """The likest face; None: all are somebody else's."""
        found = [(self.difference(picture, face), k) for k, face in enumerate(faces)]
        least, k = min(found, default=(OTHER, 0))
        return faces[k] if least < OTHER else None


def signature(picture: Picture, points: npt.NDArray[np.floating]) -> Vector:
    """(D,) of a face's landmarks (478, 2); the product of two is 2 for equal ones."""
    crop = crop_face(picture, face_transform(points), FRAME_HEIGHT, FRAME_WIDTH)
    grey = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (0, 0), 1.1)[_ROWS]
    light = grey.astype(np.float32)
    return np.concatenate([_patterns(light), _gradients(light)])


def _patterns(grey: npt.NDArray[np.float32]) -> Vector:
    inner = grey[1:-1, 1:-1]
    rows, columns = inner.shape
    code = np.zeros(inner.shape, np.int64)
    for bit, (y, x) in enumerate(_RING):
        code |= (grey[y : y + rows, x : x + columns] >= inner).astype(np.int64) << bit
    cells = _cells(_UNIFORM[code], 5)
    counts = [np.bincount(cell.ravel(), minlength=59) / cell.size for cell in cells]
    return np.sqrt(np.concatenate(counts) / len(cells))


def _gradients(grey: npt.NDArray[np.float32]) -> Vector:
    x, y = (cv2.Sobel(grey, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
    turn = (np.arctan2(y, x) % (2 * np.pi) / (2 * np.pi) * _BINS).astype(np.int64) % _BINS
    cells = zip(_cells(turn, 8), _cells(np.hypot(x, y), 8), strict=True)
    sums = np.array([np.bincount(t.ravel(), m.ravel(), _BINS) for t, m in cells])
    floor = 1.2 * sums.mean() + 1e-6
    whole = (sums / (np.linalg.norm(sums, axis=1, keepdims=True) + floor)).ravel()
    return np.asarray(whole / (np.linalg.norm(whole) + 1e-9))


def _cells(values: npt.NDArray[np.generic], count: int) -> list[npt.NDArray[np.generic]]:
    rows = np.array_split(values, count)
    return [cell for row in rows for cell in np.array_split(row, count, axis=1)]


def _uniform() -> npt.NDArray[np.int64]:
    """Numbers of the 58 patterns with at most two changes around the ring; 58 for all others."""
    turns = [sum((code >> k ^ code >> (k + 1) % 8) & 1 for k in range(8)) for code in range(256)]
    few = np.array(turns) <= 2
    return np.where(few, np.cumsum(few) - 1, 58)


_UNIFORM = _uniform()
