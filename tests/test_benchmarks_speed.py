"""The benchmarks of speed run. What they measure is asserted nowhere."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.animate import save_lively, use_shared_detector

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
