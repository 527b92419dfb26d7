"""How a head moves: how far, how fast, at which frequencies, and whether with the voice's accents.

The paper's videos hold the head still; these measures are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import VideoError

Curve = npt.NDArray[np.float64]

STEADY = 5
"""Frames over which angles are averaged: a detector's trembling is not the head's."""

TREND = 25
"""Frames whose mean a movement with the voice is seen against."""

BANDS = {"quarter_hz": 0.25, "half_hz": 0.5, "1_hz": 1.0, "2_hz": 2.0, "4_hz": 4.0}
"""Octaves by their middles in Hz: each from 2^-.5 to 2^.5 of it."""

HEAD_DEFINITION = (
    "Turn, nod and tilt are the degrees of MediaPipe's facial transformation matrix. Alignment "
    "turns and shifts each frame, which takes away most of the tilt; the pose is therefore that of "
    "the frames before they were aligned: those of the videos, or the crops as a model makes them "
    "(with a grey border, enlarged three times). Videos of bare crops have theirs found in the "
    "crop, and tilt is missing if they follow the head. Gaps are bridged by straight lines."
)
STEADY_DEFINITION = f"Angles are means over {STEADY} frames, those that exist near the ends."

MOVED_DEFINITION = (
    f"Both are means over {STEADY} frames; the movement is counted from its mean over the "
    f"{TREND} frames around."
)


def bridged(curves: Curve, least: float = 0.5) -> Curve:
    """Curves (T, ...) with straight lines over the frames that are NaN.

    Raises:
        VideoError: no frame, or less than this share of them, has a face.
    """
    flat = np.asarray(curves, np.float64).reshape(len(curves), -1)
    known = np.isfinite(flat).all(axis=1)
    if not known.any() or known.mean() < least:
        raise VideoError("fewer than half of the frames show a face")
    times = np.arange(len(flat))
    filled = [np.interp(times, times[known], column[known]) for column in flat.T]
    return np.stack(filled, axis=1).reshape(curves.shape)


def averaged(curve: Curve, frames: int) -> Curve:
    """Means over an odd number of frames around each of (T, ...), those that exist."""
    half = frames // 2
    total = np.cumsum(np.concatenate([np.zeros((1, *curve.shape[1:])), curve]), axis=0)
    stop = np.minimum(np.arange(len(curve)) + half + 1, len(curve))
    start = np.maximum(np.arange(len(curve)) - half, 0)
    means: Curve = (total[stop] - total[start]) / (stop - start).reshape(
        -1, *[1] * (curve.ndim - 1)
    )
    return means


def deviations(head: Curve) -> Curve:
    """Standard deviations (3,) of turn, nod and tilt (T, 3) over time, in degrees."""
    steady = averaged(bridged(head), STEADY)
    deviation: Curve = (steady - steady[:1]).std(axis=0)  # exactly none where nothing moves
    return deviation


def amplitude(generated: Curve, real: Curve) -> float:
    """How far a head moves (T, 3), over how far another does: roots of the summed variances. NaN
    where the other keeps still.
    """
    made, true = (float(np.linalg.norm(deviations(head))) for head in (generated, real))
    return made / true if true > 0 else float("nan")


def speed(head: Curve) -> float:
    """Mean length of the change of (T, 3) from frame to frame, in degrees a second."""
    steps = np.diff(averaged(bridged(head), STEADY), axis=0)
    return float(np.linalg.norm(steps, axis=1).mean()) * VIDEO_FPS if len(steps) else float("nan")


def octave_shares(head: Curve) -> Curve:
    """Shares (5,) of a head's power (T, 3) in :data:`BANDS`, sum 1; NaN for octaves without a
    frequency that has a whole period in T frames, and all of them where nothing moves.
    """
    angles = bridged(head)
    angles = (angles - angles.mean(axis=0)) * np.hanning(len(angles))[:, None]
    power = np.square(np.abs(np.fft.rfft(angles, axis=0))).sum(axis=1)
    frequencies = np.fft.rfftfreq(len(angles), 1 / VIDEO_FPS)
    shares = []
    for middle in BANDS.values():
        inside = (frequencies > 0) & (abs(np.log2(np.maximum(frequencies, 1e-9) / middle)) <= 0.5)
        shares.append(power[inside].sum() if inside.any() else np.nan)
    total = np.nansum(shares)
    none = np.full(len(BANDS), np.nan)
    return np.array(shares) / total if total > 1e-9 else none


def spectrum_distance(generated: Curve, real: Curve) -> float:
    """Half the sum of the absolute differences of two heads' shares: 0 alike, 1 nothing in common;
    NaN where one does not move.
    """
    apart = np.abs(octave_shares(generated) - octave_shares(real))
    return float(np.nansum(apart)) / 2 if np.isfinite(apart).any() else float("nan")


def with_accents(curve: Curve, accents: Curve) -> float:
    """Pearson's r of a movement (T,), see :data:`MOVED_DEFINITION`, and a voice's accents (T,),
    cut to the shorter one; 0 where one does not change.
    """
    length = min(len(curve), len(accents))
    steady = averaged(bridged(curve), STEADY)
    moved = (steady - averaged(steady, TREND))[:length]
    stressed = averaged(accents[:length], STEADY)
    if moved.std() < 1e-6 or stressed.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(moved, stressed)[0, 1])
