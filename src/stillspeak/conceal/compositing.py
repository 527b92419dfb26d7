"""Lay one picture of a face over another, and blend them where a mask is white."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stillspeak.conceal.optical_flow import displacement, pixel_axes, pull
from stillspeak.face.align import (
    FloatArray,
    Transform,
    face_transform,
    invert_transform,
    resample,
    similarity_transform,
    smoothstep,
    transform_points,
)
from stillspeak.face.eyes import EYELIDS
from stillspeak.face.mouth import LIPS
from stillspeak.rendering.raster import Picture

_FEWEST = 25  # landmarks outside the mask that place the head

# The skin that a mouth, a jaw or a lid moves does not say where the head is.
_MOVING = [*LIPS, *EYELIDS]


def head_place(
    reference: FloatArray, points: FloatArray, hidden: npt.NDArray[np.bool_]
) -> Transform | None:
    """The similarity (2, 3) that lays a reference's landmarks (478, 2) over a frame's, by those
    that are not hidden in (H, W) bool; None where too little of the face is seen."""
    rows, columns = np.rint(points[:, ::-1]).astype(int).T
    inside = (rows >= 0) & (rows < hidden.shape[0]) & (columns >= 0) & (columns < hidden.shape[1])
    seen = inside.copy()
    seen[inside] = ~hidden[rows[inside], columns[inside]]
    seen[_MOVING] = False
    if seen.sum() < _FEWEST:
        return None
    first, second = (np.asarray(p, np.float64)[seen] for p in (reference, points))
    fit = similarity_transform(first, second)
    # A second look without the worst: the model guesses near what is hidden.
    error = np.linalg.norm(transform_points(first, fit) - second, axis=1)
    good = error <= np.quantile(error, 0.7)
    if good.sum() < _FEWEST:
        return fit
    return similarity_transform(first[good], second[good])


def lay_over(face: Picture, to_frame: Transform, points: FloatArray, frame: Picture) -> Picture:
    """A reference's picture moved to where the head is in a frame, (H, W, 3) uint8.

    Args:
        face: (h, w, 3) uint8, the reference with its face moved.
        to_frame: (2, 3) reference pixels -> frame pixels.
        points: (478, 2) landmarks of the reference.
        frame: gives the size.
    """
    height, width = frame.shape[:2]
    back = invert_transform(to_frame)
    step = math.sqrt(abs(float(np.linalg.det(back[:, :2]))))
    if face.shape != frame.shape or step > 1.5:
        # Another picture than the video's own: its background has no place in the frame.
        return np.asarray(resample(face, back, height, width), np.uint8)
    x, y = pixel_axes(height, width)
    to_crop = face_transform(points) @ np.vstack([back, [0.0, 0.0, 1.0]])
    (p, q, r), (s, t, u) = to_crop.astype(np.float32)
    from_middle = np.hypot((p * x + q * y + r - 48) / 96, (s * x + t * y + u - 64) / 128)
    share = smoothstep((1.3 - from_middle) / 0.5).astype(np.float32)[..., None]
    return pull(face, -share * displacement(back, height, width), 1.0)
