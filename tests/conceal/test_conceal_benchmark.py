"""``benchmarks/conceal.py``: what is lost, the simple means, the scores, a small run."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stillspeak.dub import mouth_model as core
from support.animate import save_lively, shared_detector, speech
from support.conceal import talking, write_timed

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "benchmark_conceal", ROOT / "benchmarks/conceal.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("percent", "mean"), [(5, 4.0), (20, 8.0), (50, 16.0)])
def test_bursts_take_the_share_that_was_asked_for(benchmark, percent, mean):
    random = np.random.default_rng(0)
    masks = [benchmark.bursts(75, percent, mean, random) for _ in range(20)]
    assert all(not mask[0] and not mask[-1] and mask.any() for mask in masks)
    assert np.mean(masks) == pytest.approx(percent / 100, rel=0.15)
    for mask in masks:
        assert np.array_equal(benchmark.gap_lengths(mask) > 0, mask)
    again = benchmark.bursts(75, percent, mean, np.random.default_rng(0))
    assert np.array_equal(again, masks[0])


def test_simple_means(benchmark):
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 2, 2, 3), 10, np.uint8)
    lost = np.array([False, True, True, False, False])
    assert benchmark.simple(frames, lost, hold=True)[:, 0, 0, 0].tolist() == [0, 0, 0, 30, 40]
    assert benchmark.simple(frames, lost, hold=False)[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert benchmark.gap_lengths(lost).tolist() == [0, 2, 2, 0, 0]


def test_a_summary_pools_the_lips_and_leaves_out_other_gaps(benchmark):
    def sample(openings, real, gaps):
        count = len(openings)
        scores = {key: [30.0] * count for key in ("psnr", "ssim", "mouth_psnr", "mouth_ssim")}
        return {"gaps": gaps, **scores, "opening": openings, "real": real, "rest": 1.0}

    samples = [sample([1.0, 3.0, 9.0], [2.0, 6.0, 0.0], [2, 2, 9]), sample([2.0], [4.0], [1])]
    made = benchmark.summary(samples, (1, 2))
    assert made["frames"] == 3
    assert made["lip_correlation"] == pytest.approx(1.0)
    assert made["lip_amplitude"] == pytest.approx(0.5)
    assert made["lip_error"] == pytest.approx(2.0)
    assert made["lips_found"] == 1.0


def test_a_small_run(benchmark, tmp_path, monkeypatch, capsys):
    clip = tmp_path / "grid" / "s2" / "bbaf2n.mp4"
    clip.parent.mkdir(parents=True)
    write_timed(clip, talking(20), range(20), speech(0.9))
    model = save_lively(tmp_path / "small.safetensors", "layers")
    monkeypatch.setenv("STILLSPEAK_GRID", str(tmp_path / "grid"))
    monkeypatch.setattr(core, "MediaPipeDetector", shared_detector)
    monkeypatch.setattr(benchmark, "CONDITIONS", {20: 4.0})
    output = tmp_path / "results"
    arguments = ["--speakers", "s2", "--clips", "1", "--model", model, "--output", output]
    monkeypatch.setattr(sys, "argv", ["conceal.py", *map(str, arguments)])
    benchmark.main()
    record = json.loads((output / "RESULTS.json").read_text("utf-8"))
    (row,) = record["by_loss"].values()
    assert list(row) == list(benchmark.METHODS)
    assert {values["frames"] for values in row.values()} == {row["hold"]["frames"]}
    assert row["linear"]["psnr"] > 20
    assert record["clips"] == ["s2/bbaf2n"]
    assert (output / "table.md").read_text("utf-8").count("| ours |") >= 2
    assert "PSNR, dB" in capsys.readouterr().out


def test_without_the_corpus_it_says_so(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("STILLSPEAK_GRID", str(tmp_path / "grid"))
    monkeypatch.setattr(sys, "argv", ["conceal.py"])
    with pytest.raises(SystemExit, match=r"^conceal: .*(GRID|grid)"):
        benchmark.main()
