"""scripts/fit_mood.py: what a voice sounds like, taught on sounds whose features say so."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from stillspeak.models.mood import EMOTIONS
from stillspeak.motion.listener import MoodListener, load_mood
from stillspeak.motion.moods import MOODS
from stillspeak.weights import read_info
from support.animate import lively

ROOT = Path(__file__).resolve().parents[1]
WIDTH, SECOND = 16, 50


@pytest.fixture
def mood(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location("fit_mood", ROOT / "scripts/fit_mood.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sound(emotion: int, speaking: bool = True, seed: int = 0) -> np.ndarray:
    """(n, D) features of three seconds; the first says whether somebody speaks."""
    features = np.random.default_rng(seed).normal(0, 0.5, (3 * SECOND, WIDTH)).astype(np.float32)
    features[:, 0] = 2 if speaking else -2
    features[:, 1 + emotion] += 2 * speaking
    return features


class Ears:
    """In place of the real ones: two actors, ten readers."""

    def __init__(self, speech: Path, cache: Path) -> None:
        self.generator = lively("layers")

    def hear(self, corpus: str, change: str = "clean", seconds: float = 60.0) -> list[object]:
        made = []
        if corpus == "emodb":
            for actor in ("03", "08"):
                for emotion, letter in enumerate("NFTWAEL"):
                    made += [
                        (f"{actor}/{actor}a0{take}{letter}a", sound(emotion, seed=take))
                        for take in (1, 2)
                    ]
        elif corpus == "rest":
            made = [(f"rest/{k}", sound(0, speaking=False, seed=k)) for k in range(4)]
        else:
            made = [(f"{100 + k}/{100 + k}-1-000{k}", sound(0, seed=k)) for k in range(10)]
        loud = -12 if corpus == "rest" else -2
        return [
            SimpleNamespace(name=name, features=x, power=np.full(len(x), loud, np.float32))
            for name, x in made
        ]


def test_it_makes_a_classifier_that_hears_what_it_was_taught(
    mood: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mood, "Ears", Ears)
    out, numbers = tmp_path / "mood.safetensors", tmp_path / "report.json"
    assert mood.main([str(tmp_path), str(tmp_path), str(out), "--report", str(numbers)]) == 0
    report = json.loads(numbers.read_text())
    assert report["emodb"]["recall"] == 1 and np.trace(report["emodb"]["confusion"]) == 28
    assert report["libri_clean"]["neutral"] == 1
    assert report["scores"] == read_info(out)["info"]["scores"]
    listener = MoodListener(network=load_mood(out))
    shown = listener.hear(np.tile(sound(EMOTIONS.index("anger"), seed=9), (2, 1))[None])
    assert shown[-1].argmax() == MOODS.index("angry") and shown[-1].max() > 0.5
    assert load_mood(out).hears(lively("layers").speech)


def test_calibration_finds_by_how_much_answers_are_too_sure(mood: ModuleType) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 7)).astype(np.float32)
    true = (logits + random.gumbel(size=logits.shape)).argmax(1)  # drawn by their softmax
    assert mood.temperature(logits, true) == pytest.approx(1, abs=0.1)
    assert mood.temperature(3 * logits, true) == pytest.approx(3, abs=0.3)
    honest, boastful = (mood.reliability(mood.softmax(k * logits), true) for k in (1, 3))
    assert honest["error"] < 0.02 < 0.2 < boastful["error"]
    assert sum(row["count"] for row in honest["bins"]) == len(true)


def test_recall_counts_each_emotion_the_same(mood: ModuleType) -> None:
    true = np.array([0] * 90 + [1, 2, 3, 4, 5, 6])
    answer = np.array([0] * 90 + [0, 2, 3, 4, 5, 6])
    matrix = mood.confusion(true, answer)
    assert matrix[1, 0] == 1 and matrix.sum() == 96
    assert mood.recall(matrix) == pytest.approx(6 / 7)


def test_a_speaker_is_left_out_with_all_that_was_heard_of_them(mood: ModuleType) -> None:
    ears = Ears(Path(), Path())
    gate = mood.voice_gate([*ears.hear("libri_many"), *ears.hear("rest")])
    ear = mood.classifier(mood.MoodConfig(WIDTH), gate)
    data = mood.taught(ears.hear("emodb"), ear, read=False)
    wrong = data.emotion.copy()
    wrong[data.speaker == "03"] = 0  # what must not be learned from
    spoilt = mood.teach(data._replace(emotion=wrong), "03")
    assert np.allclose(spoilt.weight, mood.teach(data, "03").weight)
    assert not np.allclose(spoilt.weight, mood.teach(data._replace(emotion=wrong)).weight)
