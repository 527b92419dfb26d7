"""Training of an auxiliary network: one network, one loss, no discriminator outside of it.

What is learned is an :class:`AuxiliaryObjective`; :class:`AuxiliaryTraining` adapts it
to the :class:`~stillspeak.training.loop.TrainingLoop`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from stillspeak.data.cache import CachedClip
from stillspeak.errors import ConfigError
from stillspeak.system.configuration import BelowOne, Share, configuration
from stillspeak.training.loop import check_finite
from stillspeak.training.optimization import EMA, OptimizerState, cosine, load_optimizer
from stillspeak.training.runlog import RunLog

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class AuxiliaryObjective(Protocol):
    """What an auxiliary network learns."""

    name: str
    """What messages call the network."""
    network: nn.Module
    """All that learns; :meth:`export` writes the part that is released."""
    score: str
    """Which of :meth:`validate`'s numbers decides what is best."""
    higher_is_better: bool

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The examples of a step: a function of the seed and the step alone."""

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        """Scalars by name; ``loss`` is minimised."""

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """Numbers on clips that are not trained on; the network is in evaluation mode."""

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        """Write the weights file; ``info`` says how they were made."""


@configuration("training")
class AuxiliaryTrainingConfig:
    """Optimisation, schedule and bookkeeping: the ``[training]`` of an auxiliary network."""

    steps: PositiveInt = 4000
    learning_rate: PositiveFloat = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    weight_decay: NonNegativeFloat = 1e-4
    warmup_steps: NonNegativeInt = 100
    decay_from: Share = 0.5
    """Share of the steps after which the rate falls along a cosine to 1 %."""
    clip_norm: NonNegativeFloat = 5.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema: BelowOne = 0.998
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    seed: int = 1
    log_every: PositiveInt = 20
    validate_every: PositiveInt = 500
    checkpoint_minutes: PositiveFloat = 5.0
    keep_checkpoints: PositiveInt = 2

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * rise * cosine(step, self.decay_from * self.steps, self.steps)


class AuxiliaryTraining:
    """See :class:`~stillspeak.training.loop.Task`; in one process."""

    patience: tuple[int, str] = (0, "")

    def __init__(
        self,
        objective: AuxiliaryObjective,
        config: AuxiliaryTrainingConfig,
        fabric: Fabric,
        table: dict[str, Any],
    ) -> None:
        if fabric.world_size > 1:
            raise ConfigError(f"the {objective.name} is trained by one process; omit torchrun")
        self.objective = objective
        self.schedule = config
        self.table = table
        self.step = 0
        self.higher_is_better = objective.higher_is_better
        self._fabric = fabric
        network = objective.network.to(fabric.device)
        self.ema = EMA(network, config.ema)
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._optimizer = OptimizerState(objective.name, network, optimizer, config.clip_norm)

    def batches(self, steps: range) -> Iterator[tuple[Tensor, ...]]:
        yield from map(self.objective.batch, steps)

    def train_step(self, batch: tuple[Tensor, ...]) -> dict[str, float]:
        network, optimizer, config = self.objective.network, self._optimizer, self.schedule
        network.train()
        # What is random within the network depends on seed and step alone, so that a resumed
        # run equals a straight one.
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        optimizer.clear()
        with self._fabric.autocast():
            terms = self.objective.loss(network, self._fabric.to_device(batch), self.step)
        values = {name: float(term.detach()) for name, term in terms.items()}
        check_finite(values, self.step)
        torch.autograd.backward(terms["loss"])
        values["gradient_norm"] = optimizer.norm(self._fabric)
        check_finite(values, self.step)
        optimizer.update({optimizer.name: config.rate(self.step)})
        self.step += 1
        self.ema.update(network, self.step)
        return values

    def validation_is_due(self) -> bool:
        return self.step % self.schedule.validate_every == 0 or self.step == self.schedule.steps

    def validate(self, log: RunLog) -> tuple[Mapping[str, float], float | None]:
        scores = self.objective.validate(self.ema.module)
        return scores, scores.get(self.objective.score)

    def export(self, path: Path, info: Mapping[str, Any]) -> None:
        self.objective.export(self.ema.module, path, info)

    def state(self) -> dict[str, Any]:
        return {
            "network": self.objective.network.state_dict(),
            "average": self.ema.module.state_dict(),
            "optimizer": self._optimizer.optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.objective.network.load_state_dict(state["network"])
        self.ema.module.load_state_dict(state["average"])
        load_optimizer(self._optimizer.optimizer, state["optimizer"], fused=False)


def hold_out(
    examples: Sequence[T], count: int, clip_of: Callable[[T], CachedClip]
) -> tuple[list[T], list[T]]:
    """``count`` examples of the speaker who has the most, at most a quarter of these, and the rest
    in their order. Which are held out depends on the clips' names alone."""
    by_speaker: dict[str, list[T]] = defaultdict(list)
    for example in examples:
        by_speaker[clip_of(example).speaker].append(example)
    group = max((by_speaker[speaker] for speaker in sorted(by_speaker)), key=len)
    group.sort(key=lambda one: hashlib.sha256(clip_of(one).name.encode()).hexdigest())
    apart = group[: min(count, len(group) // 4)]
    taken = {id(example) for example in apart}
    return apart, [example for example in examples if id(example) not in taken]
