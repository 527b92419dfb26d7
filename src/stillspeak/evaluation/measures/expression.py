"""What a face does besides speaking: blinks and eyebrows.

The paper finds both in its videos (section 3.3, Figure 5) and counts neither; these are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.evaluation.measures.runs import runs
from stillspeak.face.eyes import brow_heights

BLINK_PEAK = 0.3
"""How far a blink rises above the clip's open eyes, on the blendshapes' scale of [0, 1]."""

BLINK_EDGE = 0.1
"""A blink lasts while the eyes are closed this much further than they are when open."""

BLINK_DEFINITION = (
    "A blink is a stretch of frames in which the mean of MediaPipe's two eyeBlink blendshapes is "
    f"more than {BLINK_EDGE:g} above the clip's median and reaches "
    f"{BLINK_PEAK:g} above it."
)


def find_blinks(closure: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """First and last frame (exclusive) of each blink, see :data:`BLINK_DEFINITION`, in a clip's
    mean eyeBlink blendshapes (T,) in [0, 1]. NaN, no face found, ends a blink.
    """
    if not np.isfinite(closure).any():
        return []
    above = np.nan_to_num(closure - np.nanmedian(closure), nan=0.0)
    closed = runs(above > BLINK_EDGE)
    return [(start, stop) for start, stop in closed if above[start:stop].max() >= BLINK_PEAK]


def blink_duration(closure: npt.NDArray[np.float64]) -> float:
    """Mean length in frames of the blinks that neither begin with the first nor end with the last;
    NaN if there is none.
    """
    whole = [b - a for a, b in find_blinks(closure) if a > 0 and b < len(closure)]
    return float(np.mean(whole)) if whole else float("nan")


def interval_variation(closure: npt.NDArray[np.float64]) -> float:
    """Standard deviation over mean of the times between the beginnings of blinks; NaN for fewer
    than three blinks.
    """
    intervals = np.diff([start for start, _ in find_blinks(closure)])
    return float(intervals.std() / intervals.mean()) if len(intervals) > 1 else float("nan")


def brow_curve(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Mean height of the two eyebrows over time, as in :func:`brow_heights`: (T,) pixels."""
    curve: npt.NDArray[np.float64] = brow_heights(points).mean(axis=1)
    return curve


def brow_motion(points: npt.NDArray[np.floating]) -> float:
    """How much the eyebrows move: deviation of their heights over time in pixels, mean of the two
    brows, frames without a face left out; NaN if fewer than two remain.
    """
    heights = brow_heights(points)
    heights = heights[np.isfinite(heights).all(axis=1)]
    heights = heights - heights[:1]  # brows that do not move at all have exactly none
    return float(heights.std(axis=0).mean()) if len(heights) > 1 else float("nan")
