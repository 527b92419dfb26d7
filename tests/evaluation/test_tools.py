"""What is loaded for metrics, what is kept of real frames between systems, and the traces."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillspeak.cli.app import main
from stillspeak.data.cache import CachedClip
from stillspeak.errors import WeightsError
from stillspeak.evaluation import tools
from stillspeak.evaluation.clip import EvaluationClip
from stillspeak.evaluation.evaluate import evaluate_model
from stillspeak.evaluation.real_cache import RealCache
from stillspeak.evaluation.tools import Tools, load_tools
from stillspeak.face.align import crop_face, face_transform
from support.animate import portrait, portrait_face, shared_detector

FRAMES = 6
LANDMARKS = ["face_found", "lip_correlation", "blink_rate", "brow_motion"]


def moving(count: int = FRAMES, step: float = 1.0) -> np.ndarray:
    """Crops (T, 128, 96, 3) of a face that drifts to the side."""
    transform = face_transform(portrait_face().points)
    crops = []
    for t in range(count):
        shifted = transform.copy()
        shifted[0, 2] += step * (t % 4)
        crops.append(crop_face(portrait(), shifted, 128, 96))
    return np.stack(crops)


class Counting:
    """A detector that counts; finds no face in dark pictures."""

    version = "counting"

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Any]:
        self.seen += 1
        # The grey border is no part of it.
        return [] if image[150, 150].max() == 0 else shared_detector().detect(image)

    def close(self) -> None:
        pass


class Embedder:
    version = "embedder"

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, crops: list[np.ndarray]) -> np.ndarray:
        self.seen += len(crops)
        return np.stack([crop.mean(axis=(0, 1)) / 3 for crop in crops])


class Scorer:
    version = "scorer"

    def __init__(self) -> None:
        self.seen = 0

    def measure(self, frames: np.ndarray, audio: np.ndarray) -> SimpleNamespace:
        self.seen += 1
        return SimpleNamespace(offset=np.int64(len(frames)), confidence=float(frames.mean() / 3))


class Reader:
    version = "reader"

    def __init__(self) -> None:
        self.seen = 0

    def read(self, frames: np.ndarray) -> str:
        self.seen += 1
        return "bin blue"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Tools that count what they are asked, loaded instead of real ones."""
    loaded = Tools(Counting(), Embedder(), Scorer(), Reader())
    for name, tool in loaded:
        monkeypatch.setitem(tools._LOADERS, name, lambda file, tool=tool: tool)
    rate = lambda truth, read: float(truth != read)  # noqa: E731
    fake = SimpleNamespace(word_error_rate=rate)
    monkeypatch.setitem(sys.modules, "stillspeak.evaluation.measures.lipreading", fake)
    return loaded


def seen(loaded: Tools) -> list[int]:
    return [tool.seen for _, tool in loaded]


@pytest.fixture
def cache(write_clip: Callable[..., CachedClip], tmp_path: Path) -> Path:
    for speaker in ("a", "b"):
        pictures = moving(step=1 + 0.5 * (speaker == "b"))
        write_clip(tmp_path / "c", speaker, frames=FRAMES, split="test", pictures=pictures)
    return tmp_path / "c"


def written(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}


def values(output: Path) -> dict[str, Any]:
    rows = map(json.loads, (output / "values.jsonl").read_text().splitlines())
    return {f"{row['clip']} {row['metric']}": row["value"] for row in rows}


# --- loading ------------------------------------------------------------------------------------


def test_tools_by_name(fakes: Tools) -> None:
    loaded = load_tools(["sync", "lipreader"], {})
    assert loaded.versions == {"sync": "scorer", "lipreader": "reader"}
    assert loaded.landmarks is loaded.embedding is None
    loaded.close()


@pytest.mark.parametrize(
    ("tool", "metric"),
    [("sync", "av_offset"), ("lipreader", "wer")],
)
def test_what_is_missing_is_left_out_unless_it_was_asked_for(
    tool: str,
    metric: str,
    cache: Path,
    tmp_path: Path,
    fakes: Tools,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(file: Path | None) -> Any:
        raise WeightsError("no weights here")

    monkeypatch.setitem(tools._LOADERS, tool, missing)
    result = evaluate_model("still", cache, tmp_path / "r", workers=0, clips=1)
    beside = {"av_offset": "av_confidence", "wer": "wer_real"}[metric]
    assert {metric, beside} <= set(result.left_out)
    assert set(result.left_out.values()) == {"no weights here"}
    assert not {metric, beside} & {m.name for m in result.metrics}
    with pytest.raises(WeightsError, match="no weights here"):
        evaluate_model("still", cache, tmp_path / "r", workers=0, metrics=[metric])
    option = {"sync": "sync", "lipreader": "lip_reader"}[tool]
    with pytest.raises(WeightsError, match="no weights here"):
        evaluate_model("still", cache, tmp_path / "r", workers=0, **{option: "x"})


def test_the_word_error_rate_stands_beside_that_of_real_clips(
    cache: Path, tmp_path: Path, fakes: Tools
) -> None:
    result = evaluate_model("still", cache, tmp_path / "r", workers=0, metrics=["wer"])
    assert [m.name for m in result.metrics] == ["wer", "wer_real"]
    assert values(tmp_path / "r") == {
        f"{c} {m}": None for c in ("a/one", "b/one") for m in ("wer", "wer_real")
    }
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["versions"]["lipreader"] == "reader"
    assert summary["metrics"]["wer"]["undefined"] == 2


def test_the_command_takes_files_of_tools(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes: Tools
) -> None:
    given = {}
    for name in ("sync", "lipreader"):

        def load(file: Path | None, name: str = name) -> Any:
            given[name] = file
            return dict(fakes)[name]

        monkeypatch.setitem(tools._LOADERS, name, load)
    # The second process of a pool would load real tools.
    from stillspeak.evaluation import evaluate

    real = evaluate.evaluate_model
    monkeypatch.setattr(
        evaluate, "evaluate_model", lambda *a, **k: real(*a, **(k | {"workers": 0}))
    )
    arguments = ["--model", "still", "--data", str(cache), "-o", str(tmp_path / "r"), "--quiet"]
    arguments += ["--lip-reader", "lips.safetensors", "--sync", str(tmp_path / "sync.safetensors")]
    arguments += ["--real-cache", str(tmp_path / "kept"), "--metrics", "wer,av_offset"]
    monkeypatch.setattr(sys, "argv", ["stillspeak", "evaluate", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert given["lipreader"] == Path("lips.safetensors").absolute()
    assert given["sync"] == tmp_path / "sync.safetensors"
    assert not (cache / ".evaluation").exists()


# --- the real cache -----------------------------------------------------------------------------


def test_real_frames_are_looked_at_once_for_all_systems(
    cache: Path, tmp_path: Path, fakes: Tools
) -> None:
    evaluate_model("still", cache, tmp_path / "still", workers=0)
    # 4 different pictures each; the repeated still is one of them. Nobody knows the words.
    assert seen(fakes) == [8, 8, 4, 0]
    evaluate_model("real", cache, tmp_path / "real", workers=0)
    assert seen(fakes) == [8, 8, 4, 0]
    evaluate_model("still", cache, tmp_path / "again", workers=0)
    assert seen(fakes) == [8, 8, 6, 0]  # only the generated frames' offset
    assert written(tmp_path / "again") == written(tmp_path / "still")
    for none in ("x", "y"):
        folder = tmp_path / none
        # Nothing can be written there, as root too.
        (tmp_path / "file").write_text("")
        evaluate_model("real", cache, folder, workers=0, real_cache=tmp_path / "file" / "kept")
        assert written(folder) == written(tmp_path / "real")
    kept = cache / ".evaluation" / "a"
    assert sorted(p.name for p in kept.iterdir()) == [
        *("one.embedding.safetensors", "one.landmarks.safetensors", "one.sync.json")
    ]


def real_cache(folder: Path, key: str = "k", **versions: str) -> RealCache:
    versions = dict.fromkeys(("landmarks", "embedding", "sync", "lipreader"), "1") | versions
    return RealCache(folder, "a/one", key, versions)


def test_what_is_kept_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    dark = np.zeros((1, 128, 96, 3), np.uint8)
    pictures = np.concatenate([moving(3), dark])
    loaded = Tools(Counting(), Embedder(), Scorer(), Reader())
    audio = np.zeros(4 * 640, np.float32)

    def material(kept: RealCache | None) -> EvaluationClip:
        return EvaluationClip(pictures[::-1], pictures, audio, tools=loaded, real_cache=kept)

    plain, first, second = (
        material(None),
        material(real_cache(tmp_path)),
        material(real_cache(tmp_path)),
    )
    for m in (plain, first):
        assert m.real.faces[3] is None
        assert (m.real_reading, m.real_sync.offset) == ("bin blue", 4)
        _ = m.embeddings, m.generated.faces
    before = seen(loaded)
    for a, b in zip(plain.generated.faces, second.generated.faces, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.points.tobytes() == b.points.tobytes()
            assert a.points.dtype == b.points.dtype
            assert list(a.blendshapes.items()) == list(b.blendshapes.items())
            assert (a.yaw, a.pitch, a.roll) == (b.yaw, b.pitch, b.roll)
    for a, b in zip(plain.embeddings, second.embeddings, strict=True):
        assert a.tobytes() == b.tobytes()
        assert a.dtype == b.dtype
    assert second.real_sync == plain.real_sync
    assert second.real_reading == plain.real_reading
    assert second.real.points.tobytes() == plain.real.points.tobytes()
    assert seen(loaded) == before


def test_another_key_version_or_a_damaged_file_is_not_taken(tmp_path: Path) -> None:
    vectors = np.arange(6.0).reshape(3, 2)
    real_cache(tmp_path).keep_embeddings(vectors)
    real_cache(tmp_path).keep_value("sync", [1, 0.1 + 0.2])
    assert real_cache(tmp_path).value("sync") == [1, 0.1 + 0.2]
    assert np.array_equal(real_cache(tmp_path).embeddings(), vectors)
    assert real_cache(tmp_path, key="other").embeddings() is None
    assert real_cache(tmp_path, embedding="2").embeddings() is None
    assert real_cache(tmp_path, sync="2").value("sync") is None
    assert real_cache(tmp_path).value("lipreader") is None
    assert real_cache(tmp_path).faces() is None
    for file in (tmp_path / "a").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert real_cache(tmp_path).embeddings() is None
    assert real_cache(tmp_path).value("sync") is None
    # Replaced, not added to.
    real_cache(tmp_path, key="other").keep_embeddings(vectors[:1])
    assert len(list((tmp_path / "a").iterdir())) == 2
    assert real_cache(tmp_path).embeddings() is None


# --- traces -------------------------------------------------------------------------------------


def test_a_trace_holds_the_curves(cache: Path, tmp_path: Path, fakes: Tools) -> None:
    evaluate_model("still", cache, tmp_path / "r", workers=0, metrics=LANDMARKS)
    trace = json.loads((tmp_path / "r" / "traces" / "a" / "one.json").read_text())
    assert list(trace) == ["clip", "fps", "seconds", "words", "silent", "generated", "real"]
    assert (trace["clip"], trace["fps"], trace["seconds"]) == ("a/one", 25, FRAMES / 25)
    assert (trace["words"], trace["silent"]) == ([], [True] * FRAMES)
    for side in ("generated", "real"):
        assert list(trace[side]) == ["opening", "closure", "brow"]
        assert all(len(curve) == FRAMES for curve in trace[side].values())
    assert len(set(trace["generated"]["brow"])) == 1
    assert len(set(trace["real"]["brow"])) > 1
    assert trace["real"]["brow"][0] > 5
    assert all(value == round(value, 4) for value in trace["real"]["opening"])


def test_a_frame_without_a_face_is_null(
    write_clip: Callable[..., CachedClip], tmp_path: Path, fakes: Tools
) -> None:
    pictures = moving()
    pictures[2] = 0
    write_clip(tmp_path / "c", frames=FRAMES, split="test", pictures=pictures)
    evaluate_model("still", tmp_path / "c", tmp_path / "r", workers=0, metrics=["face_found"])
    trace = json.loads((tmp_path / "r" / "traces" / "a" / "one.json").read_text())
    for curve in trace["real"].values():
        assert [t for t, value in enumerate(curve) if value is None] == [2]


def test_traces_are_made_where_they_are_missing(cache: Path, tmp_path: Path, fakes: Tools) -> None:
    output = tmp_path / "r"

    def run(*metrics: str) -> tuple[int, int]:
        result = evaluate_model("still", cache, output, workers=0, metrics=metrics)
        return result.scored, result.reused

    assert run("psnr") == (2, 0)
    assert not (output / "traces").exists()
    assert run(*LANDMARKS) == (2, 0)
    first = written(output)
    assert run(*LANDMARKS) == (0, 2)
    shutil.rmtree(output / "traces")  # results of before there were traces
    (output / "traces" / "a").mkdir(parents=True)
    (output / "traces" / "a" / "one.json").write_text('{"clip": "a')
    assert run(*LANDMARKS) == (2, 0)
    assert written(output) == first
    # Of a clip that changed no trace stays behind.
    manifest = cache / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"key": "k"', '"key": "other"', 1))
    assert run("psnr") == (1, 1)
    assert [p.name for p in (output / "traces").rglob("*.json")] == ["one.json"]
    assert not (output / "traces" / "a" / "one.json").exists()


# --- processes ----------------------------------------------------------------------------------


@pytest.mark.e2e
def test_neither_processes_nor_what_is_kept_change_a_byte(cache: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (tmp_path / "file").write_text("")
    runs = {"x": (1, kept), "y": (2, kept), "z": (0, tmp_path / "file" / "none")}
    for name, (workers, folder) in runs.items():
        result = evaluate_model("still", cache, tmp_path / name, workers=workers, real_cache=folder)
        assert (result.scored, result.failed) == (2, ())
    first = written(tmp_path / "x")
    assert {"values.jsonl", "summary.json", "traces/a/one.json"} <= set(first)
    assert written(tmp_path / "y") == first
    assert written(tmp_path / "z") == first
    assert list(kept.rglob("*.landmarks.safetensors"))
