"""Does a face that has nothing to say keep still?

The paper finds jitter in the static baseline, "worse in cases where the audio is silent"
(section 3.3), and names no measure; these are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.evaluation.measures.image_quality import Frames, grey, pieces

Where = npt.NDArray[np.bool_] | None


def pixel_jitter(frames: Frames, where: Where = None) -> float:
    """Trembling of frames (T, H, W, 3): mean absolute second difference over time, in grey levels
    in [0, 510]. A difference counts if its three frames are all among ``where`` (T,); NaN if none
    does.
    """
    if len(frames) < 3:
        return float("nan")
    # A difference takes three frames, so pieces have two of them in common.
    levels = (grey(some) for (some,) in pieces(frames, overlap=2))
    changes = [np.abs(x[2:] - 2 * x[1:-1] + x[:-2]).mean(axis=(1, 2)) for x in levels]
    return _mean_change(np.concatenate(changes), where, 3)


def lip_jitter(openings: npt.NDArray[np.float64], where: Where = None) -> float:
    """The same of a lip opening (T,) in pixels; frames with NaN are left out."""
    return _mean_change(np.abs(openings[2:] - 2 * openings[1:-1] + openings[:-2]), where, 3)


def lip_unrest(openings: npt.NDArray[np.float64], where: Where = None) -> float:
    """Mean absolute change of a lip opening (T,) from frame to frame in pixels, likewise."""
    return _mean_change(np.abs(np.diff(openings)), where, 2)


def _mean_change(change: npt.NDArray[np.float64], where: Where, frames: int) -> float:
    """Mean of the finite changes whose frames (so many each) are all among ``where``."""
    if where is not None:
        change = change[np.array([where[t : t + frames].all() for t in range(len(change))], bool)]
    change = change[np.isfinite(change)]
    return float(change.mean()) if len(change) else float("nan")
