"""The benchmarks of speed run. What they measure is asserted nowhere."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stillspeak.weights import save_model
from support.animate import save_lively, use_shared_detector
from support.conceal import talker, talking, write_timed

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    place = ROOT / f"benchmarks/{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_prints_a_row_for_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("imports")
    clock, cpu = module.inside("json")
    assert cpu >= 0
    assert clock > 0
    assert module.whole(["--version"]) > (0, 0)
    monkeypatch.setattr(module, "inside", lambda name: (0.25, 0.125))
    monkeypatch.setattr(module, "whole", lambda arguments: (0.5, 0.25))
    monkeypatch.setattr(sys, "argv", ["imports.py", "--repeats", "2"])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert "| `import stillspeak` | 0.250 | 0.125 |" in lines
    assert "| `stillspeak --help`, the whole process | 0.500 | 0.250 |" in lines


def test_animate_measures_its_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_shared_detector(monkeypatch)
    weights = str(save_lively(tmp_path / "small.safetensors"))
    measured = load("animate").stages(0.4, weights)
    assert {"generate_s", "generate_render_encode_s", "peak_mb"} <= set(measured)
    assert all(value >= 0 for value in measured.values())


def test_animate_measures_a_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_shared_detector(monkeypatch)
    weights = str(save_lively(tmp_path / "small.safetensors"))
    row = load("animate").face_row(96, 20, 0.0, weights)
    assert (row["face_lines"], row["photo_lines"], row["degrees"]) == (96, 192, 20)
    assert row["frames_per_s"] > 0


def test_dub_measures_the_command_and_its_stages(tmp_path: Path) -> None:
    weights = str(tmp_path / "small.safetensors")
    save_model(talker(), Path(weights), {"made": "for tests"})
    source = write_timed(tmp_path / "a.mp4", talking(20), range(20), None)
    module = load("dub")
    video, sound = tmp_path / "long.mp4", module.make_sound(tmp_path / "a.wav", 1.2)
    made = module.make_video(video, source, 256, 1.2)
    assert made == {"seconds": 1.2, "frames": 30, "size": "256x256"}
    row = module.command(video, sound, tmp_path / "out.mp4", weights)
    assert row["drawn"] == 30
    assert all(value > 0 for value in row.values())
    costs = module.stages(video, sound, tmp_path / "stages.mp4", weights)
    assert len(costs) == 5
    assert all(value >= 0 for pair in costs.values() for value in pair)
