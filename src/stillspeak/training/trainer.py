"""The training loop: steps, averaging, validation, checkpoints, and a clean way to stop."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stillspeak.configuration import to_table
from stillspeak.data.dataset import (
    AudioBatch,
    Batch,
    Prefetcher,
    TrainingData,
)
from stillspeak.data.prepare import CachedClip
from stillspeak.errors import CheckpointError, TrainingError
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.models.generator import Generator
from stillspeak.runtime import Precision
from stillspeak.training.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from stillspeak.training.config import RunConfig, TrainingConfig
from stillspeak.training.objective import GeneratorObjective, ObjectiveResult
from stillspeak.training.runlog import RunLog
from stillspeak.training.validation import Validation, validate
from stillspeak.weights import save_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class Player:
    """One network with its optimiser. The generator is one; each discriminator will be."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    clip_norm: float

    def update(self, fabric: Fabric, loss: Tensor, rate: Callable[[str], float]) -> float:
        """One optimiser step. Returns the gradient's norm before clipping.

        Raises:
            FloatingPointError: the loss or the gradient is no number; the weights stay as
                they were.
        """
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {float(loss.detach())}")
        self.optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(group["name"])
        # float16's loss scaling has to go before the norm means anything.
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        fabric.strategy.precision.unscale_gradients(inner)
        norm = float(
            nn.utils.clip_grad_norm_(
                self.module.parameters(), self.clip_norm if self.clip_norm else math.inf
            )
        )
        # Under loss scaling an overflow is normal: the scaler leaves the step out.
        if not math.isfinite(norm) and _scaler(fabric) is None:
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        self.optimizer.step()
        return norm


class Average:
    """Exponential moving average of a module's parameters and running statistics."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards ``module``; early steps move faster, so that the start is forgotten."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, value in zip(
            self.module.state_dict().values(), module.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean), weight)
            else:
                mean.copy_(value)


class Trainer:
    """Trains a generator.

    A run lives in a folder: ``config.json``, ``metrics.jsonl``, ``tensorboard/``,
    ``samples/``, the newest checkpoints, ``best.safetensors`` (by mouth PSNR on the
    validation speakers) and ``last.safetensors``.

    Args:
        config: everything that defines the run.
        fabric: device and precision, launched.
        data: of the training speakers.
        validation: clips of the validation speakers.
        folder: of the run.
        precision: what Fabric was given and why; logged.
        info: what every weights file of this run shall say about its making.
    """

    def __init__(
        self,
        config: RunConfig,
        fabric: Fabric,
        data: TrainingData,
        validation: Sequence[CachedClip],
        folder: Path,
        *,
        precision: Precision,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.step = 0
        self.best = -math.inf
        self.stale = 0
        self._fabric = fabric
        self._data = data
        self._validation = list(validation)
        self._folder = folder
        self._precision = precision
        self._info = dict(info or {})
        self._seconds = 0.0
        self._stop_reason: str | None = None
        self._history = [self._chapter(None)]

        torch.manual_seed(config.training.seed)
        objective = GeneratorObjective(config)
        if config.training.channels_last:
            objective = objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(objective.generator, config.training.ema)
        self.average.module.to(fabric.device)
        optimizer = _optimizer(objective, config.training)
        module, wrapped = fabric.setup(objective, optimizer)
        self._objective = objective
        self.generator_player = Player("generator", module, wrapped, config.training.clip_norm)

    # --- the run ------------------------------------------------------------------------

    def fit(
        self,
        *,
        minutes: float | None = None,
        progress: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> str:
        """Train until the last step, ``minutes`` are over, patience ends, or a signal comes.

        Returns:
            Why it stopped, in words.

        Raises:
            TrainingError: the loss is no number any more; the last good state is kept.
        """
        training = self.config.training
        start = time.monotonic()
        deadline = math.inf if minutes is None else start + 60 * minutes
        seconds_before = self._seconds
        saved_at = start
        log = RunLog(self._folder, step=self.step)
        loader = Prefetcher(
            self._data,
            range(self.step, training.steps),
            audio_steps=training.audio_steps,
            rank=self._fabric.global_rank,
        )
        self._stop_reason = None
        mark, mark_step = start, self.step
        try:
            with self._signals():
                for batch in loader:
                    result, norm = self.train_step(batch)
                    now = time.monotonic()
                    self._seconds = seconds_before + now - start
                    if self.step % training.log_every == 0:
                        values = {name: float(term.detach()) for name, term in result.terms.items()}
                        values |= {
                            "loss": float(result.loss.detach()),
                            "gradient_norm": norm,
                            "steps_per_second": (self.step - mark_step) / (now - mark),
                            "seconds": self._seconds,
                        }
                        mark, mark_step = now, self.step
                        log.metrics(self.step, "train", values)
                        if progress:
                            progress(self.step, values)
                    if self.step % training.validate_every == 0 and self._past_audio:
                        self._validate(log)
                    if now >= deadline:
                        self._stop_reason = f"{minutes:g} minutes are over"
                    if self._stop_reason:
                        break
                    if now - saved_at >= 60 * training.checkpoint_minutes:
                        self.save()
                        saved_at = now
            self.save()
            if self._past_audio:
                self._export("last.safetensors", None)
        finally:
            loader.close()
            log.close()
        return self._stop_reason or f"all {training.steps} steps are done"

    def train_step(self, batch: Batch | AudioBatch) -> tuple[ObjectiveResult, float]:
        """One step of every player; advances :attr:`step`."""
        batch = self._fabric.to_device(batch)
        player = self.generator_player
        player.module.train()
        result: ObjectiveResult = player.module(batch, self._noise(batch))
        try:
            norm = player.update(self._fabric, result.loss, self._rate)
        except FloatingPointError as error:
            raise TrainingError(
                f"{error} at step {self.step + 1}; the last good state is in {self._folder}; "
                "lower training.learning_rate and resume"
            ) from error
        self.step += 1
        self.average.update(self._objective.generator, self.step)
        return result, norm

    # --- what a step depends on ---------------------------------------------------------

    def _noise(self, batch: Batch | AudioBatch) -> Tensor:
        seed = np.random.SeedSequence(
            (self.config.training.seed, 3, self.step, self._fabric.global_rank)
        )
        random = torch.Generator().manual_seed(int(seed.generate_state(1)[0]))
        clips, frames = batch.windows.shape[:2]
        return self._objective.generator.draw_noise(clips, frames, random)

    def _rate(self, group: str) -> float:
        return learning_rate(self.config.training, self.step, group)

    @property
    def _past_audio(self) -> bool:
        return self.step > self.config.training.audio_steps

    # --- looking ------------------------------------------------------------------------

    def _validate(self, log: RunLog) -> None:
        if not self._validation:
            return
        outcome: Validation = validate(
            self.average.module, self._validation, device=self._fabric.device
        )
        log.metrics(self.step, "validation", outcome.metrics)
        rows = [[s, *r, *g] for s, r, g in outcome.pictures]
        log.picture(self.step, "validation", contact_sheet(rows))
        if outcome.metrics["mouth_psnr"] > self.best:
            self.best = outcome.metrics["mouth_psnr"]
            self.stale = 0
            self._export("best.safetensors", outcome.metrics)
        else:
            self.stale += 1
            patience = self.config.training.patience
            if patience and self.stale >= patience:
                self._stop_reason = f"no better mouth PSNR in {patience} validations"

    def _export(self, name: str, scores: Mapping[str, float] | None) -> None:
        info = {
            **self._info,
            "steps": self.step,
            "seconds": round(self._seconds),
            "precision": self._precision.name,
            "speakers": self._data.speakers,
            "validation": scores,
            "history": self._history,
            "run": to_table(self.config),
        }
        generator = self.average.module
        assert isinstance(generator, Generator)
        save_model(generator, self._folder / name, info)

    # --- saving and stopping ------------------------------------------------------------

    def save(self) -> Path:
        """Write a whole-state checkpoint and drop the oldest ones."""
        path = checkpoint_path(self._folder, self.step)
        player = self.generator_player
        save_checkpoint(
            path,
            {
                "config": to_table(self.config),
                "step": self.step,
                "best": self.best if math.isfinite(self.best) else None,
                "stale": self.stale,
                "seconds": self._seconds,
                "history": self._history,
                "random": torch.get_rng_state(),
                "objective": self._objective.state_dict(),
                "average": self.average.module.state_dict(),
                "optimizer": player.optimizer.state_dict(),
                "scaler": _scaler_state(self._fabric),
            },
        )
        prune_checkpoints(self._folder, self.config.training.keep_checkpoints)
        return path

    def resume(self) -> int:
        """Go on from the newest checkpoint in the run's folder. Returns its step.

        Raises:
            CheckpointError: there is none, or its generator is another one.
        """
        path = latest_checkpoint(self._folder)
        if path is None:
            raise CheckpointError(f"{self._folder}: holds no checkpoint; start without --resume")
        state = load_checkpoint(path)
        table = to_table(self.config)
        if state["config"]["generator"] != table["generator"]:
            raise CheckpointError(
                f"{path}: was trained with another [generator]; resume with the run's own "
                "configuration, or start a new run"
            )
        self._objective.load_state_dict(state["objective"])
        self.average.module.load_state_dict(state["average"])
        self.generator_player.optimizer.load_state_dict(state["optimizer"])
        _load_scaler_state(self._fabric, state["scaler"])
        torch.set_rng_state(state["random"])
        self.step = int(state["step"])
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.stale = int(state["stale"])
        self._seconds = float(state["seconds"])
        self._history = [*state["history"], self._chapter(state["config"])]
        return self.step

    def _chapter(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        """A line of the run's history: from which step on which command, and what changed."""
        chapter: dict[str, Any] = {"from_step": self.step, "command": self._info.get("command")}
        if before is not None:
            table = to_table(self.config)
            chapter["changed"] = {
                section: {k: v for k, v in values.items() if before[section].get(k) != v}
                for section, values in table.items()
                if before[section] != values
            }
        return chapter

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run after the step in hand, with a checkpoint."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _frame: object) -> None:
            self._stop_reason = f"{signal.Signals(number).name} was received"

        old = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def learning_rate(training: TrainingConfig, step: int, group: str) -> float:
    """The learning rate of a parameter group (``audio`` or ``frames``) at a step."""
    rate = training.learning_rate
    since = step
    if step >= training.audio_steps:
        since = step - training.audio_steps
        if group == "audio" and training.audio_steps:
            rate *= training.audio_learning_rate
    if training.warmup_steps:
        rate *= min(1.0, (since + 1) / training.warmup_steps)
    start = training.decay_from * training.steps
    if step > start:
        along = (step - start) / max(training.steps - start, 1)
        rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))
    return rate


def _optimizer(objective: GeneratorObjective, training: TrainingConfig) -> torch.optim.Optimizer:
    audio = objective.audio_parameters()
    known = {id(p) for p in audio}
    frames = [p for p in objective.parameters() if id(p) not in known]
    groups = [{"params": audio, "name": "audio"}, {"params": frames, "name": "frames"}]
    if training.optimizer == "adam":
        return torch.optim.Adam(groups, lr=training.learning_rate, betas=training.betas)
    return torch.optim.AdamW(
        groups,
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )


def _scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
    return scaler


def _scaler_state(fabric: Fabric) -> dict[str, Any]:
    scaler = _scaler(fabric)
    return dict(scaler.state_dict()) if scaler is not None else {}


def _load_scaler_state(fabric: Fabric, state: Mapping[str, Any]) -> None:
    scaler = _scaler(fabric)
    if scaler is not None and state:
        scaler.load_state_dict(dict(state))
