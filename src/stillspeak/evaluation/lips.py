"""Do the generated lips do what the real ones did?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.errors import VideoError
from stillspeak.face.landmarks import Face, LandmarkDetector
from stillspeak.face.mouth import lip_opening

ENLARGE = 3
"""Crops are shown to the detector at this multiple: its face model sees 192 pixels or more."""

BORDER = 0.25
"""Grey border around an aligned crop, as a share of its height: detectors want some margin."""


def track_lips(
    frames: Iterable[npt.NDArray[np.uint8]], detector: LandmarkDetector
) -> npt.NDArray[np.float64]:
    """Lip opening in every frame.

    Args:
        frames: aligned crops (H, W, 3) uint8.
        detector: any.

    Returns:
        (T,) float64 pixels of the crop; NaN where no face was found.
    """
    openings = []
    for frame in frames:
        face = find_in_crop(frame, detector)
        openings.append(float("nan") if face is None else float(lip_opening(face.points)))
    return np.array(openings)


def find_in_crop(crop: npt.NDArray[np.uint8], detector: LandmarkDetector) -> Face | None:
    """The face of an aligned crop (H, W, 3), its points in pixels of the crop; None: not found."""
    import cv2

    border = round(BORDER * crop.shape[0])
    shown = cv2.copyMakeBorder(
        crop, border, border, border, border, cv2.BORDER_CONSTANT, value=(128, 128, 128)
    )
    shown = cv2.resize(shown, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
    faces = detector.detect(np.ascontiguousarray(shown, dtype=np.uint8))
    if not faces:
        return None
    face = faces[0]
    points = (face.points + 0.5) / ENLARGE - 0.5 - border
    return Face(points.astype(np.float32), face.blendshapes, face.yaw, face.pitch, face.roll)


class LipAgreement(NamedTuple):
    """correlation: Pearson's r of the two lip openings over time, 0 if one does not move.
    amplitude: standard deviation of the generated one over that of the real one.
    found: share of frames in which both were found.
    """

    correlation: float
    amplitude: float
    found: float


def lip_agreement(
    generated: npt.NDArray[np.float64], real: npt.NDArray[np.float64]
) -> LipAgreement:
    """Compare two lip openings (T,) of the same moments.

    Raises:
        VideoError: other lengths, or fewer than half of the frames have a face.
    """
    if generated.shape != real.shape:
        raise VideoError(f"lip openings of {len(generated)} and {len(real)} frames: not one clip")
    both = np.isfinite(generated) & np.isfinite(real)
    if not both.any() or both.mean() < 0.5:
        raise VideoError("fewer than half of the frames show a face; lips cannot be compared")
    a, b = generated[both], real[both]
    moves = a.std() > 1e-6 and b.std() > 1e-6
    correlation = float(np.corrcoef(a, b)[0, 1]) if moves else 0.0
    return LipAgreement(correlation, float(a.std() / max(b.std(), 1e-6)), float(both.mean()))


def silent_frames(
    words: Iterable[tuple[float, float, str]], frames: int, fps: float
) -> npt.NDArray[np.bool_]:
    """Which frames lie wholly in silence by a clip's word timings.

    Args:
        words: (start s, end s, word); ``sil`` and ``sp`` are silence, as is time without words.
        frames: T.
        fps: frames a second.

    Returns:
        (T,) bool.
    """
    silent = np.ones(frames, bool)
    for start, end, word in words:
        if word not in ("sil", "sp"):
            # 0.28 s are 7 frames, not the 7.000000000000001 of the product.
            first, stop = np.floor(round(start * fps, 6)), np.ceil(round(end * fps, 6))
            silent[max(int(first), 0) : max(int(stop), 0)] = False
    return silent
