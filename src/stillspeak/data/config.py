"""How training examples are drawn from a prepared cache, and how they are changed."""

from __future__ import annotations

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import Share, configuration


@configuration("data")
class DataConfig:
    """How training examples are drawn from a prepared cache."""

    batch: PositiveInt = 8
    """Clips B in a batch."""
    window_frames: PositiveInt = 24
    """Audio windows T that the context GRU reads in one example."""
    decoded_frames: PositiveInt = 3
    """Frames of those T that are decoded and compared (the decoder is the costly part)."""
    consecutive: bool = False
    """Whether those frames follow one another, as sequence and sync discriminators need."""
    lead_frames: NonNegativeInt = 4
    """Frames at the start of an example that are never decoded: the GRU starts from zero."""
    speaker_balance: Share = 0.55
    """0 draws every clip alike, 1 every speaker alike."""
    audio_speaker_balance: Share | None = None
    """The same in the audio warm start; None: as above. A few clips that come again and again
    teach a face more than a voice."""
    other_clip: Share = 0.3
    """Share of examples whose still comes from another clip of the same speaker."""
    first_frame: Share = 0.3
    """Share of examples whose still is its clip's first frame, as it is when used."""
    audio_batch: PositiveInt = 16
    """Clips in a batch of the audio warm start."""
    audio_window_frames: PositiveInt = 32
    resident: bool = False
    """Whether all clips go to the accelerator's memory and examples are made there: 8 MB a clip
    of three seconds, and many times as many examples a second."""

    def __post_init__(self) -> None:
        if self.window_frames - self.lead_frames < self.decoded_frames:
            raise ConfigError("data.window_frames must hold lead_frames and decoded_frames")


@configuration("augment")
class AugmentConfig:
    """Random changes, applied alike to still and target. Zero turns each one off."""

    mirror: Share = 0.5
    """Probability of a mirrored example (paper, section 3.1)."""
    rotate: NonNegativeFloat = 4.0
    """Largest rotation in degrees."""
    scale: NonNegativeFloat = 0.06
    """Largest relative change of size."""
    shift: NonNegativeFloat = 3.0
    """Largest shift in pixels."""
    warp: NonNegativeFloat = 2.0
    """Standard deviation in pixels of a smooth random warp: another head, a pseudo-identity."""
    gain: NonNegativeFloat = 0.2
    """Largest relative change of brightness."""
    gamma: NonNegativeFloat = 0.25
    """Largest change of log2 gamma."""
    colour: NonNegativeFloat = 0.12
    """Largest relative change of one colour channel against the others."""
    audio_gain_db: NonNegativeFloat = 10.0
    """Largest change of loudness."""
    audio_noise_db: float = 15.0
    """Lowest signal-to-noise ratio of added noise; the draw is from here to 30 dB above."""
    audio_noise: Share = 0.5
    """Probability of added noise."""
    audio_eq_db: NonNegativeFloat = 6.0
    """Standard deviation of a smooth random equaliser: other voices, other microphones."""
    speed: NonNegativeFloat = 0.2
    """Largest relative change of speed and pitch together; the frames follow."""
    pitch: NonNegativeFloat = 0.0
    """Largest relative change of pitch and formants alone: other voices."""
    audio_reverb: Share = 0.0
    """Probability of a room's echo (``data.resident`` alone)."""
    audio_mask: Share = 0.0
    """Probability of a stretch without sound, 0.15 s at most (``data.resident`` alone)."""
