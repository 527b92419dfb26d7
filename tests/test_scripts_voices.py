"""scripts/make_voices.py and scripts/make_rest.py: what the pose predictor hears beside clips."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stillspeak.data.cache import load_manifest
from stillspeak.data.layouts.grid import GRID_WORDS, Word
from stillspeak.media.audio import load_audio

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def voices() -> ModuleType:
    return load("make_voices")


@pytest.fixture(scope="module")
def rest() -> ModuleType:
    return load("make_rest")


# --- voices -----------------------------------------------------------------------------------


def test_every_word_of_grid_can_be_spelled(voices: ModuleType) -> None:
    assert {word for place in GRID_WORDS for word in place.values()} == set(voices.SPELLED)
    assert voices.spelled("zero", "bm_daniel") == "zˈɪəɹQ"
    assert voices.spelled("zero", "af_bella") == "zˈɪɹO"
    assert voices.spelled("four", "af_bella") == "fˈɔɹ"


def test_frames_add_up_and_every_sound_has_one(voices: ModuleType) -> None:
    frames = voices.spread(np.array([9.0, 0.3, 0.3, 0.3]), 8, "pˈlɪ")
    assert frames.sum() == 8
    assert min(frames[[0, 2, 3]]) == 1
    assert voices.spread(np.array([1.0, 1.0]), 1, "bˈ").sum() == 1


def test_words_begin_and_end_when_they_should(voices: ModuleType) -> None:
    words = [Word(0.7, 0.95, "bin"), Word(0.95, 1.2, "blue"), Word(1.4, 1.7, "again")]
    phones = [voices.spelled(word.word, "bf") for word in words]
    lengths = np.full(len(" ".join(phones)) + 2, 3.0)
    frames, first = voices.in_time(words, phones, lengths)
    assert len(frames) == len(lengths)
    times = (first + np.append(0, np.cumsum(frames))) / voices.FRAME
    at = 1
    for word, sounds in zip(words, phones, strict=True):
        assert times[at] == pytest.approx(word.start)
        if word.word != "bin":  # its space belongs to it
            assert times[at + len(sounds)] == pytest.approx(word.end)
        at += len(sounds) + 1


def test_the_path_finds_what_was_moved(voices: ModuleType) -> None:
    random = np.random.default_rng(0)
    one = random.standard_normal((80, 8))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    places = np.arange(80) + 5 * np.sin(np.pi * np.arange(80) / 79)
    other = one[np.rint(np.interp(np.arange(80), places, np.arange(80))).astype(int)]
    path = voices.best_path(voices.distance(one, other))
    assert np.abs(path - places).mean() < 1
    assert path[0] == 0 and path[-1] == 79
    assert voices.smoothed(np.arange(80.0)) == pytest.approx(np.arange(80))
    assert np.abs(np.diff(voices.smoothed(path), 2)).max() < np.abs(np.diff(path, 2)).max()


def test_the_plan_has_everybody(voices: ModuleType, speaking_cache: Path) -> None:
    clips = [clip for clip in load_manifest(speaking_cache) if clip.split == "train"]
    jobs = voices.plan(clips, ["af_a", "af_b", "zm_c"])
    assert jobs == voices.plan(clips, ["af_a", "af_b", "zm_c"])
    assert [job.clip.speaker for job in jobs] == ["b", "a", "a", "b", "a", "a"]
    assert {job.voice.split("+")[0] for job in jobs} == {"af_a", "af_b", "zm_c"}


class Speaker:
    """Instead of Kokoro: a tone for each phone."""

    def __init__(self, *_: Path) -> None:
        self.voices = {"af_a": Path("a"), "bm_b": Path("b")}
        self.numbers = {p: ord(p) % 50 for p in " ˈːbɪnABdfglujIQOWɡɹ"}

    def voice(self, name: str, tokens: int) -> np.ndarray:
        return np.zeros((1, 256), np.float32)

    def lengths(self, tokens: list[int], style: np.ndarray) -> np.ndarray:
        return np.full(len(tokens), 3.0)

    def speak(self, tokens: list[int], style: np.ndarray, frames: np.ndarray) -> np.ndarray:
        hertz = np.repeat([200.0 + 5 * t for t in tokens], frames.astype(int) * 600)
        return (0.1 * np.sin(2 * np.pi * np.cumsum(hertz) / 24_000)).astype(np.float32)


class Ear:
    """Instead of Whisper: loudness."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self, sound: np.ndarray, speech: slice) -> np.ndarray:
        power = np.sqrt(np.square(sound).reshape(-1, 160).mean(1))
        angle = power / power.max()
        return np.column_stack((np.cos(angle), np.sin(angle)))


def test_what_is_close_is_kept_and_a_second_run_goes_on(
    voices: ModuleType,
    speaking_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voices, "Kokoro", Speaker)
    monkeypatch.setattr(voices, "Features", Ear)
    real = voices.word_times

    def timed(clip: Any) -> tuple[np.ndarray, list[Word]]:
        sound, _ = real(clip)
        known = [Word(0.1, 0.3, "bin"), Word(0.3, 0.6, "blue")]
        return sound, [] if clip.speaker == "b" else known

    monkeypatch.setattr(voices, "word_times", timed)
    monkeypatch.setattr(voices, "LEAST_ENVELOPE", -1)
    out = tmp_path / "voices"
    needed = [w for n in ("kokoro", "tokens", "voices", "teacher") for w in (f"--{n}", "none")]
    call = [str(speaking_cache), str(out), *needed]
    assert voices.main([*call, "--count", "2"]) == 0
    (kept,) = map(json.loads, (out / "index.jsonl").read_text("utf-8").splitlines())
    assert kept["kept"] and kept["speaker"] == "a"
    (file,) = out.rglob("*.wav")
    assert file.name == f"{kept['stem']}__{kept['voice']}.wav"
    clip = next(c for c in load_manifest(speaking_cache) if c.name == kept["stem"])
    assert len(load_audio(file)) == clip.frames * 640
    monkeypatch.setattr(voices, "MOST_COST", -1)
    assert voices.main(call) == 0
    rows = [json.loads(line) for line in (out / "index.jsonl").read_text("utf-8").splitlines()]
    assert [row["kept"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert len(rows) > 1
    assert list(out.rglob("*.wav")) == [file]


@pytest.mark.parametrize("missing", ["cache", "tokens", "voices", "kokoro", "teacher"])
def test_what_is_missing_is_said_in_one_line(
    missing: str,
    voices: ModuleType,
    speaking_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    cache = shutil.copytree(speaking_cache, tmp_path / "cache")
    places = {name: tmp_path / name for name in ("tokens", "voices", "kokoro", "teacher")}
    numbers = dict.fromkeys(" ".join(voices.SPELLED.values()), 1)
    places["tokens"].write_text(json.dumps({"vocab": numbers}), "utf-8")
    places["voices"].mkdir()
    (places["voices"] / "af_a.bin").write_bytes(bytes(510 * 256 * 4))
    if missing == "teacher":
        monkeypatch.setattr(voices, "Kokoro", Speaker)
    elif missing == "cache":
        (cache / "manifest.jsonl").unlink()
    elif missing != "kokoro":
        places[missing] = tmp_path / "nowhere"
    options = [word for name, place in places.items() for word in (f"--{name}", str(place))]
    assert voices.main([str(cache), str(tmp_path / "out"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(cache if missing == "cache" else places[missing]) in line
    assert not (tmp_path / "out").exists()


# --- rest -------------------------------------------------------------------------------------


def test_rest_is_made_of_every_kind(
    rest: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = sum(share for share, _ in rest.KINDS.values())
    assert {rest.make(number)[0] for number in range(count)} == set(rest.KINDS)
    assert rest.main([str(tmp_path / "rest"), "--count", "5"]) == 0
    rows = [json.loads(r) for r in (tmp_path / "rest/index.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 5
    for number, row in enumerate(rows):
        sound = load_audio(tmp_path / "rest" / row["file"])
        assert 6 * 16_000 <= len(sound) <= 10 * 16_000
        assert np.abs(sound - rest.make(number)[1]).max() < 1e-4
    (tmp_path / "file").touch()
    assert rest.main([str(tmp_path / "file")]) == 1
    assert "make_rest: " in capsys.readouterr().err


def test_rest_is_neither_broken_nor_silent(rest: ModuleType) -> None:
    for kind, (_, maker) in rest.KINDS.items():
        for seed in range(3):
            sound = np.asarray(maker(96_000, np.random.default_rng(seed)))
            assert sound.shape == (96_000,), kind
            assert np.isfinite(sound).all(), kind
            assert kind == "silence" or sound.std() > 0, kind
