"""What a training run is made of, one frozen dataclass a component.

``stillspeak train --config FILE`` reads a TOML file with the tables ``[generator]``,
``[data]``, ``[augment]``, ``[objective]``, ``[adversarial]`` with one table a discriminator,
``[training]`` and ``[watch]``; see ``configs/``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.errors import ConfigError
from stillspeak.models.config import (
    FrameDiscriminatorConfig,
    GeneratorConfig,
    SequenceDiscriminatorConfig,
    SyncDiscriminatorConfig,
    sync_frames,
)
from stillspeak.system.configuration import FORBID_UNKNOWN, build

GameForm = Literal["log", "minimax", "hinge", "least_squares"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the generator's loss terms."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    upper: float = 1.0
    """Weight of the L1 error on the upper half of the frame."""
    lower: float = 3.0
    mouth: float = 5.0
    eyes: float = 0.0
    """Weight of the L1 error around eyes and brows; 0: the upper half's."""
    l1: float = 1.0
    gradient: float = 0.5
    """L1 between the frames' horizontal and vertical differences."""
    mouth_shape: float = 0.05
    """Regression of mouth distances from the context encoding."""
    perceptual: float = 0.0
    """Distance between features of a network trained on photographs, around the mouth."""
    perceptual_weights: str = ""
    """Safetensors file with the weights of that network, VGG-16."""

    def __post_init__(self) -> None:
        for term in fields(self):
            value = getattr(self, term.name)
            if isinstance(value, float | int) and not 0 <= value < math.inf:
                raise ConfigError(f"objective.{term.name} must be zero or a positive number")
        if self.perceptual and not self.perceptual_weights:
            raise ConfigError("objective.perceptual needs objective.perceptual_weights")
        if not self.upper + self.lower + self.mouth > 0:
            raise ConfigError("objective.upper, .lower and .mouth cannot all be zero")


@dataclass(frozen=True)
class AdversarialConfig:
    """The game between generator and discriminators. A weight of 0 leaves a discriminator out.

    The paper minimises L_adv + 400 L1 (section 2.3, equation 3); with ``objective.l1 = 1`` the
    same balance has weights of 1/400 here.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    frame: float = 0.0
    """Weight of the frame discriminator's term in the generator's loss."""
    sequence: float = 0.0
    sync: float = 0.0
    feature_matching: float = 0.0
    """L1 between what the frame discriminator's layers make of real and generated frames."""
    form: GameForm = "log"
    """``log``: the paper's log-likelihoods (equation 1), the generator maximising log D(G) as
    is usual, since the printed minimum of log(1 - D(G)) has no gradient where the
    discriminator is sure; ``minimax`` is the printed one. ``hinge`` and ``least_squares``
    replace both sides."""
    start: int = 0
    """Step at which the discriminators enter; until then reconstruction is alone."""
    fade: int = 0
    """Steps over which the generator's adversarial terms grow to their weights after that."""
    frames: int = 0
    """Frames a clip that the frame discriminator judges, drawn uniformly (the paper's S(x));
    0: all."""
    sequence_min: int = 0
    """Shortest clip that the sequence discriminator judges, lengths being drawn from here to
    the whole; 0: always the whole."""
    sync_min_shift: int = 3
    """Frames by which sound is shifted at least to count as out of sync."""
    r1: float = 0.0
    """Weight of the gradient penalty on real frames (R1), in every discriminator."""
    r1_every: int = 4
    """Steps between penalties, each then counting that many times."""
    frame_learning_rate: float = 1e-3
    sequence_learning_rate: float = 5e-5
    sync_learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        for name in ("frame", "sequence", "sync", "feature_matching", "r1"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"adversarial.{name} must be zero or a positive number")
        if self.feature_matching and not self.frame:
            raise ConfigError("adversarial.feature_matching needs adversarial.frame")
        for name in ("start", "fade", "frames", "sequence_min"):
            if getattr(self, name) < 0:
                raise ConfigError(f"adversarial.{name} cannot be negative")
        for name in ("sync_min_shift", "r1_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"adversarial.{name} must be at least 1")
        for name in ("frame_learning_rate", "sequence_learning_rate", "sync_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"adversarial.{name} must be positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("adversarial.betas must lie in [0, 1)")


@dataclass(frozen=True)
class WatchConfig:
    """When a run that goes wrong is stopped. Values are averages over ``steps``."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    steps: int = 500
    """Steps over which values are averaged before anything is judged."""
    accuracy: float = 0.999
    """A discriminator that is right more often than this has won the game; 0: no limit."""
    gradient: float = 1e5
    """Largest norm of a gradient before clipping; 0: no limit."""
    variance: float = 0.05
    """Least variance of generated pixels in an example, relative to real ones; 0: no limit."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError("watch.steps must be at least 1")
        for name in ("accuracy", "gradient", "variance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"watch.{name} must be zero or a positive number")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, schedule and bookkeeping."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    steps: int = 20_000
    """Steps of the whole run, the audio warm start included."""
    audio_steps: int = 0
    """First steps that train only the audio encoder, on mouth distances."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    audio_learning_rate: float = 0.3
    """Learning rate of the audio encoder while frames are trained, as a share: it has either
    had its warm start or comes with the weights that a run starts from. 0: it stays as it is, its
    norms' statistics included."""
    audio_decay_from: float = 1.0
    """Share of the audio warm start after which its rate falls along a cosine to 1 %."""
    betas: tuple[float, float] = (0.8, 0.98)
    weight_decay: float = 1e-4
    warmup_steps: int = 50
    decay: Literal["cosine", "epoch"] = "cosine"
    """How rates fall: along a cosine to 1 % over the last steps, or as in the paper by a tenth
    every epoch after the twentieth (section 2.3); the sequence discriminator's never falls
    in the second."""
    decay_from: float = 0.6
    """Share of the steps after which the rate falls along the cosine."""
    decay_epoch: int = 20
    decay_rate: float = 0.1
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    fresh: tuple[str, ...] = ()
    """Parts of the generator, by their names in it, that ``--from`` does not take over."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is released."""
    freeze_norms_from: int | None = None
    """Step from which the generator's batch norms use their running statistics and no longer
    renew them. Frames in a row are so alike that a batch's statistics are not those of the
    data, and the generator would be trained as something else than what is released."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = False
    seed: int = 1
    log_every: int = 20
    validate_every: int = 500
    """Steps between validations; 0: once every epoch."""
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    patience: int = 0
    """Validations without a better score after which the run stops; 0: never."""
    best: Literal["mouth_psnr", "reconstruction"] = "mouth_psnr"
    """What is best on the validation speakers: the highest PSNR of the mouth, or as in the
    paper the lowest reconstruction loss (L1 with the objective's weights of regions)."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.audio_steps <= self.steps:
            raise ConfigError("training.steps must be positive and hold training.audio_steps")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError("training.learning_rate must be positive")
        for name in ("audio_learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"training.{name} must be zero or a positive number")
        for name in ("warmup_steps", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.{name} cannot be negative")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("training.betas must lie in [0, 1)")
        for name in ("decay_from", "audio_decay_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"training.{name} must lie in [0, 1]")
        if not self.checkpoint_minutes > 0:
            raise ConfigError("training.checkpoint_minutes must be positive")
        if not 0 <= self.ema < 1:
            raise ConfigError("training.ema must lie in [0, 1)")
        if self.freeze_norms_from is not None and self.freeze_norms_from < 0:
            raise ConfigError("training.freeze_norms_from cannot be negative")
        if self.validate_every < 0 or self.decay_epoch < 0:
            raise ConfigError("training.validate_every and training.decay_epoch cannot be negative")
        if not 0 <= self.decay_rate < 1:
            raise ConfigError("training.decay_rate must lie in [0, 1)")
        for name in ("log_every", "keep_checkpoints", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} must be at least 1")


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a training run."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

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
        data, game = self.data, self.adversarial
        if self.generator.decoder == "layers":
            raise ConfigError(
                "generator.decoder = 'layers' has no pictures to learn; its two parts are trained "
                "by configs/speech.toml and configs/pose.toml"
            )
        if (self.augment.audio_reverb or self.augment.audio_mask) and not data.resident:
            raise ConfigError(
                "augment.audio_reverb and .audio_mask are made with data.resident = true alone"
            )
        if game.sequence or game.sync:
            if not data.consecutive:
                raise ConfigError(
                    "adversarial.sequence and .sync judge frames in a row; set "
                    "data.consecutive = true"
                )
            if game.sequence_min > data.decoded_frames:
                raise ConfigError("adversarial.sequence_min exceeds data.decoded_frames")
        if game.sync:
            need = sync_frames(self.generator)
            if data.decoded_frames < need:
                raise ConfigError(f"adversarial.sync needs data.decoded_frames of {need} or more")
            # From a centre in the middle there must be somewhere to shift to.
            if data.window_frames < need + 2 * game.sync_min_shift:
                raise ConfigError(
                    "data.window_frames leaves no room to shift by adversarial.sync_min_shift"
                )

    @property
    def game_start(self) -> int:
        """First step of the discriminators, where there are any."""
        return max(self.adversarial.start, self.training.audio_steps)


def run_config(table: Mapping[str, Any], *, name: str) -> RunConfig:
    """Build and check a run's configuration.

    Raises:
        ConfigError: an unknown key or a wrong value, with the key's name.
    """
    return build(RunConfig, table, name=name)
