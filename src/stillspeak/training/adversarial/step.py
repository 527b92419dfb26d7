"""One adversarial step: the generator and its discriminators learn from the same batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from stillspeak.data.dataset import AudioBatch, Batch
from stillspeak.system.runtime import Precision
from stillspeak.training.adversarial.discriminators import (
    DiscriminatorOutput,
    Draw,
    make_adversaries,
)
from stillspeak.training.config import RunConfig
from stillspeak.training.loop import check_finite
from stillspeak.training.objective import GeneratorObjective, ObjectiveResult
from stillspeak.training.optimization import (
    EMA,
    OptimizerState,
    decay,
    freeze_norms,
    generator_optimizer,
    learning_rate,
    pixel_variance,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class AdversarialStep:
    """The generator, its EMA, the discriminators and their optimizers, a step at a time. An epoch
    sees as many examples as there are clips."""

    def __init__(
        self, config: RunConfig, fabric: Fabric, *, clips: int, precision: Precision
    ) -> None:
        self.config = config
        self.step = 0
        self._fabric = fabric
        self._clips = clips

        torch.manual_seed(config.training.seed)
        objective = GeneratorObjective(config)
        if config.training.channels_last:
            # Not the objective: its regions have five dimensions, which have no such format.
            objective.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = EMA(objective.generator, config.training.ema)
        self.ema.module.to(fabric.device)
        clip_norm = config.training.clip_norm
        # One pass over the weights instead of eight; but one that undoes float16's loss scaling
        # itself, of which the norm could not be known before.
        self._fused = precision.name != "16-mixed"
        module, wrapped = fabric.setup(
            objective, generator_optimizer(objective, config.training, fused=self._fused)
        )
        self.objective = objective
        self.generator = OptimizerState("generator", module, wrapped, clip_norm)
        self.adversaries = make_adversaries(config)
        if config.training.channels_last:
            for adversary in self.adversaries:
                adversary.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminators: list[OptimizerState] = []
        for adversary in self.adversaries:
            groups = [{"params": list(adversary.parameters()), "name": adversary.name}]
            rate, betas = adversary.learning_rate, config.adversarial.betas
            optimizer = torch.optim.Adam(groups, lr=rate, betas=betas, fused=self._fused)
            module, wrapped = fabric.setup(adversary, optimizer)
            self.discriminators.append(OptimizerState(adversary.name, module, wrapped, clip_norm))

    def train_step(self, batches: Sequence[Batch | AudioBatch]) -> dict[str, float]:
        """One step of every network; advances :attr:`step`.

        All discriminators see the same generated frames and all weights change at the same
        time, so a step costs the generator one pass. The batches' gradients are added up.

        Returns:
            Numbers by name, means over the batches: the loss and its terms, norms of gradients,
            each discriminator's loss and accuracy, and variances relative to real frames.

        Raises:
            TrainingError: a loss or a gradient is NaN or infinite; the weights stay as they were.
        """
        states = [self.generator]
        if self.is_adversarial and isinstance(batches[0], Batch):
            states += self.discriminators
        for state in states:
            state.clear()
            state.module.train()
        frozen_from = self.config.training.freeze_norms_from
        if frozen_from is not None and self.step >= frozen_from:
            freeze_norms(self.objective)
        values: dict[str, float] = {}
        for index, batch in enumerate(batches):
            numbers = self._backward(
                self._fabric.to_device(batch),
                states[1:],
                part=self.parts[index],
                share=1 / len(batches),
                last=index == len(batches) - 1,
            )
            for name, value in numbers.items():
                values[name] = values.get(name, 0.0) + value / len(batches)
        for state in states:
            prefix = "" if state is self.generator else f"{state.name}_"
            values[f"{prefix}gradient_norm"] = state.norm(self._fabric)
        self._check_finite(values)
        for state in states:
            state.update(self.rates(state))
        scaler = loss_scaler(self._fabric)
        if scaler is not None:
            scaler.update()
        self.step += 1
        self.ema.update(self.objective.generator, self.step)
        return values

    def _backward(
        self,
        batch: Batch | AudioBatch,
        discriminators: Sequence[OptimizerState],
        *,
        part: int,
        share: float,
        last: bool,
    ) -> dict[str, float]:
        """Gradients of all networks from one batch, each loss checked before it goes backwards.
        Returns numbers by name."""
        fabric, generator = self._fabric, self.generator
        numbers: dict[str, float] = {}

        def note(terms: Mapping[str, Tensor]) -> None:
            means = torch.stack([term.detach().float() for term in terms.values()]).tolist()
            new = self._together(dict(zip(terms, means, strict=True)))
            self._check_finite(new)
            numbers.update(new)

        with fabric.no_backward_sync(cast(Any, generator.module), not last):
            result: ObjectiveResult = generator.module(batch, self._noise(batch, part))
            loss, terms, frames = result.loss, dict(result.terms), result.frames
            draws: list[Draw] = []
            if isinstance(batch, Batch):
                assert frames is not None
                with torch.no_grad():
                    terms["variance"] = pixel_variance(frames) / pixel_variance(batch.frames)
                if discriminators:
                    random = self._random(4, part)
                    draws = [adversary.draw(batch, random) for adversary in self.adversaries]
                    adversarial, weighted = self.generator_terms(batch, frames, draws)
                    terms |= adversarial
                    loss = loss + weighted
            note(terms | {"loss": loss})
            fabric.backward(loss * share)
        since = self.step - self.config.adversarial_start
        penalise = since % self.config.adversarial.r1_every == 0
        for state, draw in zip(discriminators, draws, strict=True):
            assert isinstance(batch, Batch) and frames is not None
            with fabric.no_backward_sync(cast(Any, state.module), not last):
                output: DiscriminatorOutput = state.module(batch, frames.detach(), draw, penalise)
                note({f"{state.name}_{name}": v for name, v in output.terms.items()})
                fabric.backward(output.loss * share)
        return numbers

    def generator_terms(
        self, batch: Batch, frames: Tensor, draws: Sequence[Draw]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The discriminators' terms of the generator's loss, and their weighted sum."""
        weights = self.config.adversarial
        terms: dict[str, Tensor] = {}
        total = batch.frames.new_zeros(())
        for adversary, draw in zip(self.adversaries, draws, strict=True):
            # Called without its distributed wrapper, and without gradients for its weights.
            adversary.requires_grad_(False)
            with self._fabric.autocast():
                own = adversary.generator_terms(batch, frames, draw)
            adversary.requires_grad_(True)
            terms |= own
            for name, term in own.items():
                total = total + self.fade * getattr(weights, name) * term
        return terms, total

    # --- what a step depends on ---------------------------------------------------------

    @property
    def parts(self) -> list[int]:
        """Which parts of a step's examples this process sees, one batch each."""
        rank, world = self._fabric.global_rank, self._fabric.world_size
        return list(range(rank, self.config.training.accumulate * world, world))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many examples are seen as there are clips."""
        training = self.config.training
        a_step = self.config.data.batch * training.accumulate * self._fabric.world_size
        return math.ceil(self._clips / a_step)

    def _random(self, purpose: int, part: int) -> torch.Generator:
        """Random numbers that depend on seed, step and part alone, so that nothing about them
        has to be saved."""
        seed = np.random.SeedSequence((self.config.training.seed, purpose, self.step, part))
        return torch.Generator().manual_seed(int(seed.generate_state(1)[0]))

    def _noise(self, batch: Batch | AudioBatch, part: int) -> Tensor:
        clips, frames = batch.windows.shape[:2]
        return self.objective.generator.draw_noise(clips, frames, self._random(3, part))

    def rates(self, state: OptimizerState) -> dict[str, float]:
        """The learning rates of an optimizer by group."""
        training, step, epoch = self.config.training, self.step, self.steps_per_epoch
        if state is self.generator:
            groups = ("audio", "frames")
            return {g: learning_rate(training, step, g, steps_per_epoch=epoch) for g in groups}
        (rate,) = (a.learning_rate for a in self.adversaries if a.name == state.name)
        fixed = training.decay == "epoch" and state.name == "sequence"  # paper, section 2.3
        return {state.name: rate if fixed else rate * decay(training, step, epoch)}

    @property
    def is_adversarial(self) -> bool:
        """Whether the discriminators have entered, where there are any."""
        return self.step >= self.config.adversarial_start

    @property
    def fade(self) -> float:
        """How much of their weights the adversarial terms have."""
        steps = self.config.adversarial.fade
        return min((self.step - self.config.adversarial_start + 1) / steps, 1.0) if steps else 1.0

    # --- between processes --------------------------------------------------------------

    def _check_finite(self, values: Mapping[str, float]) -> None:
        check_finite(values, self.step, scaled=loss_scaler(self._fabric) is not None)

    def _together(self, values: dict[str, float]) -> dict[str, float]:
        """Means over all processes, so that all processes decide alike."""
        if self._fabric.world_size == 1:
            return values
        numbers = torch.tensor(list(values.values()), device=self._fabric.device)
        mean = self._fabric.all_reduce(numbers, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return dict(zip(values, mean.tolist(), strict=True))


def loss_scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
    return scaler


def scaler_state(fabric: Fabric) -> dict[str, Any]:
    scaler = loss_scaler(fabric)
    return dict(scaler.state_dict()) if scaler is not None else {}


def load_scaler_state(fabric: Fabric, state: Mapping[str, Any]) -> None:
    scaler = loss_scaler(fabric)
    if scaler is not None and state:
        scaler.load_state_dict(dict(state))
