"""The benchmark that dubs clips with their own sound measures what it says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stillspeak.media.video_writer import write_video
from support.animate import portrait, speech

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("self_dub", ROOT / "benchmarks" / "self_dub.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["self_dub"] = found  # where dataclasses look up their annotations
    spec.loader.exec_module(found)
    return found


def test_late_lips_have_a_positive_lag(module: ModuleType) -> None:
    real = np.random.default_rng(0).normal(size=60)
    assert module.best_lag(np.roll(real, 2), real)[1] == 2
    assert module.best_lag(np.roll(real, -3), real)[1] == -3


def test_frames_without_a_face_do_not_count(module: ModuleType) -> None:
    real = np.arange(10.0)
    made = real.copy()
    made[3] = np.nan
    assert module.correlation(made, real) == pytest.approx(1)


def test_trembling_is_told_from_a_still_picture(module: ModuleType) -> None:
    random = np.random.default_rng(1)
    noise = random.integers(-3, 4, (8, 120, 120, 3))
    real = [np.clip(128 + one, 0, 255).astype(np.uint8) for one in noise]
    made = [one.copy() for one in real]
    for one in made:
        one[40:100, 20:100] = np.clip(
            one[40:100, 20:100] + random.integers(-6, 7, (60, 80, 3)), 0, 255
        )
    points = np.full((8, 478, 2), 60.0)
    points[:, 33], points[:, 263] = (40, 40), (80, 40)
    border, face = module.flicker(real, made, points)
    assert border > 1.3 and face > 1.3


@pytest.mark.e2e
def test_the_whole_program_runs(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", [portrait()] * 12, audio=speech(0.5))
    scores = tmp_path / "scores.json"
    arguments = ["self_dub.py", "--videos", str(tmp_path), "--json", str(scores)]
    monkeypatch.setattr(sys, "argv", arguments)
    module.main()
    written = json.loads(scores.read_text("utf-8"))
    assert [one["frames"] for one in written] == [12, 12]
    assert all(one["drawn"] == 12 and one["sharpness"] > 0.5 for one in written)
    assert '"clips": 2' in capsys.readouterr().out
