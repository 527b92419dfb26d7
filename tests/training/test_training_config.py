"""What makes no sense is refused by its name."""

from typing import Any

import pytest

from stillspeak.errors import ConfigError
from stillspeak.training.config import ObjectiveConfig, TrainingConfig, run_config

NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "training.steps: must be"),
        ({"steps": 5, "audio_steps": 6}, "hold training.audio_steps"),
        ({"audio_steps": -1}, "training.audio_steps: must be"),
        ({"learning_rate": 0.0}, "training.learning_rate"),
        ({"learning_rate": NAN}, "training.learning_rate"),
        ({"audio_learning_rate": -0.1}, "training.audio_learning_rate"),
        ({"weight_decay": -1.0}, "training.weight_decay"),
        ({"clip_norm": NAN}, "training.clip_norm"),
        ({"warmup_steps": -1}, "training.warmup_steps"),
        ({"patience": -1}, "training.patience"),
        ({"betas": (0.9, 1.0)}, "training.betas"),
        ({"decay_from": 1.5}, "training.decay_from"),
        ({"ema": 1.0}, "training.ema"),
        ({"checkpoint_minutes": 0.0}, "training.checkpoint_minutes"),
        ({"log_every": 0}, "training.log_every"),
        ({"validate_every": -1}, "training.validate_every"),
        ({"accumulate": 0}, "training.accumulate"),
        ({"decay_rate": 1.0}, "training.decay_rate"),
        ({"decay_epoch": -1}, "training.decay_epoch"),
        ({"keep_checkpoints": 0}, "training.keep_checkpoints"),
    ],
)
def test_training(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainingConfig(**changes)


@pytest.mark.parametrize("changes", [{"l1": -1.0}, {"gradient": NAN}, {"eyes": float("inf")}])
def test_objective(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"objective.{next(iter(changes))}"):
        ObjectiveConfig(**changes)


def test_an_error_without_any_region_is_no_error() -> None:
    with pytest.raises(ConfigError, match="cannot all be zero"):
        ObjectiveConfig(upper=0, lower=0, mouth=0)
    ObjectiveConfig(upper=0, lower=1, mouth=1)  # the paper's


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"training": {"optimizer": "sgd"}}, r"training\.optimizer"),
        ({"training": {"precision": "8-bit"}}, r"training\.precision"),
        ({"objective": {"perceptive": 1}}, r"objective\.perceptive"),
        ({"generator": {"depth": 3}}, r"generator\.depth"),
        ({"discriminator": {}}, "discriminator"),
    ],
)
def test_a_run_refuses_unknown_keys_and_values(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"run.toml: {key}"):
        run_config(table, name="run.toml")
