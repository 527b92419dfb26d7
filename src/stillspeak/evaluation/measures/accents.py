"""Where a voice is accented, frame by frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.evaluation.measures.head import averaged

ACCENT_DEFINITION = (
    "Accents are how many dB a frame's 40 ms, averaged over 3 frames, are louder than the mean of "
    "the second around it, 0 where they are not; 40 dB below the loudest frame is taken for silence"
)


def accents(audio: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.float64]:
    """Accents (T,) in dB, 0 and more, of a sound (S,) in [-1, 1] at 16 kHz."""
    hop = SAMPLE_RATE // VIDEO_FPS
    sound = np.zeros(frames * hop, np.float64)
    sound[: min(len(audio), len(sound))] = audio[: len(sound)]
    power = np.square(sound.reshape(frames, hop)).mean(axis=1)
    if not frames or power.max() <= 0:
        return np.zeros(frames)
    level = averaged(10 * np.log10(np.maximum(power, power.max() * 1e-4)), 3)
    louder: npt.NDArray[np.float64] = np.maximum(level - averaged(level, VIDEO_FPS), 0)
    return louder
