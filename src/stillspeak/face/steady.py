"""Steady landmarks without lag: a head's tremble is taken out, and what moves stays as it was seen.

Each frame is compared with those around it: first where the head is, by points that speech does not
move; then what the face does within its own frame. Either is replaced by what its neighbours say,
but only as far as the differences are no larger than the detector's noise (J.-S. Lee's filter,
1980, along time). So a still face is still, and a moving lip is neither late nor smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stillspeak.face.eyes import EYELIDS
from stillspeak.face.mouth import NOSE_BASE, POSE_POINTS

Points = npt.NDArray[np.float32]

RIGID = (
    33, 133, 362, 263,  # the eyes' corners
    168, 6, 197, 195, 5, 4, 1, 2, 98, 327,  # the nose
    151, 9, 8, 108, 337, 69, 299,  # the forehead
)  # fmt: skip
"""Points that speech does not move."""

HEAD_NOISE = 0.008
"""How far the detector moves a whole still face from frame to frame, in distances between the eyes:
twice the deviation that was measured."""

POINT_NOISE = 0.006
"""Likewise single points within the face."""

_MOUTH = np.isin(np.arange(478), POSE_POINTS)
_LIDS = np.isin(np.arange(478), (*EYELIDS, *range(468, 478)))
_REST = ~_MOUTH & ~_LIDS
_LEFT, _RIGHT = [33, 133], [362, 263]


def eye_distance(points: npt.NDArray[np.floating]) -> float:
    """Pixels between the eyes' middles, of (478, 2)."""
    return float(np.hypot(*(points[_RIGHT].mean(axis=0) - points[_LEFT].mean(axis=0))))


def place_of(
    points: npt.NDArray[np.floating], like: npt.NDArray[np.floating]
) -> tuple[complex, complex]:
    """Turn and scale, and the middle of :data:`RIGID`, that bring another face's rigid points to
    this one's, as complex numbers: ``middle + turn * (p - middle of like)``."""
    here, there = (_complex(p[list(RIGID)]) for p in (points, like))
    middle = here.mean()
    there = there - there.mean()
    turn = np.vdot(there, here - middle) / np.vdot(there, there)
    return complex(turn), complex(middle)


def steady(window: Sequence[Points], offsets: Sequence[int]) -> Points:
    """The points (478, 2) of the frame at offset 0, steadied.

    Args:
        window: landmarks (478, 2) in pixels of one face in near frames of one scene.
        offsets: which frames they are, counted from the one that is meant; 0 must be among them.
    """
    centre = list(offsets).index(0)
    own = window[centre]
    if len(window) < 3:
        return own
    k = np.asarray(offsets, np.float64)
    weight = 1 - np.abs(k) / (np.abs(k).max() + 1)
    places = [place_of(points, own) for points in window]
    turns, middles = (np.array(one) for one in zip(*places, strict=True))
    z = np.array([_complex(points) for points in window])
    unit = eye_distance(own)
    # Within the face: everything in this frame's own place.
    inside = (z - middles[:, None]) / turns[:, None] + middles[centre]
    mean = weight @ inside / weight.sum()
    spread = weight @ np.abs(inside - mean) ** 2 / weight.sum() / unit**2
    lower = inside[centre].imag > own[NOSE_BASE, 1]
    face = inside[centre].copy()
    for group in (_MOUTH, _LIDS, _REST & lower, _REST & ~lower):
        kept = _kept(float(spread[group].mean()), POINT_NOISE)
        face[group] = mean[group] + kept * (face[group] - mean[group])
    turn, tremble = _line(k, weight, turns)
    turn += _kept(tremble, HEAD_NOISE) * (1 - turn)
    middle, tremble = _line(k, weight, middles)
    middle += _kept(tremble / unit**2, HEAD_NOISE) * (middles[centre] - middle)
    face = middle + turn * (face - middles[centre])
    return np.stack([face.real, face.imag], axis=-1).astype(np.float32)


def _kept(spread: float, noise: float) -> float:
    """The share of a difference that is kept: 0 where all of it may be noise."""
    return max(0.0, 1 - noise**2 / spread) if spread > 0 else 0.0


def _line(
    k: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], values: npt.NDArray[np.complex128]
) -> tuple[complex, float]:
    """The straight line through weighted values (N,): at 0, and the mean square off it."""
    total = weight.sum()
    k_mean, mean = weight @ k / total, weight @ values / total
    slope = weight @ ((k - k_mean) * values) / (weight @ (k - k_mean) ** 2)
    line = mean + slope * (k - k_mean)
    return complex(mean - slope * k_mean), float(weight @ np.abs(values - line) ** 2 / total)


def _complex(points: npt.NDArray[np.floating]) -> npt.NDArray[np.complex128]:
    return np.asarray(points[:, 0] + 1j * points[:, 1], np.complex128)
