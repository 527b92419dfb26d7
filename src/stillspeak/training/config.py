"""What a training run is made of, one frozen dataclass a component.

``stillspeak train --config FILE`` reads a TOML file with the tables ``[generator]``,
``[data]``, ``[augment]``, ``[objective]`` and ``[training]``; see ``configs/``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from stillspeak.configuration import FORBID_UNKNOWN, build
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the generator's loss terms."""

    __pydantic_config__: ClassVar[dict[str, object]] = FORBID_UNKNOWN

    upper: float = 1.0
    """Weight of the L1 error on the upper half of the frame."""
    lower: float = 3.0
    mouth: float = 5.0
    l1: float = 1.0
    gradient: float = 0.5
    """L1 between the frames' horizontal and vertical differences."""
    warped: float = 0.25
    """L1 on the warped still alone (warp decoder)."""
    painted: float = 0.2
    """L1 on the painted colour alone (warp decoder)."""
    smooth: float = 0.002
    """First differences of the flow (warp decoder)."""
    mask: float = 0.003
    """Mean of the mask, except where the still hides the inside of the mouth: all else can come
    from the still (warp decoder)."""
    interior: float = 0.0
    """Share of the still's pixels where the target shows the inside of the mouth and the
    still does not; there the warped still is not compared either (warp decoder)."""
    landmarks: float = 0.0
    """Distance in pixels between where the flow takes each target landmark and where the
    still has it (warp decoder)."""
    lip_landmarks: float = 4.0
    """How much more the lips' landmarks count than the others."""
    amplitude: float = 0.0
    """Size of the lips' movements against the real one (warp decoder)."""
    mouth_shape: float = 0.05
    """Regression of mouth distances from the context encoding."""

    def __post_init__(self) -> None:
        for term in fields(self):
            if not 0 <= getattr(self, term.name) < math.inf:
                raise ConfigError(f"objective.{term.name} must be zero or a positive number")
        if not self.upper + self.lower + self.mouth > 0:
            raise ConfigError("objective.upper, .lower and .mouth cannot all be zero")


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
    """Learning rate of the audio encoder after its warm start, as a share."""
    betas: tuple[float, float] = (0.8, 0.98)
    weight_decay: float = 1e-4
    warmup_steps: int = 50
    decay_from: float = 0.6
    """Share of the steps after which the rate falls along a cosine to 1 % of itself."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is released."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = False
    seed: int = 1
    log_every: int = 20
    validate_every: int = 500
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    patience: int = 0
    """Validations without a better mouth PSNR after which the run stops; 0: never."""

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
        if not 0 <= self.decay_from <= 1:
            raise ConfigError("training.decay_from must lie in [0, 1]")
        if not self.checkpoint_minutes > 0:
            raise ConfigError("training.checkpoint_minutes must be positive")
        if not 0 <= self.ema < 1:
            raise ConfigError("training.ema must lie in [0, 1)")
        for name in ("log_every", "validate_every", "keep_checkpoints"):
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
    training: TrainingConfig = field(default_factory=TrainingConfig)


def run_config(table: Mapping[str, Any], *, name: str) -> RunConfig:
    """Build and check a run's configuration.

    Raises:
        ConfigError: an unknown key or a wrong value, with the key's name.
    """
    return build(RunConfig, table, name=name)
