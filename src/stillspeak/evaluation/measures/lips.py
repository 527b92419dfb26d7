"""Do the generated lips do what the real ones did?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.layouts.grid import PAUSES
from stillspeak.errors import VideoError
from stillspeak.face.landmarks import Face, LandmarkDetector
from stillspeak.face.mouth import LIPS, lip_opening

ENLARGE = 3
"""Crops are shown to the detector at this multiple: its face model sees 192 pixels or more."""

BORDER = 0.25
"""Grey border around an aligned crop, as a share of its height: detectors want some margin."""


def track_lips(
    frames: Iterable[npt.NDArray[np.uint8]], detector: LandmarkDetector
) -> npt.NDArray[np.float64]:
    """Lip opening in crops (H, W, 3) uint8: (T,) float64 in pixels; NaN where no face was found."""
    faces = (find_in_crop(frame, detector) for frame in frames)
    return np.array([np.nan if f is None else float(lip_opening(f.points)) for f in faces])


def find_in_crop(crop: npt.NDArray[np.uint8], detector: LandmarkDetector) -> Face | None:
    """The face of an aligned crop (H, W, 3), its points in pixels of the crop; None: not found.
    Crops larger than 128 lines are enlarged less.
    """
    import cv2

    border = round(BORDER * crop.shape[0])
    times = max(ENLARGE * FRAME_HEIGHT // crop.shape[0], 1)
    shown: npt.NDArray[Any] = np.pad(crop, ((border,) * 2,) * 2 + ((0, 0),), constant_values=128)
    if times > 1:
        shown = cv2.resize(shown, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    faces = detector.detect(np.ascontiguousarray(shown, dtype=np.uint8))
    if not faces:
        return None
    points = (faces[0].points + 0.5) / times - 0.5 - border
    return replace(faces[0], points=points.astype(np.float32))


class LipAgreement(NamedTuple):
    """correlation: Pearson's r of the two lip openings over time, 0 if one does not move.
    amplitude: standard deviation of the generated one over that of the real one.
    """

    correlation: float
    amplitude: float


def lip_agreement(
    generated: npt.NDArray[np.float64], real: npt.NDArray[np.float64]
) -> LipAgreement:
    """Compare two lip openings (T,) of the same moments.

    Raises:
        VideoError: fewer than half of the frames have a face.
    """
    both = _found(np.isfinite(generated) & np.isfinite(real))
    a, b = generated[both], real[both]
    moves = a.std() > 1e-6 and b.std() > 1e-6
    correlation = float(np.corrcoef(a, b)[0, 1]) if moves else 0.0
    return LipAgreement(correlation, float(a.std() / max(b.std(), 1e-6)))


MAX_LAG = 3
"""Frames by which sound and picture of a video may be apart and its lips still be compared."""


class Lagged(NamedTuple):
    """correlation: the largest Pearson's r over all lags. lag: frames by which the generated lips
    come later than the real ones there, the smallest of equally good lags.
    """

    correlation: float
    lag: int


def lagged_agreement(generated: npt.NDArray[np.float64], real: npt.NDArray[np.float64]) -> Lagged:
    """Compare two curves (T,) at lags of up to :data:`MAX_LAG` frames.

    Raises:
        VideoError: as :func:`lip_agreement`, at every lag.
    """
    length, found = len(real), []
    for lag in sorted(range(-MAX_LAG, MAX_LAG + 1), key=abs):
        a, b = generated[max(lag, 0) : length + lag], real[max(-lag, 0) : length - lag]
        try:
            found.append(Lagged(lip_agreement(a, b).correlation, lag))
        except VideoError:
            if lag == 0:
                raise
    return max(found, key=lambda one: one.correlation)


Agree = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], LipAgreement | Lagged]
""":func:`lip_agreement` or :func:`lagged_agreement`."""


def mismatched_agreement(
    agree: Agree,
    generated: npt.NDArray[np.float64],
    others: Sequence[npt.NDArray[np.float64]],
) -> tuple[float, int]:
    """The mean correlation with the real lips of other clips, each pair cut to the shorter one, and
    with how many it could be computed; NaN for none.
    """
    values = []
    for other in others:
        length = min(len(generated), len(other))
        try:
            values.append(agree(generated[:length], other[:length]).correlation)
        except VideoError:
            continue
    return (float(np.mean(values)) if values else float("nan")), len(values)


def lip_landmark_distance(
    generated: npt.NDArray[np.floating], real: npt.NDArray[np.floating]
) -> float:
    """How far the generated lips' points are from the real ones' (LMD, Chen et al. 2018): the mean
    over 40 points and the frames where both were found, each frame's lips moved to a common
    middle. Landmarks are (T, 478, 2) in pixels of the aligned crop, NaN where there is no face.

    Raises:
        VideoError: fewer than half of the frames have a face.
    """
    a, b = (np.asarray(points, np.float64)[:, list(LIPS)] for points in (generated, real))
    apart = (a - a.mean(axis=1, keepdims=True)) - (b - b.mean(axis=1, keepdims=True))
    distance = np.linalg.norm(apart, axis=-1).mean(axis=1)
    return float(distance[_found(np.isfinite(distance))].mean())


def _found(both: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The frames in which both faces were found, if these are enough."""
    if not both.any() or both.mean() < 0.5:
        raise VideoError("fewer than half of the frames show a face")
    return both


QUIET_DB = 25.0
"""A frame this much below the loud ones counts as silent where there are no word timings."""

LOUD_QUANTILE = 0.95
"""Which frame of a clip, by loudness, stands for its loud ones."""

SILENCE_DEFINITION = (
    "A frame is silent if it lies wholly outside the words by the clip's word timings; without "
    f"timings, if the RMS of its 40 ms is {QUIET_DB:g} dB or more below the clip's 95 % "
    "quantile. The note says which."
)


def quiet_frames(audio: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.bool_]:
    """Which of T frames are silent by the energy of a sound (S,) in [-1, 1] at 16 kHz, see
    :data:`SILENCE_DEFINITION`: (T,) bool. Even noise has no silent frame; what a short sound
    lacks is silent.
    """
    hop = SAMPLE_RATE // VIDEO_FPS
    sound = np.zeros(frames * hop, np.float64)
    sound[: min(len(audio), len(sound))] = audio[: len(sound)]
    level = np.sqrt(np.square(sound.reshape(frames, hop)).mean(axis=1))
    loud = np.quantile(level, LOUD_QUANTILE) if frames else 0.0
    silent: npt.NDArray[np.bool_] = level <= loud * 10 ** (-QUIET_DB / 20)
    return silent


def silent_frames(
    words: Iterable[tuple[float, float, str]], frames: int, fps: float
) -> npt.NDArray[np.bool_]:
    """Which of T frames lie wholly in silence by word timings (start s, end s, word), of which
    ``sil`` and ``sp`` are silence: (T,) bool.
    """
    silent = np.ones(frames, bool)
    for start, end, word in words:
        if word not in PAUSES:
            # 0.28 s are 7 frames, not the 7.000000000000001 of the product.
            first, stop = np.floor(round(start * fps, 6)), np.ceil(round(end * fps, 6))
            silent[max(int(first), 0) : max(int(stop), 0)] = False
    return silent
