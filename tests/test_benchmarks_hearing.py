"""The benchmark of hearing, in short, with a model whose weights mean nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.models.pose import PoseConfig
from stillspeak.models.speech import SpeechEncoderConfig

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[1]


def test_it_tells_time_changes_and_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("hearing", ROOT / "benchmarks/hearing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(1)
    config = GeneratorConfig(
        decoder="layers",
        audio_input="speech",
        noise_dim=0,
        speech=SpeechEncoderConfig(width=16, heads=2, behind=10, ahead=(1, 1)),
        pose=PoseConfig(hidden=8, basis=3),
    )
    generator = Generator(config).eval()
    encoder = generator.context_encoder
    encoder.pose.basis.normal_()
    monkeypatch.setattr(module, "load_model", lambda _: generator)
    monkeypatch.setattr(module, "WARM", 5)
    arguments = ["hearing.py", "--models", "a", "b", "--frames", "6", "--minutes", "0.02"]
    monkeypatch.setattr(sys, "argv", arguments)
    module.main()
    told = json.loads(capsys.readouterr().out)
    assert set(told["step"]) == {"a", "b"}
    assert told["step"]["a"]["median_ms"] > 0
    assert told["long"]["last_ms"] > 0
    # Level is relative: softer is the same, up to the floor.
    assert told["correlation"]["30 dB softer"] > 0.99
    assert set(told["rest"]) == {
        *("digital silence", "room, -60 dB"),
        *("noise as loud as speech", "music"),
    }
    # Digital silence is the same in every frame, once nothing else is remembered.
    assert told["rest"]["digital silence"]["deviation"] < 1e-3
