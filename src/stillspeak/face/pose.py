"""The mouth's pose: lips and chin in the face's own frame, relative to lips that meet.

This is what lies between hearing and drawing. Sound says how 40 points of the lips and the chin
move away from the person's rest pose, in units of the distance between the eyes' middles; drawing
adds that to the rest pose of a still. Turns, tilts and the size of the head have no part in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.face.align import (
    canonical_face,
    face_transform,
    smooth_landmarks,
    transform_points,
)
from stillspeak.face.mouth import INNER_BOTTOM, INNER_TOP, LIPS, OUTER_LIPS

CHIN = 152
"""The chin's lowest point."""

POSE_POINTS = (*LIPS, CHIN)
"""Points of the 478-point mesh that a pose moves: outer lips, inner lips, chin."""

REST_SHARE = 0.1
"""Share of a clip's frames, those with the lips closest, whose mean is the rest pose."""

_TOP, _BOTTOM = POSE_POINTS.index(INNER_TOP), POSE_POINTS.index(INNER_BOTTOM)
_LEFT, _RIGHT = POSE_POINTS.index(OUTER_LIPS[0]), POSE_POINTS.index(OUTER_LIPS[10])


def mirrored_points() -> npt.NDArray[np.int64]:
    """Which of :data:`POSE_POINTS` stands where each goes when the face is mirrored."""
    # Each ring runs from one corner below to the other and above back.
    ring = [(10 - i) % 20 for i in range(20)]
    return np.array([*ring, *(20 + i for i in ring), 40])


def mouth_shapes(points: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Lips and chin in the face's own frame.

    Args:
        points: (T, 478, 2) landmarks of one face in consecutive frames, in any pixels.

    Returns:
        (T, 41, 2) float32, x to the right and y down from the middle between the eyes, 1 being
        the distance between the eyes' middles. The frame is that of landmarks averaged over
        seven frames, so that their noise does not shake it.
    """
    points = np.asarray(points, np.float64)
    canonical = canonical_face().points
    left, right = canonical[1:3].mean(0), canonical[3:5].mean(0)
    unit, middle = float(np.linalg.norm(right - left)), (left + right) / 2
    smooth = smooth_landmarks(points)
    shapes = [
        transform_points(frame[list(POSE_POINTS)], face_transform(steady))
        for frame, steady in zip(points, smooth, strict=True)
    ]
    scaled = (np.array(shapes) - middle) / unit
    return np.asarray(scaled, np.float32).reshape(-1, 41, 2)


def rest_shape(shapes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mouth with its lips met, (T, 41, 2) -> (41, 2): the mean of the frames in which the
    lips are closest."""
    gap = opening_of(shapes)
    rest: npt.NDArray[np.float32] = shapes[gap <= np.quantile(gap, REST_SHARE)].mean(0)
    return rest


def opening_of(poses: Any) -> Any:
    """How much farther the inner lips are apart than at rest, (..., 41, 2) -> (...), of arrays and
    tensors alike. Of whole shapes: how far they are apart."""
    return poses[..., _BOTTOM, 1] - poses[..., _TOP, 1]


def width_of(poses: Any) -> Any:
    """How much wider the mouth is than at rest, (..., 41, 2) -> (...), likewise."""
    return poses[..., _RIGHT, 0] - poses[..., _LEFT, 0]
