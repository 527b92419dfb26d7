"""``benchmarks/marks.py`` runs. Its times are asserted nowhere."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from support.marks import speaking

pytestmark = pytest.mark.e2e

PROGRAM = Path(__file__).resolve().parents[1] / "benchmarks" / "marks.py"


@pytest.fixture(scope="module")
def marks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_marks", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_part_is_measured(marks, monkeypatch, tmp_path, capsys):
    frames = [np.array(frame) for frame in speaking(15)]
    names = ("crop 96x128", "photo 512x512", "photo 1024x1024")
    monkeypatch.setattr(marks, "animated", lambda: dict.fromkeys(names, frames))
    monkeypatch.setattr(marks, "CONDITIONS", marks.CONDITIONS[:1])
    monkeypatch.setattr(marks, "judged", lambda *_: [])
    # The program puts its own folder there, which must not outlive it.
    monkeypatch.setenv("STILLSPEAK_CONFIG", str(tmp_path / "config"))
    words = ["--identifiers", "1", "--trials", "20", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["marks.py", *words])
    marks.main()
    table = json.loads((tmp_path / "out" / "marks.json").read_text())
    assert [row["bit_error_rate"] for row in table["bits"]] == [0, 0, 0]
    assert {row["identifier_read"] for row in table["bits"]} == {1}
    assert {row["still_pixels_that_move"] for row in table["costs"]} == {0}
    assert all(row["bytes"] > 0 for row in table["credentials"])
    assert table["false_alarms"]["alarms"] == 0
    assert "| photo 512x512 | 0.000 (100%) |" in capsys.readouterr().out


def test_the_forty_files_are_of_the_kinds_that_they_say(marks, tmp_path):
    """One of each kind; all forty take minutes."""
    portraits = {"crop 384x512": [np.array(frame) for frame in speaking(5)]}
    portraits["photo 512x512"] = portraits["crop 384x512"]
    made = [
        next(make(portraits, tmp_path / str(k)))
        for k, make in enumerate((marks.intact, marks.unmarked))
    ]
    assert [marks.inspect_file(path).verdict for _, path in made] == ["intact", "unmarked"]
    for what, path in marks.tampered(portraits | {"photo 512x512": speaking(10)}, tmp_path / "t"):
        assert marks.inspect_file(path).verdict == "tampered", what
