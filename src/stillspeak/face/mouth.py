"""The mouth in the 478-point mesh: its points, the distances that tell speech, and its pose.

A pose is how 40 points of the lips and the chin differ from the person's rest pose, lips closed,
in the face's own frame and in units of the distance between the eyes' middles. The model predicts
it from sound, and the renderer adds it to the rest pose of a reference image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.face.align import canonical_face, face_transform, smooth_landmarks, transform_points

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

POSE_POINTS = (*LIPS, CHIN)
"""Points of the 478-point mesh that a pose moves: outer lips, inner lips, chin."""

REST_SHARE = 0.1
"""Share of a clip's frames, those with the lips closest, whose mean is the rest pose."""

_TOP, _BOTTOM = POSE_POINTS.index(INNER_TOP), POSE_POINTS.index(INNER_BOTTOM)
_LEFT, _RIGHT = POSE_POINTS.index(OUTER_LIPS[0]), POSE_POINTS.index(OUTER_LIPS[10])


def mouth_distances(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distances of :data:`MOUTH_PAIRS`. (..., 478, 2) pixels -> (..., 7) float32 pixels."""
    return _between(points, *np.asarray(MOUTH_PAIRS).T)


def lip_opening(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance between the inner lips in the middle. (..., 478, 2) -> (...) pixels."""
    return _between(points, INNER_TOP, INNER_BOTTOM)


def mouth_width(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance between the mouth's corners. (..., 478, 2) -> (...) pixels."""
    return _between(points, *CORNERS)


def jaw_drop(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance from nose base to chin. (..., 478, 2) -> (...) pixels."""
    return _between(points, NOSE_BASE, CHIN)


def face_height(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Distance from the top of the forehead to the chin. (..., 478, 2) -> (...) pixels."""
    return _between(points, FOREHEAD, CHIN)


def mirrored_points() -> npt.NDArray[np.int64]:
    """Which of :data:`POSE_POINTS` stands where each goes when the face is mirrored."""
    # Each ring runs from one corner below to the other and above back.
    ring = [(10 - i) % 20 for i in range(20)]
    return np.array([*ring, *(20 + i for i in ring), 40])


def mouth_shapes(points: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Lips and chin in the face's own frame, from landmarks (T, 478, 2) of consecutive frames:
    (T, 41, 2) float32, x to the right and y down from the middle between the eyes, 1 being the
    distance between the eyes' middles. The frame is that of landmarks averaged over seven frames,
    so that their noise does not shake it.
    """
    points = np.asarray(points, np.float64)
    canonical = canonical_face().points
    left, right = canonical[1:3].mean(0), canonical[3:5].mean(0)
    unit, middle = float(np.linalg.norm(right - left)), (left + right) / 2
    shapes = [
        transform_points(frame[list(POSE_POINTS)], face_transform(steady))
        for frame, steady in zip(points, smooth_landmarks(points), strict=True)
    ]
    scaled = (np.array(shapes) - middle) / unit
    return np.asarray(scaled, np.float32).reshape(-1, 41, 2)


def rest_shape(shapes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mouth with its lips met, (T, 41, 2) -> (41, 2): the mean of the frames in which the
    lips are closest."""
    gap = opening_of(shapes)
    return np.asarray(shapes[gap <= np.quantile(gap, REST_SHARE)].mean(0))


def opening_of(poses: Any) -> Any:
    """How much farther the inner lips are apart than at rest, (..., 41, 2) -> (...), of arrays and
    tensors alike. Of whole shapes: how far they are apart."""
    return poses[..., _BOTTOM, 1] - poses[..., _TOP, 1]


def width_of(poses: Any) -> Any:
    """How much wider the mouth is than at rest, (..., 41, 2) -> (...), likewise."""
    return poses[..., _RIGHT, 0] - poses[..., _LEFT, 0]


def _between(points: npt.NDArray[np.floating], a: Any, b: Any) -> npt.NDArray[np.float32]:
    """Lengths from the points ``a`` to the points ``b``."""
    return np.asarray(np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1), np.float32)
