"""What a training run is made of, one frozen dataclass a component.

``stillspeak train --config FILE`` reads a TOML file with the tables ``[generator]``,
``[data]``, ``[augment]``, ``[objective]``, ``[adversarial]`` with one table a discriminator,
``[training]`` and ``[watch]``; see ``configs/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.errors import ConfigError
from stillspeak.models.config import (
    FrameDiscriminatorConfig,
    GeneratorConfig,
    SequenceDiscriminatorConfig,
    SyncDiscriminatorConfig,
    sync_frames,
)
from stillspeak.system.configuration import BelowOne, Share, build, configuration

LossForm = Literal["log", "minimax", "hinge", "least_squares"]


@configuration("objective")
class ObjectiveConfig:
    """Weights of the generator's loss terms."""

    upper: NonNegativeFloat = 1.0
    """Weight of the L1 error on the upper half of the frame."""
    lower: NonNegativeFloat = 3.0
    mouth: NonNegativeFloat = 5.0
    eyes: NonNegativeFloat = 0.0
    """Weight of the L1 error around eyes and brows; 0: the upper half's."""
    l1: NonNegativeFloat = 1.0
    gradient: NonNegativeFloat = 0.5
    """L1 between the frames' horizontal and vertical differences."""
    mouth_shape: NonNegativeFloat = 0.05
    """Regression of mouth distances from the context encoding."""
    perceptual: NonNegativeFloat = 0.0
    """Distance between features of a network trained on photographs, around the mouth."""
    perceptual_weights: str = ""
    """Safetensors file with the weights of that network, VGG-16."""

    def __post_init__(self) -> None:
        if self.perceptual and not self.perceptual_weights:
            raise ConfigError("objective.perceptual needs objective.perceptual_weights")
        if not self.upper + self.lower + self.mouth > 0:
            raise ConfigError("objective.upper, .lower and .mouth cannot all be zero")


@configuration("adversarial")
class AdversarialConfig:
    """How discriminators are trained with the generator. A weight of 0 leaves one out.

    The paper minimises L_adv + 400 L1 (section 2.3, equation 3); with ``objective.l1 = 1`` the
    same balance has weights of 1/400 here.
    """

    frame: NonNegativeFloat = 0.0
    """Weight of the frame discriminator's term in the generator's loss."""
    sequence: NonNegativeFloat = 0.0
    sync: NonNegativeFloat = 0.0
    feature_matching: NonNegativeFloat = 0.0
    """L1 between the frame discriminator's features of real and of generated frames."""
    form: LossForm = "log"
    """``log``: the paper's log-likelihoods (equation 1), the generator maximising log D(G) as
    is usual, since the printed minimum of log(1 - D(G)) has no gradient where the
    discriminator is sure; ``minimax`` is the printed one. ``hinge`` and ``least_squares``
    replace both sides."""
    start: NonNegativeInt = 0
    """Step at which the discriminators enter; until then reconstruction is alone."""
    fade: NonNegativeInt = 0
    """Steps over which the generator's adversarial terms grow to their weights after that."""
    frames: NonNegativeInt = 0
    """Frames a clip that the frame discriminator judges, drawn uniformly (the paper's S(x));
    0: all."""
    sequence_min: NonNegativeInt = 0
    """Shortest clip that the sequence discriminator judges, lengths being drawn from here to
    the whole; 0: always the whole."""
    sync_min_shift: PositiveInt = 3
    """Frames by which sound is shifted at least to count as out of sync."""
    r1: NonNegativeFloat = 0.0
    """Weight of the gradient penalty on real frames (R1), in every discriminator."""
    r1_every: PositiveInt = 4
    """Steps between penalties, each then counting that many times."""
    frame_learning_rate: PositiveFloat = 1e-3
    sequence_learning_rate: PositiveFloat = 5e-5
    sync_learning_rate: PositiveFloat = 1e-4
    betas: tuple[BelowOne, BelowOne] = (0.5, 0.999)

    def __post_init__(self) -> None:
        if self.feature_matching and not self.frame:
            raise ConfigError("adversarial.feature_matching needs adversarial.frame")


@configuration("watch")
class WatchConfig:
    """When a run that goes wrong is stopped. Values are averages over ``steps``."""

    steps: PositiveInt = 500
    """Steps over which values are averaged before anything is decided."""
    accuracy: NonNegativeFloat = 0.999
    """A discriminator that is right more often than this has won; 0: no limit."""
    gradient: NonNegativeFloat = 1e5
    """Largest norm of a gradient before clipping; 0: no limit."""
    variance: NonNegativeFloat = 0.05
    """Least variance of generated pixels in an example, relative to real ones; 0: no limit."""


@configuration("training")
class TrainingConfig:
    """Optimisation, schedule and bookkeeping."""

    steps: PositiveInt = 20_000
    """Steps of the whole run, the audio warm start included."""
    audio_steps: NonNegativeInt = 0
    """First steps that train only the audio encoder, on mouth distances."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    audio_learning_rate: PositiveFloat = 0.3
    """Learning rate of the audio encoder while frames are trained, as a share: it has either
    had its warm start or comes with the weights that a run starts from."""
    audio_decay_from: Share = 1.0
    """Share of the audio warm start after which its rate falls along a cosine to 1 %."""
    betas: tuple[BelowOne, BelowOne] = (0.8, 0.98)
    weight_decay: NonNegativeFloat = 1e-4
    warmup_steps: NonNegativeInt = 50
    decay: Literal["cosine", "epoch"] = "cosine"
    """How rates fall: along a cosine to 1 % over the last steps, or as in the paper by a tenth
    every epoch after the twentieth (section 2.3); the sequence discriminator's never falls
    in the second."""
    decay_from: Share = 0.6
    """Share of the steps after which the rate falls along the cosine."""
    decay_epoch: NonNegativeInt = 20
    decay_rate: BelowOne = 0.1
    accumulate: PositiveInt = 1
    """Batches whose gradients are added up before a step."""
    clip_norm: NonNegativeFloat = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: BelowOne = 0.998
    """Decay of the exponential moving average of the weights, which is what is released."""
    freeze_norms_from: NonNegativeInt | None = None
    """Step from which the generator's batch norms use their running statistics and no longer
    renew them. Frames in a row are so alike that a batch's statistics are not those of the
    data, and the generator would be trained as something else than what is released."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = False
    seed: int = 1
    log_every: PositiveInt = 20
    validate_every: NonNegativeInt = 500
    """Steps between validations; 0: once every epoch."""
    checkpoint_minutes: PositiveFloat = 5.0
    keep_checkpoints: PositiveInt = 2
    patience: NonNegativeInt = 0
    """Validations without a better score after which the run stops; 0: never."""
    best: Literal["mouth_psnr", "reconstruction"] = "mouth_psnr"
    """What is best on the validation speakers: the highest PSNR of the mouth, or as in the
    paper the lowest reconstruction loss (L1 with the objective's weights of regions)."""

    def __post_init__(self) -> None:
        if self.audio_steps > self.steps:
            raise ConfigError("training.steps must hold training.audio_steps")


@configuration()
class RunConfig:
    """Everything that defines a training run."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    frame_discriminator: FrameDiscriminatorConfig = field(default_factory=FrameDiscriminatorConfig)
    sequence_discriminator: SequenceDiscriminatorConfig = field(
        default_factory=SequenceDiscriminatorConfig
    )
    sync_discriminator: SyncDiscriminatorConfig = field(default_factory=SyncDiscriminatorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        data, adversarial = self.data, self.adversarial
        if self.generator.decoder == "layers":
            raise ConfigError(
                "generator.decoder = 'layers' has no pictures to learn; its two parts are trained "
                "by configs/speech.toml and configs/pose.toml"
            )
        if (self.augment.audio_reverb or self.augment.audio_mask) and not data.resident:
            raise ConfigError(
                "augment.audio_reverb and .audio_mask are made with data.resident = true alone"
            )
        if adversarial.sequence or adversarial.sync:
            if not data.consecutive:
                raise ConfigError(
                    "adversarial.sequence and .sync judge frames in a row; set "
                    "data.consecutive = true"
                )
            if adversarial.sequence_min > data.decoded_frames:
                raise ConfigError("adversarial.sequence_min exceeds data.decoded_frames")
        if adversarial.sync:
            need = sync_frames(self.generator)
            if data.decoded_frames < need:
                raise ConfigError(f"adversarial.sync needs data.decoded_frames of {need} or more")
            # From a centre in the middle there must be somewhere to shift to.
            if data.window_frames < need + 2 * adversarial.sync_min_shift:
                raise ConfigError(
                    "data.window_frames leaves no room to shift by adversarial.sync_min_shift"
                )

    @property
    def adversarial_start(self) -> int:
        """First step of the discriminators, where there are any."""
        return max(self.adversarial.start, self.training.audio_steps)


def run_config(table: Mapping[str, Any], *, name: str) -> RunConfig:
    """Build and check a run's configuration; raises as ``build``."""
    return build(RunConfig, table, name=name)
