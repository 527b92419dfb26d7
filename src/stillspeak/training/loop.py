"""The training loop: steps, validation, checkpoints, and a clean way to stop.

What is trained is a :class:`Task`. A run lives in a folder: ``config.json``, ``metrics.jsonl``,
``tensorboard/``, ``samples/``, the newest checkpoints, and the weights ``best.safetensors`` (by
the task's score on the validation speakers) and ``last.safetensors``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from stillspeak.errors import CheckpointError, TrainingError
from stillspeak.training.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from stillspeak.training.runlog import RunLog
from stillspeak.training.signals import stop_signals

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Progress = Callable[[int, Mapping[str, float]], None]
"""Gets a step and its metrics."""


class Schedule(Protocol):
    """The ``[training]`` of any run, as far as the loop reads it."""

    @property
    def steps(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def checkpoint_minutes(self) -> float: ...
    @property
    def keep_checkpoints(self) -> int: ...


class Task(Protocol):
    """What is trained, a step at a time."""

    step: int
    """Steps that are done."""
    higher_is_better: bool
    """Of the score."""
    patience: tuple[int, str]
    """Validations without a better score after which the run stops, 0: never; and the score's
    name."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def table(self) -> dict[str, Any]:
        """The whole configuration as JSON values, one table a section."""

    def batches(self, steps: range) -> Iterator[Any]:
        """What each of these steps is given; the iterator is closed in the end."""

    def train_step(self, batch: Any) -> dict[str, float]:
        """Take a step, and advance :attr:`step`.

        Raises:
            TrainingError: a loss or a gradient is NaN or infinite; the weights stay as they were.
        """

    def validation_is_due(self) -> bool:
        """Whether to validate after the step that is done."""

    def validate(self, log: RunLog) -> tuple[Mapping[str, float], float | None]:
        """Scores on speakers who are not trained on, and the one that decides what is best."""

    def export(self, path: Path, info: Mapping[str, Any]) -> None:
        """Write the weights file; ``info`` says how they were made."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the task."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint's state.

        Raises:
            CheckpointError: it is another network's.
        """


class TrainingLoop:
    """Runs a task in a run's folder; ``info`` is what every weights file of this run says besides
    configuration and scores."""

    def __init__(
        self, task: Task, fabric: Fabric, folder: Path, info: Mapping[str, Any] | None = None
    ) -> None:
        self.task = task
        self.best: float | None = None
        self.stale = 0
        self.fabric = fabric
        self._folder = folder
        self._info = dict(info or {})
        self._seconds = 0.0
        self._stop_reason: str | None = None
        self.history = [self._history_entry()]

    def fit(self, *, minutes: float | None = None, progress: Progress | None = None) -> str:
        """Train until the last step, ``minutes`` are over, patience ends, or a signal comes.
        Returns why it stopped, in words.

        Raises:
            TrainingError: a loss is NaN or infinite, or training diverged; the last good state
                is kept.
        """
        task, schedule = self.task, self.task.schedule
        start = saved_at = mark = time.monotonic()
        seconds_before, mark_step = self._seconds, task.step
        # Of several processes the first one writes.
        log = RunLog(self._folder, step=task.step) if self.fabric.is_global_zero else None
        self._stop_reason = None
        latest: dict[str, float] = {}
        try:
            with (
                stop_signals(self._stop),
                closing(task.batches(range(task.step, schedule.steps))) as batches,  # type: ignore[type-var]
            ):
                for batch in batches:
                    latest |= task.train_step(batch)  # not every step has every value, such as R1
                    now = time.monotonic()
                    self._seconds = seconds_before + now - start
                    if task.step % schedule.log_every == 0:
                        values, latest = latest, {}
                        values["steps_per_second"] = (task.step - mark_step) / (now - mark)
                        values["seconds"] = self._seconds
                        mark, mark_step = now, task.step
                        if log:
                            log.metrics(task.step, "train", values)
                        if progress:
                            progress(task.step, values)
                    if log and task.validation_is_due():
                        self._validate(log)
                    if minutes is not None and now - start >= 60 * minutes:
                        self._stop_reason = f"{minutes:g} minutes are over"
                    if self._agreed_to_stop():
                        break
                    if now - saved_at >= 60 * schedule.checkpoint_minutes:
                        self.save()
                        saved_at = now
            self.save()
            if log:
                self._export("last.safetensors", None)
        except TrainingError as error:
            path = latest_checkpoint(self._folder)
            good = (
                f"the last good state is {path}" if path else "no checkpoint had been written yet"
            )
            raise TrainingError(f"{error}; {good}") from error
        finally:
            if log:
                log.close()
        return self._stop_reason or f"all {schedule.steps} steps are done"

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason

    def _agreed_to_stop(self) -> bool:
        """Whether any process has a reason to stop; all stop at the same step."""
        if self.fabric.world_size > 1:
            wish = torch.tensor(float(self._stop_reason is not None), device=self.fabric.device)
            votes = self.fabric.all_reduce(wish, reduce_op="sum")
            if float(votes) and not self._stop_reason:  # type: ignore[arg-type]
                self._stop_reason = "another process was told to stop"
        return self._stop_reason is not None

    def _validate(self, log: RunLog) -> None:
        task = self.task
        with torch.no_grad():
            scores, score = task.validate(log)
        if scores:
            log.metrics(task.step, "validation", scores)
        if score is None:
            return
        sign = 1 if task.higher_is_better else -1
        if self.best is None or sign * score > sign * self.best:
            self.best, self.stale = score, 0
            self._export("best.safetensors", scores)
            return
        self.stale += 1
        patience, name = task.patience
        if patience and self.stale >= patience:
            self._stop_reason = f"no better {name} in {patience} validations"

    def _export(self, name: str, scores: Mapping[str, float] | None) -> None:
        info = {
            **self._info,
            "steps": self.task.step,
            "seconds": round(self._seconds),
            "validation": scores,
            "history": self.history,
            "run": self.task.table,
        }
        self.task.export(self._folder / name, info)

    def save(self) -> Path:
        """Write a whole-state checkpoint and drop the oldest ones. Of several processes, which
        differ in nothing that is saved, the first one writes."""
        path = checkpoint_path(self._folder, self.task.step)
        if self.fabric.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_checkpoint(path, self.state())
            prune_checkpoints(self._folder, self.task.schedule.keep_checkpoints)
        return path

    def state(self) -> dict[str, Any]:
        return {
            "config": self.task.table,
            "step": self.task.step,
            "best": self.best,
            "stale": self.stale,
            "seconds": self._seconds,
            "history": self.history,
            **self.task.state(),
        }

    def resume(self) -> int:
        """Go on from the newest checkpoint in the run's folder. Returns its step.

        Raises:
            CheckpointError: there is none, or it is another network's.
        """
        path = latest_checkpoint(self._folder)
        if path is None:
            raise CheckpointError(f"{self._folder}: holds no checkpoint; start without --resume")
        state = load_checkpoint(path)
        try:
            self.task.load_state(state)
        except (CheckpointError, KeyError, RuntimeError, ValueError) as error:
            told = isinstance(error, CheckpointError)
            why = str(error) if told else "was made by another network"
            raise CheckpointError(
                f"{path}: {why}; resume with the run's own configuration, or start a new run"
            ) from error
        self.task.step = int(state["step"])
        best = state["best"]
        self.best = None if best is None or not math.isfinite(best) else float(best)
        self.stale = int(state.get("stale", 0))  # older runs of auxiliary networks have none
        self._seconds = float(state["seconds"])
        self.history = [*state["history"], self._history_entry(state["config"])]
        return self.task.step

    def _history_entry(self, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A line of the run's history: from which step on which command, and what changed."""
        entry = {"from_step": self.task.step, "command": self._info.get("command")}
        if before is None:
            return entry
        changed = {
            section: {k: v for k, v in values.items() if before.get(section, {}).get(k) != v}
            for section, values in self.task.table.items()
            if before.get(section) != values
        }
        return entry | {"changed": changed}


def check_finite(values: Mapping[str, float], step: int, *, scaled: bool = False) -> None:
    """See that all values of a step, counted from 0, are numbers.

    Where losses are scaled a gradient's overflow is normal: the scaler leaves the step out.

    Raises:
        TrainingError: the first that is NaN or infinite.
    """
    for name, value in values.items():
        if not math.isfinite(value) and not (scaled and name.endswith("gradient_norm")):
            raise TrainingError(f"{name} is {value} at step {step + 1}; lower the learning rate")
