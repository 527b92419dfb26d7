"""Start or resume the training of a network that measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

import torch

from stillspeak import __version__
from stillspeak.data.channel import ChannelConfig
from stillspeak.data.config import AugmentConfig
from stillspeak.data.prepare import CachedClip, load_manifest
from stillspeak.errors import ConfigError, DataError
from stillspeak.models.lipnet import LipNetConfig
from stillspeak.models.pose import PoseConfig
from stillspeak.models.refiner import RefinerConfig
from stillspeak.models.speech import SpeechEncoderConfig
from stillspeak.models.syncnet import SyncNetConfig
from stillspeak.system.configuration import build, configuration, to_table
from stillspeak.system.runtime import Precision, choose_device, choose_precision
from stillspeak.training.checkpoint import latest_checkpoint, own_folder
from stillspeak.training.distillation import DistillationLesson, SpeechDataConfig
from stillspeak.training.distributed import launch_fabric
from stillspeak.training.pose import PoseDataConfig, PoseLesson
from stillspeak.training.refiner import RefinerDataConfig, RefinerLesson
from stillspeak.training.scorers.lipreading import LipReadingDataConfig, LipReadingLesson
from stillspeak.training.scorers.sync import SyncDataConfig, SyncLesson
from stillspeak.training.scorers.trainer import Lesson, LessonConfig, LessonTrainer


@configuration()
class LipReadingConfig:
    """Everything that defines a training of the lip reader."""

    lipnet: LipNetConfig = field(default_factory=LipNetConfig)
    lipnet_data: LipReadingDataConfig = field(default_factory=LipReadingDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: LessonConfig = field(default_factory=LessonConfig)

    def lesson(self, data: Path) -> LipReadingLesson:
        """The lesson on a cache's clips."""
        training, validation = real_clips(data)
        return LipReadingLesson(
            self.lipnet,
            self.lipnet_data,
            self.augment,
            training,
            validation,
            seed=self.training.seed,
            steps=self.training.steps,
        )


@configuration()
class SyncConfig:
    """Everything that defines a training of the sync network."""

    sync: SyncNetConfig = field(default_factory=SyncNetConfig)
    sync_data: SyncDataConfig = field(default_factory=SyncDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: LessonConfig = field(default_factory=LessonConfig)

    def lesson(self, data: Path) -> SyncLesson:
        """The lesson on a cache's clips."""
        training, validation = real_clips(data)
        return SyncLesson(
            self.sync,
            self.sync_data,
            self.augment,
            training,
            validation,
            seed=self.training.seed,
        )


@configuration()
class SpeechConfig:
    """Everything that defines a training of the speech encoder."""

    speech: SpeechEncoderConfig = field(default_factory=SpeechEncoderConfig)
    speech_data: SpeechDataConfig = field(default_factory=SpeechDataConfig)
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    training: LessonConfig = field(default_factory=LessonConfig)

    def lesson(self, data: Path) -> DistillationLesson:
        """The lesson on a folder of recordings."""
        return DistillationLesson(
            self.speech, self.speech_data, self.channel, data, seed=self.training.seed
        )


@configuration()
class PoseRunConfig:
    """Everything that defines a training of the pose predictor."""

    pose: PoseConfig = field(default_factory=PoseConfig)
    pose_data: PoseDataConfig = field(default_factory=PoseDataConfig)
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    training: LessonConfig = field(default_factory=LessonConfig)

    def lesson(self, data: Path) -> PoseLesson:
        """The lesson on a cache's clips."""
        training, validation = real_clips(data)
        return PoseLesson(
            self.pose,
            self.pose_data,
            self.channel,
            training,
            validation,
            seed=self.training.seed,
        )


@configuration()
class RefinerRunConfig:
    """Everything that defines a training of the mouth refiner."""

    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    refiner_data: RefinerDataConfig = field(default_factory=RefinerDataConfig)
    training: LessonConfig = field(default_factory=LessonConfig)

    def lesson(self, data: Path) -> RefinerLesson:
        """The lesson on a cache's clips."""
        training, validation = real_clips(data)
        return RefinerLesson(
            self.refiner, self.refiner_data, training, validation, seed=self.training.seed
        )


class LessonRunConfig(Protocol):
    """Everything that defines a training of a network beside the generator's game."""

    @property
    def training(self) -> LessonConfig:
        """Optimisation, schedule and bookkeeping."""
        ...

    def lesson(self, data: Path) -> Lesson:
        """What is learned, from a prepared cache or whatever the data is."""
        ...


def real_clips(cache: Path) -> tuple[list[CachedClip], list[CachedClip]]:
    """Clips of a prepared cache's training and validation speakers.

    Raises:
        DataError: no clip of a training speaker.
    """
    clips = load_manifest(cache)
    training = [clip for clip in clips if clip.split == "train"]
    if not training:
        raise DataError(f"{cache}: holds no clip of a training speaker; prepare some")
    return training, [clip for clip in clips if clip.split == "validation"]


_KINDS: dict[str, type[LessonRunConfig]] = {
    "lipnet": LipReadingConfig,
    "sync": SyncConfig,
    "speech": SpeechConfig,
    "pose": PoseRunConfig,
    "refiner": RefinerRunConfig,
}
"""What is trained, by the table that its configuration has."""


def lesson_kind(table: Mapping[str, Any]) -> str | None:
    """Which measuring network a run's configuration describes, or None for a generator's."""
    return next((kind for kind in _KINDS if kind in table), None)


def lesson_config(table: Mapping[str, Any], *, name: str) -> LessonRunConfig:
    """Build and check a measuring network's configuration.

    Raises:
        ConfigError: an unknown key or a wrong value, with the key's name.
    """
    kind = lesson_kind(table)
    assert kind is not None
    return build(_KINDS[kind], table, name=name)


def train_lesson(
    table: Mapping[str, Any],
    cache: Path,
    folder: Path,
    *,
    name: str,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    info: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> str:
    """Train a measuring network on the real clips of a prepared cache.

    Args:
        table: the merged configuration; which table it has says what is trained.
        name: of the configuration, for messages.
        cache, folder, minutes, resume, device, info, report, progress: as for
            :func:`stillspeak.training.run.train`.

    Returns:
        Why the run stopped.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError, MissingDependencyError: as there.
    """
    config = lesson_config(table, name=name)
    if not resume and latest_checkpoint(folder):
        raise ConfigError(
            f"{folder}: holds a run already; add --resume to go on with it, or name a new folder"
        )
    chosen = choose_device(device)
    precision = _without_scaling(choose_precision(config.training.precision, chosen))
    report(f"device {chosen}, precision {precision.name}: {precision.reason}")
    fabric = launch_fabric(chosen, precision)
    lesson: Lesson = config.lesson(cache)
    trainer = LessonTrainer(
        lesson,
        config.training,
        fabric,
        folder,
        table=to_table(config),
        info={
            "stillspeak": __version__,
            "torch": str(torch.__version__),
            "device": str(chosen),
            "precision": precision.name,
            **(info or {}),
        },
    )
    if resume:
        report(f"resumed at step {trainer.resume()}")
    with own_folder(folder, from_step=trainer.step, table=to_table(config)):
        return trainer.fit(
            minutes=minutes,
            progress=progress and (lambda step, m: progress(step, config.training.steps, m)),
        )


def _without_scaling(precision: Precision) -> Precision:
    """float16 wants its loss scaled; these networks are small enough to do without."""
    if precision.name == "16-mixed":
        return Precision("32-true", "no bfloat16 here, and float16 would need loss scaling")
    return precision
