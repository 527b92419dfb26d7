"""The comparison of ways to run a frame, in short: all but int8 draw what the modules draw."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fixtures_animate import lively, portrait, portrait_face
from stillspeak.face.align import crop_face, face_transform
from stillspeak.models.pixels import to_model

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # it takes its material from streaming.py
    place = ROOT / "benchmarks/step_paths.py"
    spec = importlib.util.spec_from_file_location("benchmark_step_paths", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_step_paths", module)  # its dataclass looks there
    spec.loader.exec_module(module)
    transform = face_transform(portrait_face().points)
    still = to_model(crop_face(portrait(), transform, 128, 96)[None]).numpy()
    monkeypatch.setattr(module, "face_inputs", lambda *_: {"still": still})
    # Compiling takes the better part of a minute.
    monkeypatch.setattr(
        module, "compiled_way", lambda m, threads: module.torch_way(m, m.generator, threads=threads)
    )
    monkeypatch.setattr(module, "CALIBRATED", 5)
    return module


def test_every_way_draws_the_same_frames(
    paths: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setattr(paths, "load_model", lambda _: lively())
    output = tmp_path / "paths"
    arguments = ["step_paths.py", "--frames", "6", "--rounds", "2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    paths.main()
    told = json.loads(output.with_suffix(".json").read_text("utf-8"))
    rows = told["rows"]
    assert {row["threads"] for row in rows} == {1, *{paths.os.cpu_count()}}
    off = {}
    for row in rows:
        off[row["way"]] = max(off.get(row["way"], 0.0), row["most_off"])
        assert row["median_ms"] > 0
    assert off["modules, float32"] < 0.05
    assert off["engine, float32"] < 0.05
    assert off["ONNX Runtime, float32"] < 0.05
    assert off["engine, decoder in bfloat16"] > off["engine, float32"]
    assert off["ONNX Runtime, int8"] > off["ONNX Runtime, float32"]
    text = output.with_suffix(".md").read_text("utf-8")
    assert text in capsys.readouterr().out
    assert text.count("\n| ") == len(rows) + 2


def test_the_sentence_comes_over_and_over(paths: ModuleType) -> None:
    material = paths.Material(lively())
    window, noise = material.at(len(material.windows) + 3)
    assert np.array_equal(window, material.windows[3:4])
    assert np.array_equal(noise, material.noise[3:4])
