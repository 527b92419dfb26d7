"""The benchmarks run. What they measure is asserted nowhere."""

import importlib.util
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stillspeak.data.cache import CachedClip
from support.faces import face_pictures

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", ROOT / f"benchmarks/{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_of_results_are_written_between_their_markers(
    write_clip: Callable[..., CachedClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillspeak.evaluation.evaluate import evaluate_model

    results, page = load("results"), tmp_path / "results.md"
    for speaker, name in (("a", "one"), ("a", "two"), ("b", "one")):
        pictures = face_pictures(np.arange(12) % 5 + len(name), ord(speaker))
        write_clip(tmp_path / "c", speaker, name, frames=12, split="test", pictures=pictures)
    for system in ("still", "real"):
        evaluate_model(
            *(system, tmp_path / "c", tmp_path / "r" / system),
            metrics=["psnr", "ssim", "sharpness"],
            workers=0,
            command="a command",
        )
    page.write_text(f"Before.\n{results.BEGIN}\nold\n{results.END}\nAfter.\n")
    command = ["results.py", "--tables", "--results", tmp_path / "r", "--output", page]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    results.main()
    text = page.read_text()
    assert text.startswith(f"Before.\n{results.BEGIN}\n")
    assert text.endswith(f"\n{results.END}\nAfter.\n")
    assert "old" not in text
    assert "Command: `a command`. Split `test`, 3 clips (by speaker: a 2, b 1)." in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| paper: temporal GAN | 27.98 | 0.844 |" in next(r for r in rows if "temporal" in r)
    assert any(row.startswith("| real | ∞ | 1.000 |") for row in rows)
    assert any(row.startswith("| `sharpness` | 1 | as real | ") for row in rows)
    assert "| `psnr` | a | b |" in rows
    results.main()
    assert page.read_text() == text
    assert "### Faces" not in text
    assert "Outside GRID nothing was measured." in text
    page.write_text("no markers")
    with pytest.raises(SystemExit):
        results.main()
    assert page.read_text() == "no markers"


def summary(median: float, people: int, **more: object) -> dict[str, object]:
    """What an evaluation writes of one metric, as far as tables look at it."""
    metric = {
        "unit": "1",
        "better": "higher",
        "mean": median + 0.1,
        "median": median,
        "interval_clips": [0.25, 0.5],
        "interval_speakers": [0.2, 0.6],
        "speakers": {f"s{n}": {"clips": 1, "mean": median} for n in range(people)},
        "undefined": 0,
    }
    return {
        "system": {"kind": "model", "label": "m", "sha256": "abc"},
        "command": "a command",
        "split": "test",
        "clips": people,
        "failed": [],
        "left_out": {},
        "metrics": {"lip_correlation": metric, "psnr": metric},
        "versions": {},
        **more,
    }


def test_grid_and_the_wild_stand_beside_each_other(tmp_path: Path) -> None:
    results = load("results")
    failed = [{"clip": "x/y", "reason": "y.mp4: has no sound"}]
    for place, one in (("m", summary(0.7, 2)), ("wild/m", summary(0.1, 5, failed=failed))):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "summary.json").write_text(json.dumps(one))
    text = results.tables(tmp_path, ["m"])
    assert "Outside GRID: 5 videos of 5 people" in text
    faces = text[text.index("### Faces") : text.index("### All metrics")].splitlines()
    rows = [line for line in faces if line.startswith("| `")]
    assert rows == [
        "| `lip_correlation` | 1 | higher | GRID | 0.800 (0.200 to 0.600), 0.700 |",
        "| `lip_correlation` | 1 | higher | wild | 0.200 (0.250 to 0.500), 0.100 |",
    ]
    # Nowhere on its own: not with all other metrics, and by speaker with the wild beside.
    assert "lip_correlation" not in text[text.index("### All") : text.index("### By speaker")]
    assert "| `lip_correlation` | s0 | s1 | wild |" in text
    assert "| m | 0.700 | 0.700 | 0.200 |" in text
    assert "- m, wild: x/y failed: y.mp4: has no sound" in text
    (tmp_path / "wild" / "m" / "summary.json").unlink()
    assert "| `lip_correlation` | 1 | higher | wild | – |" in results.tables(tmp_path, ["m"])


def test_where_the_wild_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = load("results")
    monkeypatch.setattr(results, "ROOT", tmp_path / "a" / "checkout")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    monkeypatch.delenv("STILLSPEAK_WILD", raising=False)
    assert results.wild_folder(None) is None
    shared = tmp_path / "a" / "shared" / "wild"
    shared.mkdir(parents=True)
    assert results.wild_folder(None) == shared
    monkeypatch.setenv("STILLSPEAK_WILD", str(tmp_path))
    assert results.wild_folder(None) == tmp_path
    assert results.wild_folder(shared) == shared
    with pytest.raises(results.DataError, match="no such folder of videos"):
        results.wild_folder(tmp_path / "none")
    # What is asked of the folder: what faces do alone, and the crops once for all systems.
    asked = []
    monkeypatch.setattr(
        results, "evaluate_folder", lambda *a, **k: asked.append((a, k)) or failed_one()
    )
    arguments = results.argparse.Namespace(
        systems=["still"], results=tmp_path / "r", clips=2, sync=None, workers=1
    )
    assert results.evaluate_systems(arguments, shared) == ["still, outside GRID: a/b: no face"]
    ((place, options),) = asked
    assert place == ("still", shared, tmp_path / "r" / "wild" / "still")
    assert {"closures_found", "lip_lag", "head_amplitude"} <= set(options["metrics"])
    assert "psnr" not in options["metrics"]
    assert options["real_cache"] == tmp_path / "r" / "wild" / "aligned"
    assert "still, outside GRID: 1 clips scored" in capsys.readouterr().err


def failed_one() -> SimpleNamespace:
    failure = SimpleNamespace(clip="a/b", reason="no face")
    return SimpleNamespace(scored=1, reused=0, failed=[failure])


def test_moods_asked_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moods, asked = load("moods"), []
    for name in ("a_neutral.jpg", "a_smiling.jpg", "b_neutral.png", "c.txt"):
        (tmp_path / name).touch()

    def judged(task: tuple[Path, str, int]) -> str | None:
        asked.append(task)
        mood, strength = task[1].split(":")
        assert strength == "0.5"
        if mood == "sad" and task[0].stem == "b_neutral":
            return None
        return "surprised" if mood == "fearful" else mood

    monkeypatch.setattr(moods, "judged", judged)
    monkeypatch.setattr(moods, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(moods, "frames", lambda *task: [np.zeros((40, 30, 3), np.uint8)] * 9)
    sheet = tmp_path / "sheet.png"
    command = [str(tmp_path), "--strength", "0.5", "--sheet", str(sheet), "--workers", "1"]
    moods.main(command)
    said = capsys.readouterr()
    assert {face.name for face, *_ in asked} == {"a_neutral.jpg", "b_neutral.png"}
    assert len({seed for *_, seed in asked}) == len(asked) == 14
    assert "| happy | 0 | 2 | 0 | 0 | 0 | 0 | 0 | 1.00 |" in said.out
    assert "| sad | 0 | 0 | 1 | 0 | 0 | 0 | 0 | 1.00 |" in said.out
    assert "| fearful | 0 | 0 | 0 | 0 | 2 | 0 | 0 | 0.00 |" in said.out
    assert "Mean recall 0.86" in said.out and "1 videos show no face" in said.err
    with Image.open(sheet) as picture:
        assert picture.size == (18 * 144 + 17 * 2, 2 * 192 + 2)
    with pytest.raises(SystemExit, match="holds no portraits"):
        moods.main([str(tmp_path), "--count", "0"])


def test_a_tracked_video_has_its_lines() -> None:
    from support.animate import portrait, shared_detector

    still = [np.roll(portrait(), k % 3, axis=0) for k in range(12)]
    names = [line.split(" | ")[0] for line in load("tracker").rows(still, shared_detector())]
    assert names == ["picture by picture", "unsteadied", "tracked", "tracked, no look-ahead"]
    lag_and_size = load("tracker").lag_and_size
    real = np.sin(np.arange(60) / 3)
    lag, size = lag_and_size(0.5 * np.roll(real, 1), real)
    assert lag == pytest.approx(1, abs=0.2) and size == pytest.approx(0.5)
