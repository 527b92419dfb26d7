"""The generator's configuration: derived numbers, and each rule."""

import dataclasses
import re
from typing import Any

import pytest

from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig


def test_the_paper_s_numbers() -> None:
    config = GeneratorConfig()
    assert (config.height, config.width, config.fps, config.sample_rate) == (128, 96, 25, 16_000)
    assert config.hop == 640
    assert config.window == 2560
    assert config.audio_steps == (160, 80, 40, 20, 10, 5)
    assert config.coarse_size == (4, 3)
    assert config.latent_dim == 316
    assert config.noise_std == 0.33


def test_the_released_checkpoints_window() -> None:
    config = GeneratorConfig(window_seconds=0.2)
    assert config.window == 3200
    assert config.audio_steps == (200, 100, 50, 25, 12, 6)


def test_steps_are_milliseconds_at_any_whole_rate() -> None:
    config = GeneratorConfig(sample_rate=48_000)
    assert (config.hop, config.window) == (1920, 7680)
    assert config.audio_steps == (160, 80, 40, 20, 10, 5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"decoder": "gan"}, "generator.decoder: must be"),
        ({"identity_channels": ()}, "generator.identity_channels"),
        ({"identity_channels": (64, 0, 8, 8, 8)}, "generator.identity_channels"),
        ({"audio_channels": ()}, "generator.audio_channels"),
        ({"identity_dim": 0}, "generator.identity_dim: must be at least 1"),
        ({"audio_dim": 0}, "generator.audio_dim: must be at least 1"),
        ({"context_dim": -1}, "generator.context_dim: must be at least 1"),
        ({"context_layers": -1}, "generator.context_layers: must be at least 0"),
        ({"noise_dim": -1}, "generator.noise_dim: must be at least 0"),
        ({"context_layers": 0, "context_dim": 8}, "generator.context_dim must be"),
        ({"height": 0}, "generator.height: must be at least 1"),
        ({"width": -96}, "generator.width: must be at least 1"),
        ({"fps": 0}, "generator.fps: must be at least 1"),
        ({"sample_rate": 0}, "generator.sample_rate: must be at least 1"),
        ({"decoder": "warp"}, "generator.decoder: must be"),
        ({"height": 120}, "multiples of 32, not 120x96"),
        ({"width": 100}, "multiples of 32, not 128x100"),
        ({"sample_rate": 44_100}, "whole number of kHz"),
        ({"fps": 30}, "a multiple of generator.fps"),
        ({"window_seconds": 0.02}, "even margin around one frame"),
        ({"window_seconds": 0.16 + 1 / 16_000}, "even margin around one frame"),
        ({"window_seconds": -1.0}, "generator.window_seconds: must be greater than 0"),
        ({"window_seconds": float("nan")}, "generator.window_seconds: must be a finite number"),
        ({"window_seconds": 0.04, "audio_channels": (4,) * 7}, "too short for"),
        ({"noise_std": -0.1}, "generator.noise_std"),
        ({"noise_std": float("nan")}, "generator.noise_std"),
    ],
)
def test_each_rule(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        GeneratorConfig(**changes)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GeneratorConfig().height = 64  # type: ignore[misc]
