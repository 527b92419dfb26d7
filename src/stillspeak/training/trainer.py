"""The training loop: steps, averaging, validation, checkpoints, and a clean way to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from stillspeak.configuration import build, to_table
from stillspeak.data.dataset import (
    AudioBatch,
    Batch,
    Prefetcher,
    TrainingData,
    grouped,
)
from stillspeak.data.prepare import CachedClip
from stillspeak.errors import CheckpointError, ConfigError, TrainingError
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.models.generator import Generator
from stillspeak.runtime import Precision
from stillspeak.training.adversary import Adversary, Draw, Opinion, make_adversaries
from stillspeak.training.checkpoint import (
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from stillspeak.training.config import RunConfig
from stillspeak.training.objective import GeneratorObjective, ObjectiveResult
from stillspeak.training.player import (
    Average,
    Player,
    decay,
    freeze_norms,
    generator_optimizer,
    learning_rate,
    load_optimizer,
    pixel_variance,
)
from stillspeak.training.runlog import RunLog
from stillspeak.training.validation import Validation, show_beside, validate
from stillspeak.training.watch import Watch
from stillspeak.weights import file_sha256, load_model, save_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric


Progress = Callable[[int, Mapping[str, float]], None]


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
            # Not the objective: its regions have five dimensions, which have no such format.
            objective.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = Average(objective.generator, config.training.ema)
        self.average.module.to(fabric.device)
        clip_norm = config.training.clip_norm
        # One pass over the weights instead of eight; but one that undoes float16's loss scaling
        # itself, of which the norm could not be known before.
        self._fused = precision.name != "16-mixed"
        module, wrapped = fabric.setup(
            objective, generator_optimizer(objective, config.training, fused=self._fused)
        )
        self._objective = objective
        self.generator_player = Player("generator", module, wrapped, clip_norm)
        self._adversaries = make_adversaries(config)
        if config.training.channels_last:
            for adversary in self._adversaries:
                adversary.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator_players: list[Player] = []
        for adversary in self._adversaries:
            groups = [{"params": list(adversary.parameters()), "name": adversary.name}]
            optimizer = torch.optim.Adam(
                groups,
                lr=adversary.learning_rate,
                betas=config.adversarial.betas,
                fused=self._fused,
            )
            module, wrapped = fabric.setup(adversary, optimizer)
            self.discriminator_players.append(Player(adversary.name, module, wrapped, clip_norm))
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
        loader = Prefetcher(
            self._data,
            range(self.step, training.steps),
            audio_steps=training.audio_steps,
            parts=self.parts,
        )
        self._stop_reason = None
        mark, mark_step = start, self.step
        latest: dict[str, float] = {}
        try:
            with self._signals():
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
                    if self.step % self.validate_every == 0 and self._past_audio and log:
                        self._validate(log)
                    if now >= deadline:
                        self._stop_reason = f"{minutes:g} minutes are over"
                    if self._agreed_to_stop():
                        break
                    if now - saved_at >= 60 * training.checkpoint_minutes:
                        self.save()
                        saved_at = now
            self.save()
            if self._past_audio and log:
                self._export("last.safetensors", None)
        finally:
            loader.close()
            if log:
                log.close()
        return self._stop_reason or f"all {training.steps} steps are done"

    def train_step(self, batches: Sequence[Batch | AudioBatch]) -> dict[str, float]:
        """One step of every player; advances :attr:`step`.

        All players look at the same generated frames and move at the same time, so a step
        costs the generator one pass.

        Args:
            batches: whose gradients are added up, one a part of the step.

        Returns:
            Numbers by name, means over the batches: the loss and its terms, norms of gradients,
            each discriminator's loss and accuracy, and variances relative to real frames.

        Raises:
            TrainingError: a loss or a gradient is no number; the weights stay as they were.
        """
        players = [self.generator_player]
        if self._playing and isinstance(batches[0], Batch):
            players += self.discriminator_players
        for player in players:
            player.clear()
            player.module.train()
        frozen_from = self.config.training.freeze_norms_from
        if frozen_from is not None and self.step >= frozen_from:
            freeze_norms(self._objective)
        values: dict[str, float] = {}
        for index, batch in enumerate(batches):
            numbers = self._backward(
                self._fabric.to_device(batch),
                players[1:],
                part=self.parts[index],
                share=1 / len(batches),
                last=index == len(batches) - 1,
            )
            for name, value in numbers.items():
                values[name] = values.get(name, 0.0) + value / len(batches)
        for player in players:
            prefix = "" if player is self.generator_player else f"{player.name}_"
            values[f"{prefix}gradient_norm"] = player.norm(self._fabric)
        self._refuse_nonsense(values)
        for player in players:
            player.move(self._rates(player))
        scaler = _scaler(self._fabric)
        if scaler is not None:
            scaler.update()
        self.step += 1
        self.average.update(self._objective.generator, self.step)
        return values

    def _backward(
        self,
        batch: Batch | AudioBatch,
        opponents: Sequence[Player],
        *,
        part: int,
        share: float,
        last: bool,
    ) -> dict[str, float]:
        """Gradients of all players from one batch. Returns numbers by name.

        Each loss is checked before it goes backwards: gradients of a warp by a flow that is no
        number read outside of memory.
        """
        fabric, player = self._fabric, self.generator_player
        numbers: dict[str, float] = {}

        def note(terms: Mapping[str, Tensor]) -> None:
            means = torch.stack([term.detach().float() for term in terms.values()]).tolist()
            new = self._together(dict(zip(terms, means, strict=True)))
            self._refuse_nonsense(new)
            numbers.update(new)

        with fabric.no_backward_sync(cast(Any, player.module), not last):
            result: ObjectiveResult = player.module(batch, self._noise(batch, part))
            loss, terms, frames = result.loss, dict(result.terms), result.frames
            draws: list[Draw] = []
            if isinstance(batch, Batch):
                assert frames is not None
                with torch.no_grad():
                    terms["variance"] = pixel_variance(frames) / pixel_variance(batch.frames)
                if opponents:
                    random = self._random(4, part)
                    draws = [adversary.draw(batch, random) for adversary in self._adversaries]
                    advice, weighted = self._advice(batch, frames, draws)
                    terms |= advice
                    loss = loss + weighted
            note(terms | {"loss": loss})
            fabric.backward(loss * share)
        penalise = (self.step - self.config.game_start) % self.config.adversarial.r1_every == 0
        for opponent, draw in zip(opponents, draws, strict=True):
            assert isinstance(batch, Batch) and frames is not None
            with fabric.no_backward_sync(cast(Any, opponent.module), not last):
                opinion: Opinion = opponent.module(batch, frames.detach(), draw, penalise)
                note({f"{opponent.name}_{name}": v for name, v in opinion.terms.items()})
                fabric.backward(opinion.loss * share)
        return numbers

    def _advice(
        self, batch: Batch, frames: Tensor, draws: Sequence[Draw]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The discriminators' terms of the generator's loss, and their weighted sum."""
        game = self.config.adversarial
        terms: dict[str, Tensor] = {}
        total = frames.new_zeros(())
        for adversary, draw in zip(self._adversaries, draws, strict=True):
            # Called without its distributed wrapper, and frozen: nothing is learned here.
            adversary.requires_grad_(False)
            with self._fabric.autocast():
                advice = adversary.advise(batch, frames, draw)
            adversary.requires_grad_(True)
            terms |= advice
            for name, term in advice.items():
                total = total + self._fade * getattr(game, name) * term
        return terms, total

    # --- what a step depends on ---------------------------------------------------------

    @property
    def parts(self) -> list[int]:
        """Which parts of a step's examples this process sees, one batch each."""
        fabric = self._fabric
        count = self.config.training.accumulate
        return [index * fabric.world_size + fabric.global_rank for index in range(count)]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many examples are seen as there are clips."""
        training = self.config.training
        a_step = self.config.data.batch * training.accumulate * self._fabric.world_size
        return math.ceil(len(self._data) / a_step)

    def _random(self, purpose: int, part: int) -> torch.Generator:
        """Random numbers that depend on seed, step and part alone, so that nothing about them
        has to be saved."""
        seed = np.random.SeedSequence((self.config.training.seed, purpose, self.step, part))
        return torch.Generator().manual_seed(int(seed.generate_state(1)[0]))

    def _noise(self, batch: Batch | AudioBatch, part: int) -> Tensor:
        clips, frames = batch.windows.shape[:2]
        return self._objective.generator.draw_noise(clips, frames, self._random(3, part))

    def _rates(self, player: Player) -> dict[str, float]:
        """A player's learning rate by group."""
        training = self.config.training
        epoch = self.steps_per_epoch
        if player is self.generator_player:
            return {
                group: learning_rate(training, self.step, group, steps_per_epoch=epoch)
                for group in ("audio", "frames")
            }
        (rate,) = (a.learning_rate for a in self._adversaries if a.name == player.name)
        fixed = training.decay == "epoch" and player.name == "sequence"  # paper, section 2.3
        return {player.name: rate if fixed else rate * decay(training, self.step, epoch)}

    @property
    def _past_audio(self) -> bool:
        return self.step > self.config.training.audio_steps

    @property
    def _playing(self) -> bool:
        return self.step >= self.config.game_start

    @property
    def _fade(self) -> float:
        """How much of their weights the adversarial terms have."""
        steps = self.config.adversarial.fade
        return min((self.step - self.config.game_start + 1) / steps, 1.0) if steps else 1.0

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.config.training.validate_every or self.steps_per_epoch

    # --- keeping watch ------------------------------------------------------------------

    def _refuse_nonsense(self, values: Mapping[str, float]) -> None:
        # Under loss scaling an overflow is normal: the scaler leaves the step out.
        scaled = _scaler(self._fabric) is not None
        for name, value in values.items():
            if math.isfinite(value) or (scaled and name.endswith("gradient_norm")):
                continue
            raise TrainingError(
                f"{name} is {value} at step {self.step + 1}; lower the learning rates; "
                f"{self._last_good()}"
            )

    def _check(self, values: Mapping[str, float]) -> None:
        trouble = self._watch.trouble(values)
        if trouble:
            raise TrainingError(f"stopped at step {self.step}: {trouble}; {self._last_good()}")

    def _last_good(self) -> str:
        path = latest_checkpoint(self._folder)
        if path is None:
            return "no checkpoint had been written yet"
        return f"the last good state is {path}"

    def _together(self, values: dict[str, float]) -> dict[str, float]:
        """Means over all processes, so that all of them judge alike."""
        if self._fabric.world_size == 1:
            return values
        numbers = torch.tensor(list(values.values()), device=self._fabric.device)
        mean = self._fabric.all_reduce(numbers, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return dict(zip(values, mean.tolist(), strict=True))

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
                for adversary, player in self._game
            },
            "scaler": _scaler_state(self._fabric),
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
        for adversary, player in self._game:
            saved = state["adversaries"].get(adversary.name)
            if saved is None:
                continue
            self._check_same(path, state["config"], f"{adversary.name}_discriminator")
            adversary.network.load_state_dict(saved["network"])
            load_optimizer(player.optimizer, saved["optimizer"], fused=self._fused)
        _load_scaler_state(self._fabric, state["scaler"])
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
        try:
            same = build(type(mine), saved.get(section, {}), name=section) == mine
        except ConfigError:
            same = False
        if not same:
            raise CheckpointError(
                f"{path}: was trained with another [{section}]; resume with the run's own "
                "configuration, or start a new run"
            )

    @property
    def _game(self) -> list[tuple[Adversary, Player]]:
        return list(zip(self._adversaries, self.discriminator_players, strict=True))

    def start_from(self, weights: Path) -> tuple[int, int]:
        """Take over what fits of a weights file, to train on from there.

        A tensor fits if the generator has one of its name and shape.

        Returns:
            How many tensors were taken, and how many the generator has.

        Raises:
            WeightsError: the file cannot be read.
            TrainingError: nothing in it fits.
        """
        given = load_model(weights).state_dict()
        own = self._objective.generator.state_dict()
        fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
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


def _without_paths(table: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration fit for publishing: a user's file by its name alone."""
    objective = table["objective"]
    name = Path(objective["perceptual_weights"]).name
    return table | {"objective": objective | {"perceptual_weights": name}}
