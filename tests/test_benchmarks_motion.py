"""The benchmark of motion, in short, beside a head that somebody made up."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillspeak.data.cache import CachedClip

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[1]


def test_it_tells_the_same_of_made_and_real_heads(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    write_clip: Callable[..., CachedClip],
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("motion", ROOT / "benchmarks/motion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    still = np.zeros(80)
    shapes = {"eyeBlinkLeft": still, "eyeBlinkRight": still}
    for seed, name in enumerate(("one", "two")):
        random = np.random.default_rng(seed)
        head = np.cumsum(random.standard_normal((80, 3)), 0) / 10
        audio = 0.1 * random.standard_normal(80 * 640)
        about = {"frames": 80, "split": "test", "head": head, "shapes": shapes, "audio": audio}
        write_clip(tmp_path, "a", name, **about)
    arguments = ["--cache", str(tmp_path), "--seeds", "1", "--seconds", "4"]
    monkeypatch.setattr(sys, "argv", ["motion.py", *arguments])
    module.main()
    table = json.loads(capsys.readouterr().out)
    heads = table["cache"]
    assert heads["clips"] == 2 and heads["seconds"] == 6.4
    assert heads["amplitude, median of clips"] > 0
    assert heads["real"].keys() == heads["made"].keys()
    assert sum(heads["made"]["shares of power by octave"].values()) == pytest.approx(1, abs=0.01)
    assert heads["real"]["blinks a second"] == 0
    assert table["speech"]["microseconds a frame"] > 0
    assert max(table["silence"]["deviation"]) < 3
