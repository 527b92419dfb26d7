"""Where a voice is accented, frame by frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.motion.prosody import ACCENT, ProsodyTracker

ACCENT_DEFINITION = (
    "Accents, 0 to 1, are those of stillspeak.motion.prosody: by how much a voiced frame is louder "
    "and higher than the voice was before, over 0.08 s."
)


def accents(audio: npt.NDArray[np.float32], frames: int) -> npt.NDArray[np.float64]:
    """Accents (T,) in [0, 1] of a sound (S,) in [-1, 1] at 16 kHz."""
    hop = SAMPLE_RATE // VIDEO_FPS
    sound = np.zeros(frames * hop, np.float32)
    sound[: min(len(audio), len(sound))] = audio[: len(sound)]
    return ProsodyTracker().hear(sound.reshape(frames, hop))[:, ACCENT].astype(np.float64)
