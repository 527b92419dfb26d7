"""Training of a generator, as the :class:`~stillspeak.training.loop.TrainingLoop` runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stillspeak.data.cache import CachedClip
from stillspeak.data.dataset import AudioBatch, Batch, Examples
from stillspeak.data.loader import grouped, open_loader
from stillspeak.errors import CheckpointError, ConfigError, TrainingError
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.models.config import RETIRED
from stillspeak.models.generator import Generator
from stillspeak.system.configuration import build, to_table
from stillspeak.system.runtime import Precision
from stillspeak.training.adversarial.step import AdversarialStep, load_scaler_state, scaler_state
from stillspeak.training.config import RunConfig, TrainingConfig
from stillspeak.training.divergence import DivergenceMonitor
from stillspeak.training.optimization import load_optimizer
from stillspeak.training.runlog import RunLog
from stillspeak.training.validation import show_beside, validate, validate_listening
from stillspeak.weights import load_model, save_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class GeneratorTraining(AdversarialStep):
    """See :class:`~stillspeak.training.loop.Task`; arguments as :class:`AdversarialStep`'s, with
    the data of the training speakers and the clips of the validation speakers."""

    higher_is_better = True

    def __init__(
        self,
        config: RunConfig,
        fabric: Fabric,
        data: Examples,
        validation: Sequence[CachedClip],
        *,
        precision: Precision,
    ) -> None:
        super().__init__(config, fabric, clips=len(data), precision=precision)
        self.fabric = fabric
        self.data = data
        self.validation = list(validation)
        self.precision = precision
        self.patience: tuple[int, str] = (config.training.patience, config.training.best)
        self._monitor = DivergenceMonitor(config.watch)

    @property
    def schedule(self) -> TrainingConfig:
        return self.config.training

    @property
    def table(self) -> dict[str, Any]:
        return to_table(self.config)

    @property
    def averaged_generator(self) -> Generator:
        generator = self.ema.module
        assert isinstance(generator, Generator)
        return generator

    def batches(self, steps: range) -> Iterator[list[Batch | AudioBatch]]:
        training = self.config.training
        audio_steps = training.audio_steps
        with closing(
            open_loader(self.data, steps, audio_steps=audio_steps, parts=self.parts)
        ) as it:
            yield from grouped(it, training.accumulate)

    def train_step(self, batch: Sequence[Batch | AudioBatch]) -> dict[str, float]:
        """See :meth:`AdversarialStep.train_step`; an error too where training diverged."""
        values = super().train_step(batch)
        trouble = self._monitor.trouble(values)
        if trouble:
            raise TrainingError(f"stopped at step {self.step}: {trouble}")
        return values

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.config.training.validate_every or self.steps_per_epoch

    def validation_is_due(self) -> bool:
        return self.step % self.validate_every == 0

    def validate(self, log: RunLog) -> tuple[Mapping[str, float], float | None]:
        """Scores of whole clips; in the audio warm start of the audio encoder alone."""
        generator, training = self.averaged_generator, self.config.training
        if not self.validation:
            return {}, None
        if self.step <= training.audio_steps:
            return validate_listening(generator, self.objective.mouth_head, self.validation), None
        outcome = validate(
            generator, self.validation, device=self.fabric.device, region=self.objective.region
        )
        rows = [[still, *real, *generated] for still, real, generated in outcome.pictures]
        log.picture(self.step, "validation", contact_sheet(rows))
        log.video(self.step, "validation", *show_beside(generator, self.validation[0]))
        if training.best == "reconstruction":
            return outcome.metrics, -outcome.metrics["reconstruction"]
        return outcome.metrics, outcome.metrics["mouth_psnr"]

    def export(self, path: Path, info: Mapping[str, Any]) -> None:
        objective = self.table["objective"]
        # A user's file goes by its name alone.
        objective["perceptual_weights"] = Path(objective["perceptual_weights"]).name
        about = {
            **info,
            "precision": self.precision.name,
            "speakers": self.data.speakers,
            "run": info["run"] | {"objective": objective},
        }
        save_model(self.averaged_generator, path, about)

    def state(self) -> dict[str, Any]:
        return {
            "random": torch.get_rng_state(),
            "objective": self.objective.state_dict(),
            "average": self.ema.module.state_dict(),
            "optimizer": self.generator.optimizer.state_dict(),
            "adversaries": {
                adversary.name: {
                    "network": adversary.network.state_dict(),
                    "optimizer": state.optimizer.state_dict(),
                }
                for adversary, state in zip(self.adversaries, self.discriminators, strict=True)
            },
            "scaler": scaler_state(self.fabric),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint's state. A discriminator that it does not hold starts afresh;
        one that the configuration leaves out is forgotten."""
        self._check_same(state["config"], "generator")
        self.objective.load_state_dict(state["objective"])
        self.ema.module.load_state_dict(state["average"])
        load_optimizer(self.generator.optimizer, state["optimizer"], fused=self._fused)
        for adversary, own in zip(self.adversaries, self.discriminators, strict=True):
            saved = state["adversaries"].get(adversary.name)
            if saved is None:
                continue
            self._check_same(state["config"], f"{adversary.name}_discriminator")
            adversary.network.load_state_dict(saved["network"])
            load_optimizer(own.optimizer, saved["optimizer"], fused=self._fused)
        load_scaler_state(self.fabric, state["scaler"])
        torch.set_rng_state(state["random"])

    def _check_same(self, saved: Mapping[str, Any], section: str) -> None:
        """Refuse a checkpoint whose networks are others; keys newer than it have defaults."""
        mine = getattr(self.config, section)
        known = {k: v for k, v in saved.get(section, {}).items() if k not in RETIRED}
        try:
            same = build(type(mine), known, name=section) == mine
        except ConfigError:
            same = False
        if not same:
            raise CheckpointError(f"was trained with another [{section}]")

    def start_from(self, weights: Path) -> tuple[int, int]:
        """Take over from a weights file the tensors whose name and shape the generator has.

        Returns how many these were, and how many the generator has.

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
        own = self.objective.generator.state_dict()
        fitting = {
            name: value
            for name, value in model.state_dict().items()
            if name in own and own[name].shape == value.shape
        }
        if not fitting:
            raise TrainingError(f"{weights}: no tensor in it fits this [generator]")
        self.objective.generator.load_state_dict(fitting, strict=False)
        self.ema.module.load_state_dict(self.objective.generator.state_dict())
        return len(fitting), len(own)
