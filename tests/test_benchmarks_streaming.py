"""The benchmark of live speed runs, each part in short. What it measures is asserted nowhere."""

import importlib.util
import json
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stillspeak.models.config import GeneratorConfig
from support.animate import portrait, save_lively, shared_detector, use_shared_detector

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


@pytest.fixture(scope="module")
def streaming() -> ModuleType:
    return load("streaming")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_lively(tmp_path_factory.mktemp("streaming") / "small.safetensors"))


def test_the_reference_is_the_paper_s_full_width(streaming: ModuleType) -> None:
    assert streaming.reference_config() == GeneratorConfig(decoder="unet")


def test_steps_of_all_stand_beside_each_other(
    streaming: ModuleType, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_shared_detector(monkeypatch)
    small = GeneratorConfig(
        identity_channels=(4,) * 5, audio_channels=(4,) * 6, audio_dim=8, context_dim=8
    )
    monkeypatch.setattr(streaming, "reference_config", lambda: small)
    monkeypatch.setattr(streaming, "WARM", 1)
    views = {"crop": {"crop": True}, "photo": {"size": 256, "head_motion": 1.0}}
    monkeypatch.setattr(streaming, "VIEWS", views)
    rows = streaming.steps([weights], 6, 2)
    assert [(row["what"], row["view"], row["threads"]) for row in rows] == [
        ("small", "crop", 1),
        ("small", "photo", 1),
        ("small", streaming.BARE, 1),
        ("small, ONNX Runtime", streaming.BARE, 1),
        *(("reference", streaming.BARE, n) for n in sorted({1, os.cpu_count()})),
    ]
    for row in rows:
        assert row["frames"] == 6
        assert row["fps"] > 0
        assert 0 < row["clock_p50_ms"] <= row["clock_p99_ms"]
    assert max(row["times_reference"] for row in rows if row["what"] == "reference") == 1
    assert rows[0]["times_reference_cpu"] == rows[0]["fps_cpu"] / rows[4]["fps_cpu"]


def test_a_cold_start_is_of_a_process_of_its_own(streaming: ModuleType, weights: str) -> None:
    rows = streaming.cold(weights, 1)
    assert [(row["still"], row["starts"]) for row in rows] == [("aligned crop", 1), ("detector", 1)]
    assert all(0 < row["least_s"] == row["median_s"] == row["most_s"] for row in rows)


def test_sessions_are_watched_until_they_are_late(
    streaming: ModuleType, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_shared_detector(monkeypatch)
    threads = threading.active_count()
    monkeypatch.setattr(streaming, "LATE", 1.0)
    rows = streaming.sessions(weights, 2, 0.4)
    assert [(row["view"], row["sessions"]) for row in rows] == [
        *(("crop", 1), ("crop", 2), ("photo, 512 lines", 1), ("photo, 512 lines", 2)),
    ]
    monkeypatch.setattr(streaming, "LATE", -1.0)
    rows = streaming.sessions(weights, 2, 0.4)
    assert [(row["sessions"], row["held"]) for row in rows] == [(1, False), (1, False)]
    assert threading.active_count() == threads


def test_memory_is_read_as_the_sound_goes_on(
    streaming: ModuleType, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_shared_detector(monkeypatch)
    rows = streaming.memory(weights, 4 / 3600, minutes=1 / 60)
    assert [round(60 * row["minutes"]) for row in rows] == [0, 1, 2, 3, 4, 4]
    assert rows[-1]["stamp_error"] == 0
    assert rows[-1]["frames"] > 100
    assert all(row["rss_mb"] > 50 for row in rows)


def test_calls_are_those_of_the_other_benchmark(
    streaming: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def run(*arguments: Any) -> list[dict[str, float]]:
        asked.append(arguments)
        return [{"sessions": 1}]

    module = load("webrtc")
    assert list(module.run.__code__.co_varnames[:3]) == ["most", "seconds", "model"]
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(streaming, "sibling", lambda name: module)
    assert streaming.calls("small", 2, 3.0) == [{"sessions": 1}]
    assert asked == [(2, 3.0, "small")]


def test_what_it_writes(
    streaming: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"minutes": 1.0, "frames": 1500, "rss_mb": 321.5}
    monkeypatch.setattr(streaming, "memory", lambda model, hours: [row] * 40)
    found = {"still": "detector", "starts": 3, "median_s": 1.5, "least_s": 1.0, "most_s": 2.0}
    monkeypatch.setattr(streaming, "cold", lambda model, starts: [found])
    words = ["streaming.py", "--parts", "memory", "cold", "--output", str(tmp_path / "r" / "s")]
    monkeypatch.setattr(sys, "argv", words)
    streaming.main()
    page = (tmp_path / "r" / "s.md").read_text()
    assert "| detector | 3 | 1.50 | 1.00 | 2.00 |" in page
    assert page.count("| 1 | 1500 | 321.5 |") in (12, 13, 14, 15)
    assert "frames/s" not in page
    told = json.loads((tmp_path / "r" / "s.json").read_text())
    assert len(told["memory"]["rows"]) == 40
    assert told["machine"]["cores"] == os.cpu_count()
    assert page in capsys.readouterr().out


def test_nothing_of_the_shared_detector_was_closed() -> None:
    assert shared_detector().detect(portrait())
