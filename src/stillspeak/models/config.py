"""The generator's configuration: sizes and widths, frozen and validated."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal

from stillspeak.constants import (
    AUDIO_WINDOW_SECONDS,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    SAMPLE_RATE,
    VIDEO_FPS,
)
from stillspeak.errors import ConfigError
from stillspeak.models.pose import PoseConfig
from stillspeak.models.speech import REACH, SPEECH_RATE, TOKEN, SpeechEncoderConfig

DecoderName = Literal["unet", "layers"]
AudioInput = Literal["waveform", "speech"]
Norm = Literal["none", "batch", "spectral"]
Region = Literal["frame", "lower", "mouth", "eyes"]

RETIRED = frozenset(
    (
        *("mel_bands", "warp_channels", "mouth_channels"),
        *("expression_dim", "expression_gain", "finest_skip", "fine"),
    )
)
"""Fields of networks' configurations that older files still have, and that say nothing of a network
that can still be built."""

SYNC_SECONDS = 0.2
"""What the sync discriminator sees and hears at once."""

WIDEST = 4096
"""Of any layer. A configuration comes with a file, and a number in it that is a thousand times too
large must be refused before memory is asked for; all bounds here are far above what is used."""

DEEPEST = 16
"""Layers in a row."""

LARGEST_MAPS = 2**26
"""Numbers in the feature maps of a frame or of an audio window."""

FASTEST = 48_000
"""Samples, and frames, a second."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes and widths of a :class:`~stillspeak.models.generator.Generator`.

    The defaults are the paper's full-width model. Numbers that follow from others (hop,
    window in samples, latent size) are properties, never fields.

    Raises:
        ConfigError: a value that no generator can be built from.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    decoder: DecoderName = "unet"
    height: int = FRAME_HEIGHT
    width: int = FRAME_WIDTH
    fps: int = VIDEO_FPS
    sample_rate: int = SAMPLE_RATE
    window_seconds: float = AUDIO_WINDOW_SECONDS
    identity_channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of the identity encoder's strided layers, fine to coarse."""
    identity_dim: int = 50
    audio_input: AudioInput = "waveform"
    """The audio encoder: ``waveform``, the paper's, learned with the pictures; or ``speech``, the
    one that has heard the world and says the mouth's pose (:mod:`stillspeak.models.speech`). With
    it the window follows from how far it looks ahead, and all other widths are unused."""
    speech: SpeechEncoderConfig = field(default_factory=SpeechEncoderConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    audio_channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    """Channels of the audio-frame encoder's layers, each but the first halving the time steps."""
    audio_dim: int = 256
    audio_dropout: float = 0.0
    """Share of the audio-frame encodings' numbers that are left out while they are trained."""
    context_dim: int = 256
    context_layers: int = 2
    """Layers of the context GRU; 0 leaves it out: the static baseline, each frame on its own."""
    noise_dim: int = 10
    """Size of the noise encoding; 0 leaves the noise generator out."""
    noise_std: float = 0.33
    """Standard deviation of the noise GRU's input."""

    def __post_init__(self) -> None:
        check_types(self, "generator")
        check_types(self.speech, "generator.speech")
        check_types(self.pose, "generator.pose")
        levels = len(self.identity_channels)
        if self.decoder not in ("unet", "layers"):
            raise ConfigError(f"generator.decoder is {self.decoder!r}; give 'unet' or 'layers'")
        if (self.decoder == "layers") != (self.audio_input == "speech"):
            raise ConfigError(
                "generator.decoder = 'layers' and generator.audio_input = 'speech' go together: "
                "one says the mouth's pose, the other draws it"
            )
        if self.decoder == "layers" and self.noise_dim:
            raise ConfigError("generator.decoder = 'layers' needs generator.noise_dim = 0")
        for name in ("identity_channels", "audio_channels"):
            _check_widths(f"generator.{name}", getattr(self, name))
        for name in (
            *("height", "width", "fps", "sample_rate"),
            *("identity_dim", "audio_dim", "context_dim"),
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"generator.{name} must be at least 1")
        for name in ("context_layers", "noise_dim"):
            if getattr(self, name) < 0:
                raise ConfigError(f"generator.{name} cannot be negative")
        if self.audio_input == "speech" and (self.sample_rate, self.fps) != (SPEECH_RATE, 25):
            raise ConfigError(
                "generator.audio_input = 'speech' needs 16 kHz and 25 frames a second"
            )
        for name, most in (
            *(("height", WIDEST), ("width", WIDEST), ("fps", FASTEST), ("sample_rate", FASTEST)),
            *(("identity_dim", WIDEST), ("audio_dim", WIDEST), ("context_dim", WIDEST)),
            *(("context_layers", DEEPEST), ("noise_dim", WIDEST)),
        ):
            if getattr(self, name) > most:
                raise ConfigError(f"generator.{name} must be at most {most}")
        if not self.context_layers and self.context_dim != self.audio_dim:
            raise ConfigError(
                "generator.context_dim must be generator.audio_dim where there is no context GRU "
                "(context_layers = 0)"
            )
        if self.height % 2**levels or self.width % 2**levels:
            raise ConfigError(
                f"generator.height and .width must be multiples of {2**levels}, "
                f"not {self.height}x{self.width}"
            )
        if self.audio_input not in ("waveform", "speech"):
            raise ConfigError(
                f"generator.audio_input is {self.audio_input!r}; give 'waveform' or 'speech'"
            )
        if not 0 <= self.audio_dropout < 1:
            raise ConfigError("generator.audio_dropout must lie in [0, 1)")
        if self.sample_rate % 1000:
            raise ConfigError(
                f"generator.sample_rate is {self.sample_rate} Hz; the audio encoder's strides "
                "need a whole number of kHz"
            )
        if self.sample_rate % self.fps:
            raise ConfigError("generator.sample_rate must be a multiple of generator.fps")
        if not 0 < self.window_seconds < 60:
            raise ConfigError("generator.window_seconds must be positive and below a minute")
        if self.window < self.hop or (self.window - self.hop) % 2:
            raise ConfigError("generator.window_seconds must be an even margin around one frame")
        if self.audio_steps[-1] < 1:
            raise ConfigError("generator.window_seconds is too short for generator.audio_channels")
        if max(self._frame_maps(), self.audio_steps[0] * max(self.audio_channels)) > LARGEST_MAPS:
            raise ConfigError("generator: so many pixels, samples and channels are too much memory")
        if not 0 <= self.noise_std < math.inf:
            raise ConfigError("generator.noise_std must be zero or a positive number")

    def _frame_maps(self) -> int:
        """Numbers in the feature maps of a frame: each level has half the rows and columns."""
        pixels = self.height * self.width
        return max(pixels // 4 * max(self.identity_channels), 3 * pixels)

    @property
    def hop(self) -> int:
        """Waveform samples in one video frame."""
        return self.sample_rate // self.fps

    @property
    def window(self) -> int:
        """Waveform samples N in one audio window, as many before the frame as after it."""
        if self.audio_input == "speech":
            # The frame's second token needs the layers' looks ahead and the stem's reach.
            after = TOKEN * (1 + self.speech.delay) + REACH - self.hop
            return self.hop + 2 * after
        return round(self.window_seconds * self.sample_rate)

    @property
    def audio_steps(self) -> tuple[int, ...]:
        """Time steps left after each layer of the audio-frame encoder."""
        milliseconds = self.window * 1000 // self.sample_rate
        steps = [milliseconds]
        for _ in self.audio_channels[1:]:
            steps.append(steps[-1] // 2)
        return tuple(steps)

    @property
    def coarse_size(self) -> tuple[int, int]:
        """Height and width of the coarsest identity map: 4 x 3 for a 128 x 96 frame."""
        scale = 2 ** len(self.identity_channels)
        return self.height // scale, self.width // scale

    @property
    def latent_dim(self) -> int:
        """Size of the joined latent: context, noise and identity encodings, expression."""
        return self.context_dim + self.noise_dim + self.identity_dim


@dataclass(frozen=True)
class FrameDiscriminatorConfig:
    """Widths of a :class:`~stillspeak.models.discriminators.FrameDiscriminator`.

    The paper gives six layers and the six-channel input (section 2.2.1); kernels, widths and
    normalisation were never published and are our choice.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of the strided layers; one more layer judges."""
    norm: Norm = "none"
    """Of all layers but the first: batch statistics tell real from generated batches apart
    whatever the frames look like, so none is the default."""
    region: Region = "frame"
    """What of the frame it looks at."""

    def __post_init__(self) -> None:
        check_types(self, "frame_discriminator")
        _check_widths("frame_discriminator.channels", self.channels)


@dataclass(frozen=True)
class SequenceDiscriminatorConfig:
    """Widths of a :class:`~stillspeak.models.discriminators.SequenceDiscriminator`."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of the image encoder's strided layers."""
    image_dim: int = 256
    audio_channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    audio_dim: int = 256
    state_dim: int = 256
    """Size of the two-layer GRU's state and of the classifier's hidden layer."""
    norm: Norm = "none"
    region: Region = "frame"

    def __post_init__(self) -> None:
        check_types(self, "sequence_discriminator")
        _check_widths("sequence_discriminator.channels", self.channels)
        _check_widths("sequence_discriminator.audio_channels", self.audio_channels)
        for name in ("image_dim", "audio_dim", "state_dim"):
            if not 1 <= getattr(self, name) <= WIDEST:
                raise ConfigError(f"sequence_discriminator.{name} must lie in 1..{WIDEST}")


@dataclass(frozen=True)
class SyncDiscriminatorConfig:
    """Widths of a :class:`~stillspeak.models.discriminators.SyncDiscriminator`."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the strided layers over the stacked frames."""
    image_dim: int = 256
    audio_channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    audio_dim: int = 256
    norm: Norm = "none"
    region: Region = "lower"

    def __post_init__(self) -> None:
        check_types(self, "sync_discriminator")
        _check_widths("sync_discriminator.channels", self.channels)
        _check_widths("sync_discriminator.audio_channels", self.audio_channels)
        for name in ("image_dim", "audio_dim"):
            if not 1 <= getattr(self, name) <= WIDEST:
                raise ConfigError(f"sync_discriminator.{name} must lie in 1..{WIDEST}")


def sync_frames(generator: GeneratorConfig) -> int:
    """How many frames the sync discriminator sees: 5 at 25 a second."""
    return round(SYNC_SECONDS * generator.fps)


def _check_widths(name: str, widths: tuple[int, ...]) -> None:
    if not widths or min(widths) < 1:
        raise ConfigError(f"{name} must be a list of positive widths")
    if max(widths) > WIDEST or len(widths) > DEEPEST:
        raise ConfigError(f"{name} must be at most {DEEPEST} widths of at most {WIDEST}")


def check_types(config: Any, name: str) -> None:
    """See that a configuration's values have their defaults' types.

    A table of a weights file comes here as it is: nothing has looked at it.

    Raises:
        ConfigError: the first that has not, e.g. a text where a number should be.
    """
    for one in fields(config):
        value, usual = getattr(config, one.name), one.default
        if usual is MISSING:  # a configuration of its own, which checks itself
            fine = is_dataclass(value)
        elif isinstance(usual, float):
            fine = type(value) in (int, float)
        elif isinstance(usual, tuple):
            fine = type(value) is tuple and all(type(one) is int for one in value)
        else:
            fine = type(value) is type(usual)
        if not fine:
            kind = "a list of whole numbers" if isinstance(usual, tuple) else type(usual).__name__
            raise ConfigError(f"{name}.{one.name} is not {kind}")
