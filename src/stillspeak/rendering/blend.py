"""Show a drawing in a part of a picture, its colours brought to those around."""

from __future__ import annotations

import math

import cv2
import numpy as np

from stillspeak.face.align import smoothstep
from stillspeak.rendering.raster import Floats, Picture

GROW = 0.04
"""By how much the mask is widened, in face widths: what hides a face has a blurred border, and the
real picture and the generated one need a stripe to pass into each other."""

RING = 0.08
"""Width of the ring beyond that whose colours are matched, in face widths."""


def blend(
    frame: Picture,
    drawn: Picture,
    mask: Floats,
    face_width: float,
    grow: float = GROW,
    strength: float = 1.0,
) -> Picture:
    """Show a drawing where a mask is white, its colours brought to the frame's around it.

    Args:
        frame: (H, W, 3) uint8.
        drawn: (H, W, 3) uint8, of the same place.
        mask: (H, W) float32 in [0, 1]; where it is 1 the drawing alone shows.
        face_width: pixels.
        grow: face widths beyond the mask over which the drawing fades out; at least two pixels,
            unless it is 0.
        strength: how much of the drawing shows at most.

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
    real += (strength * share)[..., None].astype(np.float32) * (made - real)
    out[rows, columns] = np.clip(np.rint(real), 0, 255).astype(np.uint8)
    return out


def _spread(values: Floats, known: Floats) -> Floats:
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
