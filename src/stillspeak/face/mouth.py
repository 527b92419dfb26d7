"""The mouth in the 478-point mesh: which points are lips, and the distances that tell speech."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

OUTER_LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
INNER_LIPS = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
LIPS = OUTER_LIPS + INNER_LIPS

INNER_TOP, INNER_BOTTOM = 13, 14

CORNERS = (61, 291)
NOSE_BASE, CHIN, FOREHEAD = 2, 152, 10

MOUTH_PAIRS = (
    (13, 14),  # inner opening, middle
    (82, 87),  # inner opening, image left
    (312, 317),  # inner opening, image right
    (0, 17),  # outer opening
    (61, 291),  # outer width
    (78, 308),  # inner width
    (2, 152),  # nose base to chin: the jaw
)
"""Pairs of points whose distances describe the shape of a speaking mouth."""

MIRRORED_PAIRS = (0, 2, 1, 3, 4, 5, 6)
"""Where each of :data:`MOUTH_PAIRS` goes when the picture is mirrored."""


def mouth_distances(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distances of :data:`MOUTH_PAIRS`. (..., 478, 2) pixels -> (..., 7) float32 pixels."""
    first, second = np.asarray(MOUTH_PAIRS).T
    return _lengths(points[..., first, :] - points[..., second, :])


def lip_opening(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance between the inner lips in the middle. (..., 478, 2) -> (...) pixels."""
    return _lengths(points[..., INNER_TOP, :] - points[..., INNER_BOTTOM, :])


def mouth_width(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance between the mouth's corners. (..., 478, 2) -> (...) pixels."""
    return _between(points, *CORNERS)


def jaw_drop(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance from nose base to chin. (..., 478, 2) -> (...) pixels."""
    return _between(points, NOSE_BASE, CHIN)


def face_height(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance from the top of the forehead to the chin. (..., 478, 2) -> (...) pixels."""
    return _between(points, FOREHEAD, CHIN)


def _between(points: npt.NDArray[np.floating], a: int, b: int) -> npt.NDArray[np.float32]:
    return _lengths(points[..., a, :] - points[..., b, :])


def _lengths(differences: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    lengths: npt.NDArray[np.float32] = np.linalg.norm(differences, axis=-1).astype(np.float32)
    return lengths
