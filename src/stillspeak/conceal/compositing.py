"""Lay one picture of a face over another, and blend them where a mask is white."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.conceal.masks import Mask
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

GROW = 0.04
"""By how much the mask is widened, in face widths: what hides a face has a blurred border, and the
real picture and the generated one need a stripe to pass into each other."""

RING = 0.08
"""Width of the ring beyond that whose colours are matched, in face widths."""

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


def blend(
    frame: Picture, drawn: Picture, mask: Mask, face_width: float, grow: float = GROW
) -> Picture:
    """Show a drawing where a mask is white, its colours brought to the frame's around it.

    Args:
        frame: (H, W, 3) uint8.
        drawn: (H, W, 3) uint8, of the same place.
        mask: (H, W) float32 in [0, 1]; where it is 1 the drawing alone shows.
        face_width: pixels.
        grow: face widths beyond the mask over which the drawing fades out; at least two pixels,
            unless it is 0.

    Returns:
        (H, W, 3) uint8, equal to ``frame`` from ``grow`` beyond the mask on.
    """
    hidden = (mask > 0).astype(np.uint8)
    out = frame.copy()
    if not hidden.any():
        return out
    stripe = max(grow * face_width, 2.0) if grow else 0.0
    ring = max(RING * face_width, 3.0)
    x, y, w, h = cv2.boundingRect(hidden)
    margin = math.ceil(stripe + ring) + 2
    rows = slice(max(y - margin, 0), min(y + h + margin, frame.shape[0]))
    columns = slice(max(x - margin, 0), min(x + w + margin, frame.shape[1]))
    hidden = np.ascontiguousarray(hidden[rows, columns])
    real, made = (part[rows, columns].astype(np.float32) for part in (frame, drawn))
    # Pixels from the mask: 0 in it, 1 for its neighbours.
    away = cv2.distanceTransform(1 - hidden, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    around = ((away > stripe) & (away <= stripe + ring)).astype(np.float32)
    made += _spread(real - made, around)
    beyond = (
        smoothstep(1 - away.astype(np.float32) / (stripe + 1e-6)) if stripe else np.zeros_like(away)
    )
    share = np.where(hidden > 0, mask[rows, columns] if not stripe else 1.0, beyond)
    real += share[..., None].astype(np.float32) * (made - real)
    out[rows, columns] = np.clip(np.rint(real), 0, 255).astype(np.uint8)
    return out


def _spread(values: npt.NDArray[np.float32], known: Mask) -> npt.NDArray[np.float32]:
    """Continue values (H, W, 3) smoothly from where they are known into where they are not.

    From coarse to fine: each level fills from its known neighbours, the next coarser one the rest.
    """
    if not known.any():
        return np.zeros_like(values)
    height, width = known.shape
    if min(height, width) <= 2:
        mean = (values * known[..., None]).sum((0, 1)) / known.sum()
        return np.broadcast_to(mean, values.shape).astype(np.float32)
    half = (max(width // 2, 1), max(height // 2, 1))
    weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
    total = cv2.resize(values * known[..., None], half, interpolation=cv2.INTER_AREA)
    mean = np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32)
    coarse = _spread(mean, np.asarray(np.minimum(weight * 4, 1), np.float32))
    filled = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    share = known[..., None] * 0.5
    return np.asarray(filled + share * (values - filled), np.float32)
