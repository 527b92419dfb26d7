"""The benchmarks run. What they measure is asserted nowhere."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

SMALL = ("adversarial.sync=0.0", "training.precision='32-true'")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "benchmark_training", ROOT / "benchmarks" / "training.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
