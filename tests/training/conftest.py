"""Trainers in a test's folder, and the smallest run that has every discriminator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric import Fabric

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.data.dataset import TrainingData
from stillspeak.system.configuration import merge, read_toml
from stillspeak.system.runtime import Precision
from stillspeak.training.config import RunConfig, run_config
from stillspeak.training.loop import TrainingLoop
from stillspeak.training.trainer import GeneratorTraining

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"

_AUDIO = {"audio_channels": [4, 4, 4, 4, 6, 6], "audio_dim": 6, "image_dim": 6}
GAME: dict[str, Any] = {
    "generator": {"decoder": "unet"},
    "data": {"batch": 1, "window_frames": 12, "decoded_frames": 5, "consecutive": True},
    "adversarial": {
        "frame": 0.1,
        "sequence": 0.2,
        "sync": 0.3,
        **dict.fromkeys(("r1", "start", "fade", "frames", "sequence_min"), 0),
    },
    "frame_discriminator": {"channels": [4, 4, 6, 6, 8]},
    "sequence_discriminator": {"channels": [4, 4, 6, 6, 8], "state_dim": 6, **_AUDIO},
    "sync_discriminator": {"channels": [4, 4, 6, 6], **_AUDIO},
    "training": {"audio_steps": 0},
}


@pytest.fixture(scope="session")
def game() -> Callable[..., RunConfig]:
    """Makes the smoke configuration with all three discriminators, and a difference."""

    def make_config(**tables: Any) -> RunConfig:
        return run_config(merge(merge(read_toml(SMOKE), GAME), tables), name="game")

    return make_config


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture(scope="module")
def clips(speaking_cache: Path) -> list[CachedClip]:
    return load_manifest(speaking_cache)


@pytest.fixture
def make(fabric: Fabric, clips: list[CachedClip], tmp_path: Path) -> Callable[..., TrainingLoop]:
    """Makes a generator's training in the test's folder."""

    def make_loop(
        config: RunConfig | None = None, folder: str = "run", *, validate: bool = False
    ) -> TrainingLoop:
        config = config or run_config(read_toml(SMOKE), name="smoke")
        data = TrainingData(
            [c for c in clips if c.split == "train"],
            config.data,
            config.augment,
            config.generator,
            seed=config.training.seed,
        )
        validation = [c for c in clips if c.split == "validation"] if validate else []
        precision = Precision("32-true", "a test")
        task = GeneratorTraining(config, fabric, data, validation, precision=precision)
        return TrainingLoop(task, fabric, tmp_path / folder, {"command": "a test"})

    return make_loop
