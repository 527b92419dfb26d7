"""The training loop: steps, averaging, validation, checkpoints, and a clean way to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stillspeak.data.dataset import Examples, grouped
from stillspeak.data.device_dataset import open_loader
from stillspeak.data.prepare import CachedClip
from stillspeak.errors import CheckpointError, ConfigError, TrainingError
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.models.config import RETIRED
from stillspeak.models.generator import Generator
from stillspeak.system.configuration import build, to_table
from stillspeak.system.runtime import Precision
from stillspeak.training.adversarial.step import Game, load_scaler_state, scaler_state
from stillspeak.training.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from stillspeak.training.config import RunConfig
from stillspeak.training.divergence import Watch
from stillspeak.training.optimization import (
    load_optimizer,
)
from stillspeak.training.runlog import RunLog
from stillspeak.training.signals import stop_signals
from stillspeak.training.validation import (
    Validation,
    show_beside,
    validate,
    validate_listening,
)
from stillspeak.weights import file_sha256, load_model, save_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric


Progress = Callable[[int, Mapping[str, float]], None]


class Trainer(Game):
    """Trains a generator: the run around the :class:`Game`.

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
        data: Examples,
        validation: Sequence[CachedClip],
        folder: Path,
        *,
        precision: Precision,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, fabric, clips=len(data), precision=precision)
        self.best = -math.inf
        self.stale = 0
        self._data = data
        self._validation = list(validation)
        self._folder = folder
        self._precision = precision
        self._info = dict(info or {})
        self._seconds = 0.0
        self._stop_reason: str | None = None
        self._history = [self._chapter(None)]

        self._watch = Watch(config.watch)

    # --- the run ------------------------------------------------------------------------

    def fit(self, *, minutes: float | None = None, progress: Progress | None = None) -> str:
        """Train until the last step, ``minutes`` are over, patience ends, or a signal comes.

        Returns:
            Why it stopped, in words.

        Raises:
            TrainingError: the loss is no number any more, or the watch found the game lost; the
                last good state is kept.
        """
        training = self.config.training
        start = saved_at = time.monotonic()
        deadline = math.inf if minutes is None else start + 60 * minutes
        seconds_before = self._seconds
        log = RunLog(self._folder, step=self.step) if self._fabric.is_global_zero else None
        loader = open_loader(
            self._data,
            range(self.step, training.steps),
            audio_steps=training.audio_steps,
            parts=self.parts,
        )
        self._stop_reason = None
        mark, mark_step = start, self.step
        latest: dict[str, float] = {}
        try:
            with stop_signals(self._stop):
                for batches in grouped(loader, training.accumulate):
                    values = self.train_step(batches)
                    now = time.monotonic()
                    self._seconds = seconds_before + now - start
                    self._check(values)
                    latest |= values  # what not every step has, such as R1, is logged too
                    if self.step % training.log_every == 0:
                        values, latest = latest, {}
                        values["steps_per_second"] = (self.step - mark_step) / (now - mark)
                        values["seconds"] = self._seconds
                        mark, mark_step = now, self.step
                        if log:
                            log.metrics(self.step, "train", values)
                        if progress:
                            progress(self.step, values)
                    if self.step % self.validate_every == 0 and log:
                        if self._past_audio:
                            self._validate(log)
                        else:
                            self._validate_listening(log)
                    if now >= deadline:
                        self._stop_reason = f"{minutes:g} minutes are over"
                    if self._agreed_to_stop():
                        break
                    if now - saved_at >= 60 * training.checkpoint_minutes:
                        self.save()
                        saved_at = now
            self.save()
            if log:
                self._export("last.safetensors", None)
        except TrainingError as error:
            raise TrainingError(f"{error}; {self._last_good()}") from error
        finally:
            loader.close()
            if log:
                log.close()
        return self._stop_reason or f"all {training.steps} steps are done"

    @property
    def _past_audio(self) -> bool:
        return self.step > self.config.training.audio_steps

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.config.training.validate_every or self.steps_per_epoch

    # --- keeping watch ------------------------------------------------------------------

    def _check(self, values: Mapping[str, float]) -> None:
        trouble = self._watch.trouble(values)
        if trouble:
            raise TrainingError(f"stopped at step {self.step}: {trouble}")

    def _last_good(self) -> str:
        path = latest_checkpoint(self._folder)
        if path is None:
            return "no checkpoint had been written yet"
        return f"the last good state is {path}"

    def _agreed_to_stop(self) -> bool:
        """Whether any process has a reason to stop; all stop at the same step."""
        if self._fabric.world_size > 1:
            wish = torch.tensor(float(self._stop_reason is not None), device=self._fabric.device)
            votes = self._fabric.all_reduce(wish, reduce_op="sum")
            if float(votes) and not self._stop_reason:  # type: ignore[arg-type]
                self._stop_reason = "another process was told to stop"
        return self._stop_reason is not None

    # --- looking ------------------------------------------------------------------------

    def _validate(self, log: RunLog) -> None:
        if not self._validation:
            return
        training = self.config.training
        outcome: Validation = validate(
            self.average.module,
            self._validation,
            device=self._fabric.device,
            region=self._objective.region,
        )
        log.metrics(self.step, "validation", outcome.metrics)
        rows = [[s, *r, *g] for s, r, g in outcome.pictures]
        log.picture(self.step, "validation", contact_sheet(rows))
        log.video(self.step, "validation", *show_beside(self.average.module, self._validation[0]))
        score = outcome.metrics["mouth_psnr"]
        if training.best == "reconstruction":
            score = -outcome.metrics["reconstruction"]
        if score > self.best:
            self.best = score
            self.stale = 0
            self._export("best.safetensors", outcome.metrics)
        else:
            self.stale += 1
            patience = training.patience
            if patience and self.stale >= patience:
                self._stop_reason = f"no better {training.best} in {patience} validations"

    def _validate_listening(self, log: RunLog) -> None:
        if not self._validation:
            return
        generator = self.average.module
        assert isinstance(generator, Generator)
        scores = validate_listening(generator, self._objective.mouth_head, self._validation)
        log.metrics(self.step, "validation", scores)

    def _export(self, name: str, scores: Mapping[str, float] | None) -> None:
        info = {
            **self._info,
            "steps": self.step,
            "seconds": round(self._seconds),
            "precision": self._precision.name,
            "speakers": self._data.speakers,
            "validation": scores,
            "history": self._history,
            "run": _without_paths(to_table(self.config)),
        }
        generator = self.average.module
        assert isinstance(generator, Generator)
        save_model(generator, self._folder / name, info)

    # --- saving and stopping ------------------------------------------------------------

    def save(self) -> Path:
        """Write a whole-state checkpoint and drop the oldest ones.

        Of several processes the first one writes; they differ in nothing that is saved.
        """
        path = checkpoint_path(self._folder, self.step)
        if not self._fabric.is_global_zero:
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, self.state())
        prune_checkpoints(self._folder, self.config.training.keep_checkpoints)
        return path

    def state(self) -> dict[str, Any]:
        """The whole state, as a checkpoint holds it."""
        return {
            "config": to_table(self.config),
            "step": self.step,
            "best": self.best if math.isfinite(self.best) else None,
            "stale": self.stale,
            "seconds": self._seconds,
            "history": self._history,
            "random": torch.get_rng_state(),
            "objective": self._objective.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.generator_player.optimizer.state_dict(),
            "adversaries": {
                adversary.name: {
                    "network": adversary.network.state_dict(),
                    "optimizer": player.optimizer.state_dict(),
                }
                for adversary, player in self._pairs
            },
            "scaler": scaler_state(self._fabric),
        }

    def resume(self) -> int:
        """Go on from the newest checkpoint in the run's folder. Returns its step.

        A discriminator that the checkpoint does not hold starts afresh; one that the
        configuration leaves out is forgotten.

        Raises:
            CheckpointError: there is none, or it has another generator or discriminator.
        """
        path = latest_checkpoint(self._folder)
        if path is None:
            raise CheckpointError(f"{self._folder}: holds no checkpoint; start without --resume")
        state = load_checkpoint(path)
        self._check_same(path, state["config"], "generator")
        self._objective.load_state_dict(state["objective"])
        self.average.module.load_state_dict(state["average"])
        load_optimizer(self.generator_player.optimizer, state["optimizer"], fused=self._fused)
        for adversary, player in self._pairs:
            saved = state["adversaries"].get(adversary.name)
            if saved is None:
                continue
            self._check_same(path, state["config"], f"{adversary.name}_discriminator")
            adversary.network.load_state_dict(saved["network"])
            load_optimizer(player.optimizer, saved["optimizer"], fused=self._fused)
        load_scaler_state(self._fabric, state["scaler"])
        torch.set_rng_state(state["random"])
        self.step = int(state["step"])
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.stale = int(state["stale"])
        self._seconds = float(state["seconds"])
        self._history = [*state["history"], self._chapter(state["config"])]
        return self.step

    def _check_same(self, path: Path, saved: Mapping[str, Any], section: str) -> None:
        """Refuse a checkpoint whose networks are others; keys newer than it have defaults."""
        mine = getattr(self.config, section)
        known = {k: v for k, v in saved.get(section, {}).items() if k not in RETIRED}
        try:
            same = build(type(mine), known, name=section) == mine
        except ConfigError:
            same = False
        if not same:
            raise CheckpointError(
                f"{path}: was trained with another [{section}]; resume with the run's own "
                "configuration, or start a new run"
            )

    def start_from(self, weights: Path) -> tuple[int, int]:
        """Take over what fits of a weights file, to train on from there.

        A tensor fits if the generator has one of its name and shape. ``training.fresh`` leaves
        parts out.

        Returns:
            How many tensors were taken, and how many the generator has.

        Raises:
            WeightsError: the file cannot be read.
            TrainingError: nothing in it fits.
        """
        model = load_model(weights)
        if model.config.decoder == "layers":
            raise TrainingError(
                f"{weights}: says the mouth's pose (decoder = 'layers'); nothing in it fits a "
                "generator that makes frames"
            )
        given = model.state_dict()
        own = self._objective.generator.state_dict()
        fitting = {}
        for name, value in given.items():
            mine = own.get(name)
            if name.startswith(tuple(f"{part}." for part in self.config.training.fresh)):
                continue
            if mine is not None and mine.shape == value.shape:
                fitting[name] = value
        if not fitting:
            raise TrainingError(f"{weights}: no tensor in it fits this [generator]")
        self._objective.generator.load_state_dict(fitting, strict=False)
        self.average.module.load_state_dict(self._objective.generator.state_dict())
        self._history[-1]["from_weights"] = {"file": weights.name, "sha256": file_sha256(weights)}
        return len(fitting), len(own)

    def _chapter(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        """A line of the run's history: from which step on which command, and what changed."""
        chapter: dict[str, Any] = {"from_step": self.step, "command": self._info.get("command")}
        if before is not None:
            table = to_table(self.config)
            chapter["changed"] = {
                section: {k: v for k, v in values.items() if before.get(section, {}).get(k) != v}
                for section, values in table.items()
                if before.get(section) != values
            }
        return chapter

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason


def _without_paths(table: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration fit for publishing: a user's file by its name alone."""
    objective = table["objective"]
    name = Path(objective["perceptual_weights"]).name
    return table | {"objective": objective | {"perceptual_weights": name}}
