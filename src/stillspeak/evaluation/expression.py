"""What a face does besides speaking: blinks and eyebrows.

The paper finds both in its videos (section 3.3, Figure 5) and counts neither; these are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLINK_PEAK = 0.3
"""How far a blink rises above the clip's open eyes, on the blendshapes' scale of [0, 1]."""

BLINK_EDGE = 0.1
"""A blink lasts while the eyes are closed this much further than they are when open."""

LEFT_BROW = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
RIGHT_BROW = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
"""Points of the eyebrows in the 478-point mesh, as seen in the picture."""

EYE_CORNERS = (33, 263)
"""The outer eye corners, image left and image right."""


def find_blinks(closure: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Blinks in a clip.

    Args:
        closure: (T,) mean of the two eyeBlink blendshapes, in [0, 1]; NaN: no face found. The
            clip's median stands for open eyes. Frames without a face end a blink.

    Returns:
        First and last frame (exclusive) of each stretch in which the eyes are closed further by
        more than :data:`BLINK_EDGE` throughout and by :data:`BLINK_PEAK` or more somewhere.
    """
    if not np.isfinite(closure).any():
        return []
    above = np.nan_to_num(closure - np.nanmedian(closure), nan=0.0)
    closing = np.concatenate([[False], above > BLINK_EDGE, [False]])
    turns = np.flatnonzero(closing[1:] != closing[:-1])
    return [
        (int(start), int(stop))
        for start, stop in zip(turns[::2], turns[1::2], strict=True)
        if above[start:stop].max() >= BLINK_PEAK
    ]


def brow_heights(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Height of the eyebrows above the line through the outer eye corners.

    Args:
        points: (T, 478, 2) landmarks in pixels; NaN: no face found.

    Returns:
        (T, 2) pixels, the brow at the picture's left first; positive is up.
    """
    p = np.asarray(points, np.float64)
    left, right = p[:, EYE_CORNERS[0]], p[:, EYE_CORNERS[1]]
    along = right - left
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    heights = []
    for brow in (LEFT_BROW, RIGHT_BROW):
        offset = p[:, list(brow)].mean(axis=1) - left
        # y runs down, so up is the negative of the cross product.
        heights.append(along[:, 1] * offset[:, 0] - along[:, 0] * offset[:, 1])
    return np.stack(heights, axis=-1)


def brow_curve(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Mean height of the two eyebrows over time, as in :func:`brow_heights`: (T,) pixels."""
    curve: npt.NDArray[np.float64] = brow_heights(points).mean(axis=1)
    return curve


def brow_motion(points: npt.NDArray[np.floating]) -> float:
    """How much the eyebrows move: deviation of their heights over time, mean of the two brows.

    Args:
        points: as in :func:`brow_heights`; frames without a face are left out.

    Returns:
        Pixels; NaN if there is a face in fewer than two frames.
    """
    heights = brow_heights(points)
    heights = heights[np.isfinite(heights).all(axis=1)]
    heights = heights - heights[:1]  # brows that do not move at all have exactly none
    return float(heights.std(axis=0).mean()) if len(heights) > 1 else float("nan")
