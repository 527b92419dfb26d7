"""The generator's configuration: sizes and widths, frozen and validated."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

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
from stillspeak.system.configuration import BelowOne, configuration

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
"""Fields of networks' configurations that older files still have; no network needs them."""

SYNC_SECONDS = 0.2
"""What the sync discriminator sees and hears at once."""

WIDEST = 4096
"""Of any layer. Bounds are far above what is used: a file must not ask for all memory."""

DEEPEST = 16
"""Layers in a row."""

LARGEST_MAPS = 2**26
"""Numbers in the feature maps of a frame or of an audio window."""

Width = Annotated[int, Field(strict=True, ge=1, le=WIDEST)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=DEEPEST)]
Rate = Annotated[int, Field(strict=True, ge=1, le=48_000)]
"""Samples, or frames, a second."""


@configuration("generator")
class GeneratorConfig:
    """Sizes and widths of a :class:`~stillspeak.models.generator.Generator`.

    The defaults are the paper's full-width model. Numbers that follow from others (hop,
    window in samples, latent size) are properties, never fields.

    Raises:
        ConfigError: a value that no generator can be built from.
    """

    decoder: DecoderName = "unet"
    height: Width = FRAME_HEIGHT
    width: Width = FRAME_WIDTH
    fps: Rate = VIDEO_FPS
    sample_rate: Rate = SAMPLE_RATE
    window_seconds: Annotated[float, Field(gt=0, lt=60)] = AUDIO_WINDOW_SECONDS
    identity_channels: Widths = (64, 128, 256, 512, 1024)
    """Channels of the identity encoder's strided layers, fine to coarse."""
    identity_dim: Width = 50
    audio_input: AudioInput = "waveform"
    """The audio encoder: ``waveform``, the paper's, learned with the pictures; or ``speech``, the
    one that has heard the world and says the mouth's pose (:mod:`stillspeak.models.speech`). With
    it the window follows from how far it looks ahead, and all other widths are unused."""
    speech: SpeechEncoderConfig = field(default_factory=SpeechEncoderConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)
    audio_channels: Widths = (16, 32, 64, 128, 256, 512)
    """Channels of the audio-frame encoder's layers, each but the first halving the time steps."""
    audio_dim: Width = 256
    audio_dropout: BelowOne = 0.0
    """Share of the audio-frame encodings' numbers that are left out while they are trained."""
    context_dim: Width = 256
    context_layers: Annotated[int, Field(strict=True, ge=0, le=DEEPEST)] = 2
    """Layers of the context GRU; 0 leaves it out: the static baseline, each frame on its own."""
    noise_dim: Annotated[int, Field(strict=True, ge=0, le=WIDEST)] = 10
    """Size of the noise encoding; 0 leaves the noise generator out."""
    noise_std: NonNegativeFloat = 0.33
    """Standard deviation of the noise GRU's input."""

    def __post_init__(self) -> None:
        levels = len(self.identity_channels)
        if (self.decoder == "layers") != (self.audio_input == "speech"):
            raise ConfigError(
                "generator.decoder = 'layers' and generator.audio_input = 'speech' go together: "
                "one says the mouth's pose, the other draws it"
            )
        if self.decoder == "layers" and self.noise_dim:
            raise ConfigError("generator.decoder = 'layers' needs generator.noise_dim = 0")
        if self.audio_input == "speech" and (self.sample_rate, self.fps) != (SPEECH_RATE, 25):
            raise ConfigError(
                "generator.audio_input = 'speech' needs 16 kHz and 25 frames a second"
            )
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
        if self.sample_rate % 1000:
            raise ConfigError(
                f"generator.sample_rate is {self.sample_rate} Hz; the audio encoder's strides "
                "need a whole number of kHz"
            )
        if self.sample_rate % self.fps:
            raise ConfigError("generator.sample_rate must be a multiple of generator.fps")
        if self.window < self.hop or (self.window - self.hop) % 2:
            raise ConfigError("generator.window_seconds must be an even margin around one frame")
        if self.audio_steps[-1] < 1:
            raise ConfigError("generator.window_seconds is too short for generator.audio_channels")
        # Of a frame, each level having half the rows and columns, and of an audio window.
        pixels = self.height * self.width
        maps = max(pixels // 4 * max(self.identity_channels), 3 * pixels)
        if max(maps, self.audio_steps[0] * max(self.audio_channels)) > LARGEST_MAPS:
            raise ConfigError("generator: so many pixels, samples and channels are too much memory")

    @property
    def hop(self) -> int:
        """Waveform samples in one video frame."""
        return self.sample_rate // self.fps

    @property
    def window(self) -> int:
        """Waveform samples N in one audio window, as many before the frame as after it."""
        if self.audio_input == "speech":
            # The frame's second token needs the layers' looks ahead and the stem's reach.
            return 2 * (TOKEN * (1 + self.speech.delay) + REACH) - self.hop
        return round(self.window_seconds * self.sample_rate)

    @property
    def audio_steps(self) -> tuple[int, ...]:
        """Time steps left after each layer of the audio-frame encoder."""
        milliseconds = self.window * 1000 // self.sample_rate
        return tuple(milliseconds >> layer for layer in range(len(self.audio_channels)))

    @property
    def coarse_size(self) -> tuple[int, int]:
        """Height and width of the coarsest identity map: 4 x 3 for a 128 x 96 frame."""
        scale = 2 ** len(self.identity_channels)
        return self.height // scale, self.width // scale

    @property
    def latent_dim(self) -> int:
        """Size of the joined latent: context, noise and identity encodings, expression."""
        return self.context_dim + self.noise_dim + self.identity_dim


@configuration("frame_discriminator")
class FrameDiscriminatorConfig:
    """Widths of a :class:`~stillspeak.models.discriminators.FrameDiscriminator`.

    The paper gives six layers and the six-channel input (section 2.2.1); kernels, widths and
    normalisation were never published and are our choice.
    """

    channels: Widths = (64, 128, 256, 512, 1024)
    """Channels of the strided layers; one more layer judges."""
    norm: Norm = "none"
    """Of all layers but the first: batch statistics tell real from generated batches apart
    whatever the frames look like, so none is the default."""
    region: Region = "frame"
    """What of the frame it looks at."""


@configuration("sequence_discriminator")
class SequenceDiscriminatorConfig:
    """Widths of a :class:`~stillspeak.models.discriminators.SequenceDiscriminator`."""

    channels: Widths = (64, 128, 256, 512, 1024)
    """Channels of the image encoder's strided layers."""
    image_dim: Width = 256
    audio_channels: Widths = (16, 32, 64, 128, 256, 512)
    audio_dim: Width = 256
    state_dim: Width = 256
    """Size of the two-layer GRU's state and of the classifier's hidden layer."""
    norm: Norm = "none"
    region: Region = "frame"


@configuration("sync_discriminator")
class SyncDiscriminatorConfig:
    """Widths of a :class:`~stillspeak.models.discriminators.SyncDiscriminator`."""

    channels: Widths = (64, 128, 256, 512)
    """Channels of the strided layers over the stacked frames."""
    image_dim: Width = 256
    audio_channels: Widths = (16, 32, 64, 128, 256, 512)
    audio_dim: Width = 256
    norm: Norm = "none"
    region: Region = "lower"


def sync_frames(generator: GeneratorConfig) -> int:
    """How many frames the sync discriminator sees: 5 at 25 a second."""
    return round(SYNC_SECONDS * generator.fps)
