"""Which auxiliary network a configuration describes, and what it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.data.channel import ChannelConfig
from stillspeak.data.config import AugmentConfig
from stillspeak.errors import DataError
from stillspeak.models.lipnet import LipNetConfig
from stillspeak.models.motion import MotionConfig
from stillspeak.models.pose import PoseConfig
from stillspeak.models.refiner import RefinerConfig
from stillspeak.models.speech import SpeechEncoderConfig
from stillspeak.models.syncnet import SyncNetConfig
from stillspeak.system.configuration import build, configuration
from stillspeak.training.auxiliary.distillation import DistillationObjective, SpeechDataConfig
from stillspeak.training.auxiliary.motion import MotionDataConfig, MotionObjective
from stillspeak.training.auxiliary.pose import PoseDataConfig, PoseObjective
from stillspeak.training.auxiliary.refiner import RefinerDataConfig, RefinerObjective
from stillspeak.training.auxiliary.task import AuxiliaryObjective, AuxiliaryTrainingConfig
from stillspeak.training.scorers.lipreading import LipReadingDataConfig, LipReadingObjective
from stillspeak.training.scorers.sync import SyncDataConfig, SyncObjective


class AuxiliaryRunConfig(Protocol):
    """Everything that defines a training of an auxiliary network."""

    @property
    def training(self) -> AuxiliaryTrainingConfig:
        """Optimisation, schedule and bookkeeping."""

    def objective(self, data: Path) -> AuxiliaryObjective:
        """What is learned, from a prepared cache or a folder of recordings."""


@configuration()
class LipReadingConfig:
    """Of the lip reader."""

    lipnet: LipNetConfig = field(default_factory=LipNetConfig)
    lipnet_data: LipReadingDataConfig = field(default_factory=LipReadingDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: AuxiliaryTrainingConfig = field(default_factory=AuxiliaryTrainingConfig)

    def objective(self, data: Path) -> LipReadingObjective:
        parts = (self.lipnet, self.lipnet_data, self.augment, *real_clips(data))
        return LipReadingObjective(*parts, seed=self.training.seed, steps=self.training.steps)


@configuration()
class SyncConfig:
    """Of the sync network."""

    sync: SyncNetConfig = field(default_factory=SyncNetConfig)
    sync_data: SyncDataConfig = field(default_factory=SyncDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: AuxiliaryTrainingConfig = field(default_factory=AuxiliaryTrainingConfig)

    def objective(self, data: Path) -> SyncObjective:
        parts = (self.sync, self.sync_data, self.augment, *real_clips(data))
        return SyncObjective(*parts, seed=self.training.seed)


@configuration()
class SpeechConfig:
    """Of the speech encoder."""

    speech: SpeechEncoderConfig = field(default_factory=SpeechEncoderConfig)
    speech_data: SpeechDataConfig = field(default_factory=SpeechDataConfig)
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    training: AuxiliaryTrainingConfig = field(default_factory=AuxiliaryTrainingConfig)

    def objective(self, data: Path) -> DistillationObjective:
        seed = self.training.seed
        return DistillationObjective(self.speech, self.speech_data, self.channel, data, seed=seed)


@configuration()
class PoseRunConfig:
    """Of the pose predictor."""

    pose: PoseConfig = field(default_factory=PoseConfig)
    pose_data: PoseDataConfig = field(default_factory=PoseDataConfig)
    channel: ChannelConfig = field(default_factory=ChannelConfig)
    training: AuxiliaryTrainingConfig = field(default_factory=AuxiliaryTrainingConfig)

    def objective(self, data: Path) -> PoseObjective:
        seed = self.training.seed
        return PoseObjective(self.pose, self.pose_data, self.channel, *real_clips(data), seed=seed)


@configuration()
class RefinerRunConfig:
    """Of the mouth refiner."""

    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    refiner_data: RefinerDataConfig = field(default_factory=RefinerDataConfig)
    training: AuxiliaryTrainingConfig = field(default_factory=AuxiliaryTrainingConfig)

    def objective(self, data: Path) -> RefinerObjective:
        seed = self.training.seed
        return RefinerObjective(self.refiner, self.refiner_data, *real_clips(data), seed=seed)


@configuration()
class MotionRunConfig:
    """Of the motion generator."""

    motion: MotionConfig = field(default_factory=MotionConfig)
    motion_data: MotionDataConfig = field(default_factory=MotionDataConfig)
    training: AuxiliaryTrainingConfig = field(default_factory=AuxiliaryTrainingConfig)

    def objective(self, data: Path) -> MotionObjective:
        seed = self.training.seed
        return MotionObjective(self.motion, self.motion_data, *real_clips(data), seed=seed)


_KINDS: dict[str, type[AuxiliaryRunConfig]] = {
    "lipnet": LipReadingConfig,
    "sync": SyncConfig,
    "speech": SpeechConfig,
    "pose": PoseRunConfig,
    "refiner": RefinerRunConfig,
    "motion": MotionRunConfig,
}
"""What is trained, by the table that its configuration has."""


def auxiliary_kind(table: Mapping[str, Any]) -> str | None:
    """Which auxiliary network a run's configuration describes, or None for a generator's."""
    return next((kind for kind in _KINDS if kind in table), None)


def auxiliary_config(table: Mapping[str, Any], *, name: str) -> AuxiliaryRunConfig:
    """Build and check an auxiliary network's configuration; raises as ``build``."""
    kind = auxiliary_kind(table)
    assert kind is not None
    return build(_KINDS[kind], table, name=name)


def real_clips(cache: Path) -> tuple[list[CachedClip], list[CachedClip]]:
    """Clips of a prepared cache's training and validation speakers; ``DataError`` if there are
    none of a training speaker."""
    clips = load_manifest(cache)
    training = [clip for clip in clips if clip.split == "train"]
    if not training:
        raise DataError(f"{cache}: holds no clip of a training speaker; prepare some")
    return training, [clip for clip in clips if clip.split == "validation"]
