"""The benchmarks run. What they measure is asserted nowhere."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fixtures_faces import face_pictures
from stillspeak.data.prepare import CachedClip

ROOT = Path(__file__).resolve().parents[1]

SMALL = ("adversarial.sync=0.0", "training.precision='32-true'")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", ROOT / f"benchmarks/{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return load("training")


def test_training_measures_every_part(
    training: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    speaking_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "results.json"
    command = ["training.py", "--data", speaking_cache, "--configs", "smoke", "--device", "cpu"]
    command += ["--repeats", 1, "--steps", 1, "--matrix", 64, "--output", output]
    for change in SMALL:
        command += ["--set", change]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    training.main()
    (row,) = json.loads(output.read_text())["rows"]
    shares = row["shares of the parts"]
    assert list(shares) == [
        *("generator forward", "generator backward", "frame: advice", "frame: own step"),
        *("R1 (a step's share)", "sequence: advice", "sequence: own step"),
        *("norms and clipping", "optimisers", "EMA"),
    ]
    assert sum(shares.values()) == pytest.approx(1)
    assert (row["batch"], row["GPU busy"]) == (2, None)
    assert row["step with batches made in line_s"] > row["step_s"] > 0
    assert row["share of it"] == pytest.approx(row["GFLOP/s"] / row["matrix product, GFLOP/s"])
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert table[0] == "| | smoke |"
    assert any(line.startswith("| step, s | ") for line in table)
    assert any(line.startswith("| EMA, % | ") for line in table)
    assert not any("GPU busy" in line for line in table)


def test_only_what_a_cpu_cannot_do_is_made_smaller(
    training: ModuleType, speaking_cache: Path
) -> None:
    small = ["generator.identity_channels=[4, 4, 4, 4, 4]", "data.window_frames=8"]
    small += ["data.decoded_frames=8", "adversarial.frame=0.0", "adversarial.sequence=0.0"]
    run, changes = training.build("paper", speaking_cache, "cpu", small)
    assert changes == ("data.batch=2", *small)
    assert run.trainer.config.data.batch == 2
    run, changes = training.build(
        str(ROOT / "configs" / "smoke.toml"), speaking_cache, "cpu", ["data.batch=3"]
    )
    assert changes == ("data.batch=3",)
    assert run.trainer.config.data.batch == 3


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
    assert any(row.startswith("| real | ∞ | 1.000 (1.000 to 1.000) |") for row in rows)
    assert any(row.startswith("| `sharpness` | 1 | as real | ") for row in rows)
    assert "| `psnr` | a | b |" in rows
    results.main()
    assert page.read_text() == text
    page.write_text("no markers")
    with pytest.raises(SystemExit):
        results.main()
    assert page.read_text() == "no markers"
