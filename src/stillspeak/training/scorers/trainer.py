"""Training of the networks that measure: the lip reader and the sync network.

They are judges, not players: one network, one loss, real clips only. What is to be learned is
a :class:`Lesson`; the loop around it is the same for all of them. A run lives in a folder:
``config.json``, ``metrics.jsonl``, ``tensorboard/``, the newest checkpoints, and the weights
``best.safetensors`` (by the lesson's score on the validation speakers) and ``last.safetensors``.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from stillspeak.data.prepare import CachedClip
from stillspeak.errors import CheckpointError, ConfigError, TrainingError
from stillspeak.system.configuration import BelowOne, Share, configuration
from stillspeak.training.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from stillspeak.training.optimization import Average, load_optimizer
from stillspeak.training.runlog import RunLog
from stillspeak.training.signals import stop_signals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

Progress = Callable[[int, Mapping[str, float]], None]


class Lesson(Protocol):
    """What a measuring network has to learn."""

    name: str
    """What messages call the network."""
    network: nn.Module
    """All that learns; what of it is released is the lesson's business."""
    score: str
    """Which of :meth:`validate`'s numbers decides what is best."""
    higher_is_better: bool

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The examples of a step: a function of the lesson's seed and the step alone."""
        ...

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        """Scalars by name; ``loss`` is what falls."""
        ...

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """Numbers on clips that are not trained on; the network is in evaluation mode."""
        ...

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        """Write the weights file; ``info`` says how they were made."""
        ...


@configuration("training")
class LessonConfig:
    """Optimisation, schedule and bookkeeping: the ``[training]`` of a measuring network."""

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
        start = self.decay_from * self.steps
        along = min(max(step - start, 0) / max(self.steps - start, 1), 1.0)
        return self.learning_rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


class LessonTrainer:
    """The loop: steps, averaging, validation, checkpoints, and a clean way to stop.

    Args:
        lesson: what is learned.
        config: how.
        fabric: device and precision, launched; one process.
        folder: of the run.
        table: the whole configuration, as JSON values, for the checkpoints.
        info: what weights files of this run shall say besides.
    """

    def __init__(
        self,
        lesson: Lesson,
        config: LessonConfig,
        fabric: Fabric,
        folder: Path,
        *,
        table: Mapping[str, Any],
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if fabric.world_size > 1:
            raise ConfigError(f"the {lesson.name} is trained by one process; leave torchrun out")
        self.lesson = lesson
        self.config = config
        self.step = 0
        self.best: float | None = None
        self._fabric = fabric
        self._folder = folder
        self._table = dict(table)
        self._info = dict(info or {})
        self._seconds = 0.0
        self._stop_reason: str | None = None
        self._history: list[dict[str, Any]] = [
            {"from_step": 0, "command": self._info.get("command")}
        ]
        lesson.network.to(fabric.device)
        self.average = Average(lesson.network, config.ema)
        self._optimizer = torch.optim.AdamW(
            lesson.network.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def fit(self, *, minutes: float | None = None, progress: Progress | None = None) -> str:
        """Train until the last step, ``minutes`` are over, or a signal comes.

        Returns:
            Why it stopped, in words.

        Raises:
            TrainingError: the loss is no number any more; the last checkpoint is kept.
        """
        config = self.config
        start = saved = mark = time.monotonic()
        before, mark_step = self._seconds, self.step
        log = RunLog(self._folder, step=self.step)
        self._stop_reason = None
        try:
            with stop_signals(self._stop):
                while self.step < config.steps and self._stop_reason is None:
                    values = self.train_step()
                    now = time.monotonic()
                    self._seconds = before + now - start
                    if self.step % config.log_every == 0:
                        values["steps_per_second"] = (self.step - mark_step) / (now - mark)
                        values["seconds"] = self._seconds
                        mark, mark_step = now, self.step
                        log.metrics(self.step, "train", values)
                        if progress:
                            progress(self.step, values)
                    if self.step % config.validate_every == 0 or self.step == config.steps:
                        self._validate(log)
                    if minutes is not None and now - start >= 60 * minutes:
                        self._stop_reason = f"{minutes:g} minutes are over"
                    if now - saved >= 60 * config.checkpoint_minutes:
                        self.save()
                        saved = now
            self.save()
            self._export("last.safetensors", None)
        finally:
            log.close()
        return self._stop_reason or f"all {config.steps} steps are done"

    def train_step(self) -> dict[str, float]:
        """One step; advances :attr:`step`. Returns the losses and the gradient's norm.

        Raises:
            TrainingError: one of them is no number; the weights stay as they were.
        """
        fabric, network = self._fabric, self.lesson.network
        network.train()
        # What is random within the network depends on seed and step alone, so that a resumed
        # run is a straight one.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        batch = fabric.to_device(self.lesson.batch(self.step))
        self._optimizer.zero_grad(set_to_none=True)
        with fabric.autocast():
            terms = self.lesson.loss(network, batch, self.step)
        values = {name: float(term.detach()) for name, term in terms.items()}
        self._refuse_nonsense(values)
        torch.autograd.backward(terms["loss"])
        limit = self.config.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), limit))
        values["gradient_norm"] = norm
        self._refuse_nonsense(values)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self._optimizer.step()
        self.step += 1
        self.average.update(network, self.step)
        return values

    def _refuse_nonsense(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} at step {self.step + 1}; lower the learning rate"
                )

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason

    def _validate(self, log: RunLog) -> None:
        with torch.no_grad():
            scores = dict(self.lesson.validate(self.average.module))
        log.metrics(self.step, "validation", scores)
        score = scores.get(self.lesson.score)
        if score is None:
            return
        sign = 1 if self.lesson.higher_is_better else -1
        if self.best is None or sign * score > sign * self.best:
            self.best = score
            self._export("best.safetensors", scores)

    def _export(self, name: str, scores: Mapping[str, float] | None) -> None:
        info = {
            **self._info,
            "steps": self.step,
            "seconds": round(self._seconds),
            "validation": scores,
            "history": self._history,
            "run": self._table,
        }
        self.lesson.export(self.average.module, self._folder / name, info)

    def save(self) -> Path:
        """Write a whole-state checkpoint and drop the oldest ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = checkpoint_path(self._folder, self.step)
        save_checkpoint(
            path,
            {
                "config": self._table,
                "step": self.step,
                "best": self.best,
                "seconds": self._seconds,
                "history": self._history,
                "network": self.lesson.network.state_dict(),
                "average": self.average.module.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            },
        )
        prune_checkpoints(self._folder, self.config.keep_checkpoints)
        return path

    def resume(self) -> int:
        """Go on from the newest checkpoint in the run's folder. Returns its step.

        Raises:
            CheckpointError: there is none, or it is of another network.
        """
        path = latest_checkpoint(self._folder)
        if path is None:
            raise CheckpointError(f"{self._folder}: holds no checkpoint; start without --resume")
        state = load_checkpoint(path)
        try:
            self.lesson.network.load_state_dict(state["network"])
            self.average.module.load_state_dict(state["average"])
            load_optimizer(self._optimizer, state["optimizer"], fused=False)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: is of another network; resume with the run's own configuration, or "
                "start a new run"
            ) from error
        self.step = int(state["step"])
        self.best = None if state["best"] is None else float(state["best"])
        self._seconds = float(state["seconds"])
        changed = {
            section: values
            for section, values in self._table.items()
            if state["config"].get(section) != values
        }
        chapter = {"from_step": self.step, "command": self._info.get("command")}
        self._history = [*state["history"], chapter | ({"changed": changed} if changed else {})]
        return self.step


def hold_out(
    examples: Sequence[T], count: int, clip_of: Callable[[T], CachedClip]
) -> tuple[list[T], list[T]]:
    """Some clips of the speaker who has the most, and all others.

    Args:
        examples: clips, or what was loaded of them.
        count: how many to hold out; never more than a quarter of the speaker's.
        clip_of: the clip of an example.

    Returns:
        Those held out, which depend on the clips' names alone, and the rest in their order.
    """
    by_speaker: dict[str, list[T]] = defaultdict(list)
    for example in examples:
        by_speaker[clip_of(example).speaker].append(example)
    deepest = max(sorted(by_speaker), key=lambda speaker: len(by_speaker[speaker]))

    def order(example: T) -> str:
        return hashlib.sha256(clip_of(example).name.encode()).hexdigest()

    group = sorted(by_speaker[deepest], key=order)
    apart = group[: min(count, len(group) // 4)]
    taken = {id(example) for example in apart}
    return apart, [example for example in examples if id(example) not in taken]
