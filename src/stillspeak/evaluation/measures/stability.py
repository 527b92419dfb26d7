"""Does a face that has nothing to say keep still?

The paper finds jitter in the static baseline, "worse in cases where the audio is silent"
(section 3.3), and names no measure; these are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.evaluation.measures.image_quality import Frames, grey, pieces


def pixel_jitter(frames: Frames, where: npt.NDArray[np.bool_] | None = None) -> float:
    """Trembling of the picture: mean absolute second difference over time, in grey levels.

    A movement at constant pace has none in smooth parts of a picture; a change that is taken
    back in the next frame counts twice.

    Args:
        frames: (T, H, W, 3) uint8.
        where: (T,) frames to use; a difference counts if its three frames are among them.

    Returns:
        Grey levels in [0, 510]; NaN if no three frames in a row are among them.
    """
    if len(frames) < 3:
        return float("nan")
    # A difference takes three frames, so pieces have two of them in common.
    change = np.concatenate(
        [
            np.abs(levels[2:] - 2 * levels[1:-1] + levels[:-2]).mean(axis=(1, 2))
            for levels in (grey(some) for (some,) in pieces(frames, overlap=2))
        ]
    )
    return _mean_change(change, where, 3)


def lip_jitter(
    openings: npt.NDArray[np.float64], where: npt.NDArray[np.bool_] | None = None
) -> float:
    """The same of a lip opening (T,) in pixels; frames with NaN are left out."""
    return _mean_change(np.abs(openings[2:] - 2 * openings[1:-1] + openings[:-2]), where, 3)


def lip_unrest(
    openings: npt.NDArray[np.float64], where: npt.NDArray[np.bool_] | None = None
) -> float:
    """Movement of the lips: mean absolute change of the opening (T,) from frame to frame, in
    pixels; a change counts if both its frames are among ``where``; NaN if none does.
    """
    return _mean_change(np.abs(np.diff(openings)), where, 2)


def _mean_change(
    change: npt.NDArray[np.float64], where: npt.NDArray[np.bool_] | None, frames: int
) -> float:
    """Mean of the finite changes whose frames (so many each) are all among ``where``."""
    if where is not None:
        change = change[np.array([where[t : t + frames].all() for t in range(len(change))], bool)]
    change = change[np.isfinite(change)]
    return float(change.mean()) if len(change) else float("nan")
