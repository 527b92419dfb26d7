"""Cuts: where a video's next frame shows another scene."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import numpy.typing as npt

SUDDEN = 4.0
"""How many times the largest difference of the last frames that of a cut is."""

_SIZE = (48, 27)
_MEMORY = 8  # frames


class Changes:
    """Compares each picture with the one before, at 48 x 27 pixels.

    A cut changes most of the picture at once, so that small copies of it no longer correlate, and
    more suddenly than pans, shakes and gestures do. Light that flashes or fades leaves the
    correlation as it is.
    """

    def __init__(self) -> None:
        self._last: npt.NDArray[np.float32] | None = None
        self._usual: deque[float] = deque([0.0], maxlen=_MEMORY)

    def sudden(self, picture: npt.NDArray[np.uint8]) -> float:
        """By how much an (H, W, 3) picture differs from the one before, as :func:`difference`
        says; 0 where that is no more than usual, or there is none before."""
        small = thumbnail(picture)
        last, self._last = self._last, small
        if last is None:
            return 0.0
        apart, usual = difference(last, small), max(self._usual)
        self._usual.append(apart)
        return apart if apart > SUDDEN * usual else 0.0


def thumbnail(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A small copy of (H, W, 3), (27, 48, 3) float32."""
    step = max(1, min(picture.shape[0] // 108, picture.shape[1] // 192))
    thin = np.ascontiguousarray(picture[::step, ::step])
    return np.asarray(cv2.resize(thin, _SIZE, interpolation=cv2.INTER_AREA), np.float32)


def difference(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """One less the correlation of two small pictures: 0 for equal ones, 1 for unrelated ones."""
    one, two = (_contrast(picture) for picture in (a, b))
    # The constant keeps the noise of a flat picture from passing for a scene.
    both, first, second = ((x * y).mean() + 4 for x, y in ((one, two), (one, one), (two, two)))
    return float(1 - both / np.sqrt(first * second))


def _contrast(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(picture - picture.mean(axis=(0, 1)))
