"""How training examples are drawn from a prepared cache, and how they are changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import FORBID_UNKNOWN


@dataclass(frozen=True)
class DataConfig:
    """How training examples are drawn from a prepared cache."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    batch: int = 8
    """Clips B in a batch."""
    window_frames: int = 24
    """Audio windows T that the context GRU reads in one example."""
    decoded_frames: int = 3
    """Frames of those T that are decoded and compared (the decoder is the costly part)."""
    consecutive: bool = False
    """Whether those frames follow one another, as sequence and sync discriminators need."""
    lead_frames: int = 4
    """Frames at the start of an example that are never decoded: the GRU starts from zero."""
    speaker_balance: float = 0.55
    """0 draws every clip alike, 1 every speaker alike."""
    audio_speaker_balance: float | None = None
    """The same in the audio warm start; None: as above. A few clips that come again and again
    teach a face more than a voice."""
    other_clip: float = 0.3
    """Share of examples whose still comes from another clip of the same speaker."""
    first_frame: float = 0.3
    """Share of examples whose still is its clip's first frame, as it is when used."""
    audio_batch: int = 16
    """Clips in a batch of the audio warm start."""
    audio_window_frames: int = 32
    resident: bool = False
    """Whether all clips go to the accelerator's memory and examples are made there: 8 MB a clip
    of three seconds, and many times as many examples a second."""

    def __post_init__(self) -> None:
        for name in (
            *("batch", "window_frames", "decoded_frames"),
            *("audio_batch", "audio_window_frames"),
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} must be at least 1")
        if self.lead_frames < 0 or self.window_frames - self.lead_frames < self.decoded_frames:
            raise ConfigError("data.window_frames must hold lead_frames and decoded_frames")
        for name in ("speaker_balance", "audio_speaker_balance", "other_clip", "first_frame"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ConfigError(f"data.{name} must lie in [0, 1]")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes, applied alike to still and target. Zero turns each one off."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    mirror: float = 0.5
    """Probability of a mirrored example (paper, section 3.1)."""
    rotate: float = 4.0
    """Largest rotation in degrees."""
    scale: float = 0.06
    """Largest relative change of size."""
    shift: float = 3.0
    """Largest shift in pixels."""
    warp: float = 2.0
    """Standard deviation in pixels of a smooth random warp: another head, a pseudo-identity."""
    gain: float = 0.2
    """Largest relative change of brightness."""
    gamma: float = 0.25
    """Largest change of log2 gamma."""
    colour: float = 0.12
    """Largest relative change of one colour channel against the others."""
    audio_gain_db: float = 10.0
    """Largest change of loudness."""
    audio_noise_db: float = 15.0
    """Lowest signal-to-noise ratio of added noise; the draw is from here to 30 dB above."""
    audio_noise: float = 0.5
    """Probability of added noise."""
    audio_eq_db: float = 6.0
    """Standard deviation of a smooth random equaliser: other voices, other microphones."""
    speed: float = 0.2
    """Largest relative change of speed and pitch together; the frames follow."""
    pitch: float = 0.0
    """Largest relative change of pitch and formants alone: other voices."""
    audio_reverb: float = 0.0
    """Probability of a room's echo (``data.resident`` alone)."""
    audio_mask: float = 0.0
    """Probability of a stretch without sound, 0.15 s at most (``data.resident`` alone)."""

    def __post_init__(self) -> None:
        for name in ("mirror", "audio_noise", "audio_reverb", "audio_mask"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name} must lie in [0, 1]")
        for field in fields(self):
            # The signal-to-noise ratio is a level and may lie below zero.
            if field.name != "audio_noise_db" and not 0 <= getattr(self, field.name) < math.inf:
                raise ConfigError(f"augment.{field.name} must be zero or a positive number")
