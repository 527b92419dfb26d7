"""A network with its optimizer, its learning rate, and its moving average, which is released."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stillspeak.training.config import TrainingConfig
from stillspeak.training.objective import GeneratorObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class OptimizerState:
    """A network and its optimizer.

    A step has three parts, so that no weights change before all networks' gradients are known to
    be finite: gradients (by Fabric, once or more), :meth:`norm`, :meth:`update`.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    clip_norm: float

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def norm(self, fabric: Fabric) -> float:
        """The gradient's norm before clipping; clips."""
        # float16's loss scaling has to go before the norm means anything.
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        fabric.strategy.precision.unscale_gradients(inner)
        limit = self.clip_norm if self.clip_norm else math.inf
        return float(nn.utils.clip_grad_norm_(self.module.parameters(), limit))

    def update(self, rates: dict[str, float]) -> None:
        """The optimizer's step, with a learning rate for each of its groups."""
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group.get("name", self.name)]
        self.optimizer.step()


class EMA:
    """Exponential moving average of a module's parameters and running statistics."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards ``module``; early steps move faster, so that the start is forgotten."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        own, other = self.module.state_dict(), module.state_dict()
        for mean, value in zip(own.values(), other.values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean), weight)
            else:
                mean.copy_(value)


def freeze_norms(module: nn.Module) -> None:
    """Have all batch norms use their running statistics and leave them as they are, until the
    module is told to train again. Their scales and shifts go on learning."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eval()


def decay(training: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """What is left of the learning rates at a step, as a share."""
    if training.decay == "epoch":
        # Epochs are counted from 1, and the first after decay_epoch is lowered already.
        epochs = max(step // steps_per_epoch + 1 - training.decay_epoch, 0)
        return float((1 - training.decay_rate) ** epochs)
    return cosine(step, training.decay_from * training.steps, training.steps)


def cosine(step: int, start: float, end: int) -> float:
    """1 until ``start``, then along half a cosine to 0.01 at ``end``."""
    if step <= start:
        return 1.0
    along = (step - start) / max(end - start, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))


def learning_rate(
    training: TrainingConfig, step: int, group: str, *, steps_per_epoch: int = 1
) -> float:
    """The generator's learning rate of a group (``audio`` or ``frames``) at a step."""
    rate = training.learning_rate
    since = step
    if step < training.audio_steps:
        start = training.audio_decay_from * training.audio_steps
        rate *= cosine(step, start, training.audio_steps)
    else:
        since = step - training.audio_steps
        if group == "audio":
            rate *= training.audio_learning_rate
    if training.warmup_steps:
        rate *= min(1.0, (since + 1) / training.warmup_steps)
    return rate * decay(training, step, steps_per_epoch)


def generator_optimizer(
    objective: GeneratorObjective, training: TrainingConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """The generator's optimizer with its two groups, ``audio`` and ``frames``."""
    audio = objective.audio_parameters()
    known = {id(p) for p in audio}
    frames = [p for p in objective.parameters() if id(p) not in known]
    groups = [{"params": audio, "name": "audio"}, {"params": frames, "name": "frames"}]
    rate, betas = training.learning_rate, training.betas
    if training.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=betas, fused=fused)
    decay = training.weight_decay
    return torch.optim.AdamW(groups, lr=rate, betas=betas, weight_decay=decay, fused=fused)


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], *, fused: bool
) -> None:
    """Take over a saved state, but not whether the kernel was fused: that is this machine's."""
    groups = [{**group, "fused": fused} for group in state["param_groups"]]
    optimizer.load_state_dict({**state, "param_groups": groups})


def pixel_variance(frames: Tensor) -> Tensor:
    """Mean over examples and colours of the variance of pixels. (B, K, 3, H, W) -> ()."""
    return frames.var(dim=(1, 3, 4)).mean()
