"""Whole evaluations of small synthetic test sets: what is written, kept, skipped and refused."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillspeak.cli.app import main
from stillspeak.data.cache import CachedClip, load_manifest, open_clip
from stillspeak.data.dataset import whole_clip
from stillspeak.errors import (
    ConfigError,
    DataError,
    FaceError,
    FaceTooSmallError,
    MissingDependencyError,
    OutputExistsError,
    WeightsError,
)
from stillspeak.evaluation import evaluate, metrics, tools, videos
from stillspeak.evaluation.evaluate import evaluate_folder, evaluate_model, evaluate_videos
from stillspeak.evaluation.measures.image_quality import psnr
from stillspeak.evaluation.metrics import find_metrics
from stillspeak.evaluation.registry import METRICS
from stillspeak.evaluation.report.results import read_all
from stillspeak.evaluation.scoring import ClipPair, Run
from stillspeak.evaluation.systems import (
    OneFaceDetector,
    Recording,
    follow_head,
    frame_source,
    load_recording,
    open_system,
)
from stillspeak.media.video_writer import write_video
from stillspeak.models.pixels import from_model
from stillspeak.weights import save_model
from support.animate import portrait, shared_detector, speech
from support.faces import blendshapes, face_pictures, face_points

PLAIN = ["psnr", "ssim", "silent_jitter"]
"""Metrics for which nothing has to be loaded."""


def run(cache: Path, output: Path, model: str | Path = "still", **more: Any) -> Any:
    settings = {"split": "train", "metrics": PLAIN, "workers": 0}
    return evaluate_model(model, cache, output, **(settings | more))


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "values.jsonl").read_text().splitlines()]


def written(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}


@pytest.fixture
def cache(speaking_cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(speaking_cache, tmp_path / "cache"))


# --- a prepared cache ---------------------------------------------------------------------------


def test_one_line_a_clip_and_metric(speaking_cache: Path, tmp_path: Path) -> None:
    result = run(speaking_cache, tmp_path / "r")
    assert (result.scored, result.reused, result.failed) == (3, 0, ())
    rows = lines(tmp_path / "r")
    clips = ["a/one", "a/two", "b/one"]
    assert [(r["clip"], r["metric"]) for r in rows] == [(c, m) for c in clips for m in PLAIN]
    (metric,) = find_metrics(["psnr"])
    clip = load_manifest(speaking_cache)[0]
    real = load_recording(Recording(clip.file, clip.key)).frames
    assert rows[0] == {
        **rows[0],
        "system": "still",
        "speaker": "a",
        "version": 1,
        "definition": metric.definition_hash,
        "unit": "dB",
        "value": psnr(np.repeat(real[:1], len(real), 0), real),
    }
    assert "silence by energy" in rows[2]["note"]
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["clips"] == 3
    assert summary["metrics"]["psnr"]["mean"] == pytest.approx(
        np.mean([r["value"] for r in rows[::3]])
    )
    assert summary["metrics"]["psnr"]["speakers"]["a"]["clips"] == 2


def test_the_ceiling_is_infinite(speaking_cache: Path, tmp_path: Path) -> None:
    result = run(speaking_cache, tmp_path / "r", "real")
    assert [m.mean for m in result.metrics][:2] == [np.inf, pytest.approx(1)]
    assert lines(tmp_path / "r")[0]["value"] == "inf"


def test_two_runs_write_the_same_bytes(speaking_cache: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        run(speaking_cache, tmp_path / name)
    assert written(tmp_path / "x") == written(tmp_path / "y")


@pytest.mark.e2e
def test_processes_change_no_number(speaking_cache: Path, tmp_path: Path) -> None:
    stages = []
    for name, workers in (("x", 0), ("y", 2)):
        run(
            *(speaking_cache, tmp_path / name),
            workers=workers,
            progress=lambda stage, done, total: stages.append((stage, done, total)),
        )
    assert written(tmp_path / "x") == written(tmp_path / "y")
    assert stages == 2 * [("evaluating", n, 3) for n in (1, 2, 3)]


def test_a_run_computes_what_is_missing(
    speaking_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    known = dict(METRICS)

    def watch(name: str, **changes: Any) -> None:
        metric = known[name]
        compute = lambda m: measured.append(name) or metric.compute(m)  # noqa: E731
        monkeypatch.setitem(METRICS, name, replace(metric, compute=compute, **changes))

    for name in PLAIN:
        watch(name)
    output = tmp_path / "r"
    assert run(speaking_cache, output, metrics=["psnr"], clips=2).scored == 2
    assert measured == ["psnr", "psnr"]
    result = run(speaking_cache, output, metrics=["psnr", "ssim"])
    assert measured[2:].count("psnr") == 1
    assert measured[2:].count("ssim") == 3
    result = run(speaking_cache, output, metrics=["psnr", "ssim"])
    assert (result.scored, result.reused, len(measured)) == (0, 3, 6)
    # A new version is another value; the old one is not asked.
    watch("psnr", version=2)
    assert run(speaking_cache, output, metrics=["psnr", "ssim"]).scored == 3
    assert measured[6:] == ["psnr"] * 3
    assert {r["version"] for r in lines(output) if r["metric"] == "psnr"} == {2}
    # What is damaged is made again.
    file = output / "clips" / "a" / "one.jsonl"
    file.write_text(file.read_text()[:50])
    assert (run(speaking_cache, output).scored, len(measured)) == (3, 9 + 2 + 3)


def test_a_changed_clip_is_scored_again(cache: Path, tmp_path: Path) -> None:
    run(cache, tmp_path / "r")
    manifest = cache / "manifest.jsonl"
    text = manifest.read_text().splitlines()
    text[0] = text[0].replace('"key": "k"', '"key": "other"')
    manifest.write_text("\n".join(text) + "\n")
    result = run(cache, tmp_path / "r")
    assert (result.scored, result.reused) == (1, 2)


def test_a_broken_clip_is_named_and_skipped(cache: Path, tmp_path: Path) -> None:
    (cache / "a" / "two.safetensors").write_bytes(b"no tensors")
    result = run(cache, tmp_path / "r")
    assert result.scored == 2
    (failure,) = result.failed
    assert failure.clip == "a/two"
    assert "two.safetensors" in failure.reason
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert [f["clip"] for f in summary["failed"]] == ["a/two"]
    assert {r["clip"] for r in lines(tmp_path / "r")} == {"a/one", "b/one"}


def test_clips_are_drawn_from_the_speakers_in_turn(speaking_cache: Path, tmp_path: Path) -> None:
    run(speaking_cache, tmp_path / "x", clips=2)
    assert {r["clip"] for r in lines(tmp_path / "x")} == {"a/one", "b/one"}
    run(speaking_cache, tmp_path / "y", speakers=["b"])
    assert {r["clip"] for r in lines(tmp_path / "y")} == {"b/one"}


def test_a_model_gets_the_first_frame_and_the_sound(
    speaking_cache: Path, tmp_path: Path, tiny: Callable[..., Any], lively: Callable[..., Any]
) -> None:
    generator = lively(tiny())
    file = tmp_path / "model.safetensors"
    save_model(generator, file, {})
    clip = load_manifest(speaking_cache)[0]
    system = open_system(file, "head_motion=0")
    assert len(system.sha256) == 64
    loaded = load_recording(Recording(clip.file, clip.key))
    made = frame_source(system)(loaded.frames, loaded.audio).frames
    example = whole_clip(clip, generator.config)
    noise = generator.draw_noise(1, clip.frames, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = from_model(generator(example.still, example.windows, noise)[0])
    assert made.shape == whole.shape
    # Half-precision weights and other sums: a level here and there.
    assert np.abs(made.astype(int) - whole).mean() < 1
    still_head: dict[str, Any] = {"clips": 1, "metrics": ["psnr"], "animate": "head_motion=0"}
    result = run(speaking_cache, tmp_path / "r", file, **still_head)
    assert result.metrics[0].mean == pytest.approx(psnr(made, loaded.frames))
    assert lines(tmp_path / "r")[0]["system_sha256"] == f"{system.sha256} head_motion=0.0"
    # The same weights under another name are the same system.
    copy = Path(shutil.copy(file, tmp_path / "copy.safetensors"))
    assert run(speaking_cache, tmp_path / "r", copy, **still_head).reused == 1


def test_what_cannot_be_evaluated(speaking_cache: Path, tmp_path: Path) -> None:
    output = tmp_path / "r"
    with pytest.raises(DataError, match="no clips of the split 'test'"):
        run(speaking_cache, output, split="test")
    with pytest.raises(ConfigError, match="split 'tset' is none of"):
        run(speaking_cache, output, split="tset")
    with pytest.raises(DataError, match="no clips of z; there are a, b"):
        run(speaking_cache, output, speakers=["a", "z"])
    with pytest.raises(DataError, match="stillspeak prepare"):
        run(tmp_path / "none", output)
    with pytest.raises(ConfigError, match="no metric psnrr"):
        run(speaking_cache, output, metrics=["psnrr"])
    with pytest.raises(WeightsError):
        run(speaking_cache, output, "none.safetensors")
    assert not output.exists()


def test_results_of_another_system_are_not_overwritten_unasked(
    speaking_cache: Path, tmp_path: Path
) -> None:
    run(speaking_cache, tmp_path / "r", "real")
    with pytest.raises(OutputExistsError, match="holds the results of real"):
        run(speaking_cache, tmp_path / "r")
    assert run(speaking_cache, tmp_path / "r", overwrite=True).scored == 3
    assert {r["system"] for r in lines(tmp_path / "r")} == {"still"}


def test_without_dlib_acd_is_left_out_unless_it_was_asked_for(
    speaking_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    few = {name: METRICS[name] for name in ("psnr", "acd")}
    monkeypatch.setattr(metrics, "METRICS", few)
    result = run(speaking_cache, tmp_path / "r", metrics=None)
    assert list(result.left_out) == ["acd"]
    assert [m.name for m in result.metrics] == ["psnr"]
    with pytest.raises(MissingDependencyError, match=r"stillspeak\[eval\]"):
        run(speaking_cache, tmp_path / "r", metrics=["acd"])


def test_landmark_metrics_on_a_face_that_does_not_move(
    write_clip: Callable[..., CachedClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillspeak.face.align import crop_face, face_transform

    monkeypatch.setitem(tools._LOADERS, "landmarks", lambda file: shared_detector())
    (face,) = shared_detector().detect(portrait())
    crop = crop_face(portrait(), face_transform(face.points), 128, 96)
    write_clip(tmp_path / "c", frames=4, split="test", pictures=np.stack([crop] * 4))
    asked = ["face_found", "lip_landmark_distance", "blink_rate", "brow_motion"]
    result = run(tmp_path / "c", tmp_path / "r", split="test", metrics=asked)
    means = {m.name: m.mean for m in result.metrics}
    assert [means[name] for name in asked] == [1, 0, 0, 0]
    assert means.keys() - set(asked) == {"blink_rate_real", "brow_motion_real"}


# --- other systems' videos ----------------------------------------------------------------------


def talking(path: Path, seed: int = 0, frames: int = 12, sound: bool = True, fps: int = 25) -> Path:
    """A video of aligned crops, 128 x 96."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opening = 3 + 3 * np.sin(0.8 * np.arange(frames) + seed)
    audio = speech(frames / fps) if sound else None
    write_video(path, face_pictures(opening, seed), fps=fps, audio=audio)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Real videos of speakers s1 and s2, and another system's, most of them unusable."""
    root = tmp_path_factory.mktemp("videos")
    real, made = root / "real", root / "made"
    for name in ("good", "fair", "silent", "long", "fast", "broken", "missing"):
        talking(real / "s1" / f"{name}.mp4")
    talking(real / "s2" / "good.mp4", seed=1)
    talking(made / "s1" / "good.mp4", seed=2)
    talking(made / "s1" / "fair.mp4", frames=13)  # one frame more is none
    talking(made / "s1" / "silent.mp4", sound=False)
    talking(made / "s1" / "long.mp4", frames=18)
    talking(made / "s1" / "fast.mp4", frames=15, fps=30)
    (made / "s1" / "broken.mp4").write_bytes(b"\0" * 400)
    shutil.copy(real / "s2" / "good.mp4", made / "s2-good.mp4")
    (made / "s2").mkdir()
    (made / "s2-good.mp4").rename(made / "s2" / "good.mp4")
    return made, real


def test_videos_of_another_system(folders: tuple[Path, Path], tmp_path: Path) -> None:
    made, real = folders
    result = evaluate_videos(made, real, tmp_path / "r", metrics=PLAIN, workers=0)
    assert result.scored == 3
    reasons = {f.clip: f.reason for f in result.failed}
    assert set(reasons) == {f"s1/{n}" for n in ("silent", "long", "fast", "broken", "missing")}
    for name, word in {
        "silent": "no sound",
        "long": "lasts 0.72 s and the real video 0.48 s",
        "fast": "30 frames a second and the real video 25",
        "broken": "broken.mp4",
        "missing": "no video of this name",
    }.items():
        assert word in reasons[f"s1/{name}"]
    values = {r["clip"]: r["value"] for r in lines(tmp_path / "r") if r["metric"] == "psnr"}
    assert values["s2/good"] == "inf"
    assert 10 < values["s1/good"] < 60
    assert 10 < values["s1/fair"] < 90
    again = evaluate_videos(made, real, tmp_path / "r", metrics=PLAIN, workers=0, speakers=["s2"])
    assert (again.scored, again.reused, again.failed) == (0, 1, ())


def test_word_timings_beside_a_bare_crop_count(tmp_path: Path) -> None:
    real, made = talking(tmp_path / "real" / "s1" / "x.mp4"), tmp_path / "made"
    talking(made / "s1" / "x.mp4", seed=2)

    def silence(name: str) -> dict[str, Any]:
        metrics = ["silent_jitter"]
        evaluate_videos(made, tmp_path / "real", tmp_path / name, metrics=metrics, workers=0)
        (line,) = lines(tmp_path / name)
        return line

    without = silence("r")
    assert "energy" in without["note"]
    # Half of the 0.48 s is speech; ticks are 1/25,000 s.
    real.with_suffix(".align").write_text("0 6000 bin\n6000 12000 sil\n")
    timed = silence("r")
    assert timed["note"] == "silence by word timings"
    assert timed["key"] != without["key"]
    real.with_suffix(".align").write_text("nonsense\n")
    result = evaluate_videos(
        made, tmp_path / "real", tmp_path / "r", metrics=["silent_jitter"], workers=0
    )
    (failure,) = result.failed
    assert "x.align, line 1: expected 'start end word'" in failure.reason


def test_folders_that_are_none(folders: tuple[Path, Path], tmp_path: Path) -> None:
    made, _ = folders
    with pytest.raises(DataError, match="no such folder"):
        evaluate_videos(made, tmp_path / "none", tmp_path / "r")
    with pytest.raises(DataError, match="holds no videos"):
        evaluate_videos(made, tmp_path, tmp_path / "r")


def test_whole_pictures_are_aligned_and_two_faces_refused(tmp_path: Path) -> None:
    frames = [portrait()] * 5
    both = [np.concatenate([portrait(), portrait()], axis=1)] * 5
    for folder in ("real", "made"):
        (tmp_path / folder).mkdir()
        for name in ("one", "two"):
            pictures = both if (folder, name) == ("made", "two") else frames
            write_video(tmp_path / folder / f"{name}.mp4", pictures, audio=speech(0.2))
    result = evaluate_videos(
        *(tmp_path / "made", tmp_path / "real", tmp_path / "r"), metrics=["psnr"], workers=0
    )
    (failure,) = result.failed
    assert failure.clip == "all/two"
    assert "two.mp4: shows two faces" in failure.reason
    assert result.metrics[0].mean == np.inf


# --- any folder of talking videos ---------------------------------------------------------------


def film(path: Path, *pictures: tuple[np.ndarray, int], fps: int = 25, sound: bool = True) -> Path:
    """A video that shows each picture for so many frames, in a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [picture for picture, count in pictures for _ in range(count)]
    write_video(path, shown, fps=fps, audio=speech(len(shown) / fps) if sound else None)
    return path


@pytest.fixture
def one_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own MediaPipe, which nobody closes."""
    monkeypatch.setattr(evaluate, "default_detector", shared_detector)


def folder_run(folder: Path, output: Path, **more: Any) -> Any:
    settings: dict[str, Any] = {"metrics": ["psnr"], "workers": 0}
    return evaluate_folder("still", folder, output, **(settings | more))


@pytest.mark.usefixtures("one_detector")
def test_a_folder_of_talking_videos(tmp_path: Path) -> None:
    face, wall = portrait(), np.full_like(portrait(), 90)
    folder = tmp_path / "wild"
    film(folder / "good.mp4", (face, 30))
    film(folder / "fast.mp4", (face, 36), fps=30)
    film(folder / "ann" / "late.mp4", (wall, 8), (face, 20))
    film(folder / "ann" / "wall.mp4", (wall, 60))
    film(folder / "mute.mp4", (face, 10), sound=False)
    film(folder / "two.mp4", (np.concatenate([face, face], axis=1), 10))
    (folder / "broken.mp4").write_bytes(b"\0" * 400)
    result = folder_run(folder, tmp_path / "r")
    reasons = {f.clip: f.reason for f in result.failed}
    assert set(reasons) == {"ann/wall", "mute/mute", "two/two", "broken/broken"}
    for clip, words in {
        "ann/wall": "wall.mp4: no face in the first 2 s",
        "mute/mute": "mute.mp4: has no sound",
        "two/two": "two faces in 10 of 10 frames",
        "broken/broken": "broken.mp4",
    }.items():
        assert words in reasons[clip]
        assert "\n" not in reasons[clip]
    assert result.scored == 3
    made = {clip.speaker: clip for clip in load_manifest(tmp_path / "r" / "aligned" / "real")}
    # 36 frames at 30 a second are 30 at 25; what comes before the face is gone.
    assert {name: clip.frames for name, clip in made.items()} == {"ann": 20, "fast": 30, "good": 30}
    with open_clip(made["ann"]) as clip:
        assert clip.metadata["span"] == [8 / 25, 28 / 25]
        assert len(clip.get_tensor("audio")) == 20 * 640
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["data"] == str(tmp_path / "r" / "aligned" / "real")
    assert summary["folder"] == str(folder)


@pytest.mark.usefixtures("one_detector")
def test_words_begin_with_the_first_face(tmp_path: Path) -> None:
    wall = np.full_like(portrait(), 90)
    video = film(tmp_path / "wild" / "late.mp4", (wall, 8), (portrait(), 20))
    video.with_suffix(".align").write_text("0 16000 sil\n16000 20000 bin\n")  # 0.64 to 0.8 s
    folder_run(tmp_path / "wild", tmp_path / "r")
    (made,) = load_manifest(tmp_path / "r" / "aligned" / "real")
    words = load_recording(Recording(made.file, made.key)).words
    assert words[1] == (pytest.approx(0.32), pytest.approx(0.48), "bin")


@pytest.mark.usefixtures("one_detector")
def test_systems_share_the_crops_of_a_folder(tmp_path: Path) -> None:
    folder, cache = tmp_path / "wild", tmp_path / "cache"
    film(folder / "good.mp4", (portrait(), 5))
    folder_run(folder, tmp_path / "x", real_cache=cache)
    before = (cache / "good" / "good.safetensors").stat().st_mtime_ns
    stages: list[str] = []
    result = evaluate_folder(
        *("real", folder, tmp_path / "y"),
        metrics=["psnr"],
        workers=0,
        real_cache=cache,
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert result.metrics[0].mean == np.inf
    assert (cache / "good" / "good.safetensors").stat().st_mtime_ns == before
    assert not (tmp_path / "y" / "aligned").exists()
    assert stages == ["looking for faces", "aligning cache", "evaluating"]


@pytest.mark.usefixtures("one_detector")
def test_bare_crops_and_what_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talking(tmp_path / "wild" / "crop.mp4", frames=12)
    talking(tmp_path / "wild" / "long.mp4", frames=30)
    monkeypatch.setattr(videos, "LONGEST", 1.0)
    result = folder_run(tmp_path / "wild", tmp_path / "r")
    assert result.scored == 1
    (failure,) = result.failed
    assert "long.mp4: lasts 0 minutes, 0 are the limit; cut it into parts" in failure.reason
    with pytest.raises(DataError, match="no such folder"):
        folder_run(tmp_path / "none", tmp_path / "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no videos"):
        folder_run(tmp_path / "empty", tmp_path / "s")
    assert not (tmp_path / "s").exists()


# --- clips that lips should not fit -------------------------------------------------------------


def pairs(*clips: tuple[str, str, int]) -> list[ClipPair]:
    return [
        ClipPair(speaker, name, Recording(Path(name), f"{speaker} {name}", frames=frames))
        for speaker, name, frames in clips
    ]


def others(found: list[ClipPair]) -> dict[str, set[str]]:
    return {pair.clip: {clip for clip, _ in pair.others} for pair in found}


def test_lips_are_compared_with_those_of_other_people() -> None:
    clips = pairs(("a", "one", 75), ("a", "two", 75), ("b", "one", 75), ("c", "one", 75))
    found = others(evaluate._with_others(clips, clips))
    assert found["a/one"] == found["a/two"] == {"b/one", "c/one"}
    assert found["b/one"] == {"a/one", "a/two", "c/one"}
    alone = others(evaluate._with_others(clips[:2], clips[:2]))
    assert alone == {"a/one": {"a/two"}, "a/two": {"a/one"}}
    assert others(evaluate._with_others(clips[:1], clips[:1])) == {"a/one": set()}


def test_short_clips_are_no_control_of_long_ones() -> None:
    clips = pairs(("a", "x", 500), ("b", "x", 80), ("c", "x", 30), ("d", "x", 20))
    found = others(evaluate._with_others(clips, clips))
    assert found == {
        "a/x": {"b/x"},
        "b/x": {"a/x"},
        "c/x": {"a/x", "b/x", "d/x"},
        "d/x": {"a/x", "b/x", "c/x"},
    }
    assert others(evaluate._with_others(clips[:1], clips[::2]))["a/x"] == {"c/x"}


def test_the_same_eight_are_drawn_whatever_their_order() -> None:
    clips = pairs(*((f"s{n}", "x", 75) for n in range(30)))
    found = evaluate._with_others(clips, clips)
    again = evaluate._with_others(clips[:3], clips[::-1])
    assert [pair.others for pair in again] == [pair.others for pair in found[:3]]
    assert {len(pair.others) for pair in found} == {8}
    assert len({clip for pair in found for clip, _ in pair.others}) > 20


def test_mismatched_lips_are_those_of_the_split(
    speaking_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Levels()
    monkeypatch.setitem(tools._LOADERS, "landmarks", lambda file: looked)
    name = "lip_correlation_mismatched"
    output = tmp_path / "r"
    run(speaking_cache, output, "real", metrics=[name], clips=1, real_cache=tmp_path / "kept")
    (line,) = lines(output)
    assert line["note"] == "mean over 1 other clip"  # b's, though only a's was asked for
    assert -1 <= line["value"] < 0.99
    assert (tmp_path / "kept" / "b" / "one.landmarks.safetensors").is_file()
    # Another clip there is another value.
    run(speaking_cache, output, "real", metrics=[name], real_cache=tmp_path / "kept")
    notes = {r["clip"]: r["note"] for r in lines(output)}
    assert notes["b/one"] == "mean over 2 other clips"
    assert {r["clip"]: r["key"] for r in lines(output)}["a/one"] == line["key"]
    pair, _ = pairs(("a", "one", 20), ("b", "one", 20))
    (metric,) = find_metrics([name])
    same = Run(open_system("real"), output, (name,), {"landmarks": "1"}, {}, output)
    keys = {
        same.value_key(replace(pair, others=(("b/x", Recording(Path("x"), key)),)), metric)
        for key in ("k", "l")
    }
    assert len(keys) == 2


class Levels:
    """Finds a mouth that is open by a tenth of the grey level in the frame's middle."""

    version = "levels"

    def detect(self, image: np.ndarray) -> list[Any]:
        from stillspeak.face.landmarks import Face

        level = float(image[image.shape[0] * 2 // 3, image.shape[1] // 2].mean())
        shapes = blendshapes()
        return [Face(face_points(np.array([level / 10]))[0].astype(np.float32), shapes, 0, 0, 0)]

    def close(self) -> None:
        pass


class Faces:
    """A detector with given faces."""

    version = "faces"

    def __init__(self, *sizes: float) -> None:
        self.sizes = sizes

    def detect(self, image: np.ndarray) -> list[Any]:
        from stillspeak.face.landmarks import Face

        points = np.random.default_rng(0).uniform(0, 1, (478, 2)).astype(np.float32)
        points[[33, 133]], points[[362, 263]] = (0.3, 0.4), (0.7, 0.4)
        return [Face(points * size, {}, 0, 0, 0) for size in self.sizes]

    def close(self) -> None:
        pass


def test_one_face_may_stand_before_small_ones() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert len(OneFaceDetector(Faces(200, 60)).detect(image)) == 1
    assert OneFaceDetector(Faces()).detect(image) == []
    with pytest.raises(FaceError, match="two faces"):
        OneFaceDetector(Faces(200, 120)).detect(image)
    with pytest.raises(FaceTooSmallError):
        OneFaceDetector(Faces(30)).detect(image)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["stillspeak", "evaluate", *map(str, arguments)])
        # Processes take seconds to start; what they do is tested above.
        for name in ("evaluate_model", "evaluate_videos", "evaluate_folder"):
            real = globals()[name]
            monkeypatch.setattr(
                evaluate, name, lambda *a, r=real, **k: r(*a, **(k | {"workers": 0}))
            )
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    yield call


def test_the_command(
    command: Callable[..., int], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", "still", "--data", cache, "--split", "train", "--metrics", "psnr,ssim"]
    assert command(*common, "-o", tmp_path / "r", "--speakers", "a") == 0
    out = capsys.readouterr().out
    assert "2 clips scored" in out
    assert {line.split()[0] for line in out.splitlines()} >= {"metric", "psnr", "ssim"}
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["command"].startswith("stillspeak evaluate --model still")
    (cache / "a" / "one.safetensors").unlink()
    assert command(*common, "-o", tmp_path / "other") == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "a/one: skipped" in captured.err
    assert "1 failed" in captured.out


def test_the_command_scores_videos(
    command: Callable[..., int],
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, real = folders
    ask = ["--videos", made, "--real", real, "-o", tmp_path / "r", "--metrics", "psnr"]
    assert command(*ask, "--speakers", "s2", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert command(*ask) == 1
    assert capsys.readouterr().err.count("skipped") == 5


def test_the_command_explains_itself(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--list") == 0
    assert "cpbd (version 1, 1): Cumulative" in capsys.readouterr().out
    assert command("--model", "still", "-o", tmp_path) == 2
    assert command("--model", "still", "--data", "x", "--videos", "y", "-o", tmp_path) == 2
    assert command("--model", "still", "--data", tmp_path) == 2
    data = ["--data", tmp_path, "-o", tmp_path / "r"]
    assert command("--model", "still", *data, "--layout", "grid") == 2
    assert command("--model", "still", *data, "--first-frame") == 2
    videos = ["--videos", tmp_path, "--real", tmp_path, "-o", tmp_path / "r"]
    assert command(*videos, "--layout", "folder") == 2
    capsys.readouterr()
    assert command("--model", "still", *data, "--layout", "folder", "--first-frame") == 1
    assert "holds no videos" in capsys.readouterr().err
    assert command("--model", "still", "--data", tmp_path / "none", "-o", tmp_path / "r") == 1


# --- options of a model ---------------------------------------------------------------------------


def test_options_of_a_model_are_part_of_what_was_evaluated(
    speaking_cache: Path, tmp_path: Path, tiny: Callable[..., Any], lively: Callable[..., Any]
) -> None:
    file = tmp_path / "model.safetensors"
    save_model(lively(tiny()), file, {})
    about: dict[str, Any] = {"clips": 1, "metrics": ["psnr"]}
    run(speaking_cache, tmp_path / "r", file, animate="head_motion=0, blink=0", **about)
    system = json.loads((tmp_path / "r" / "system.json").read_text())
    assert system["animate"] == "blink=0.0,head_motion=0.0"
    (line,) = lines(tmp_path / "r")
    assert line["system"] == f"{file} blink=0.0,head_motion=0.0"
    # Others are another system; the defaults, spelled out, are the defaults.
    with pytest.raises(OutputExistsError):
        run(speaking_cache, tmp_path / "r", file, **about)
    run(speaking_cache, tmp_path / "d", file, **about)
    again = run(speaking_cache, tmp_path / "d", file, animate="blink=1", **about)
    assert again.reused == 1
    assert "animate" not in json.loads((tmp_path / "d" / "system.json").read_text())
    assert [s.name for s in read_all([tmp_path / "r", tmp_path / "d"])] == [
        "model blink=0.0,head_motion=0.0",
        "model",
    ]
    for wrong, why in (
        ("crop=1", "'crop=1' is no option of a model; give blink, expression, head_motion, mood"),
        ("blink", "'blink' is no option of a model"),
        ("blink=9", "blink"),
        ("mood=bored", "mood: 'bored'"),
    ):
        with pytest.raises(ConfigError, match=why):
            run(speaking_cache, tmp_path / "x", file, animate=wrong, **about)
    with pytest.raises(ConfigError, match="still is no model and has no options"):
        run(speaking_cache, tmp_path / "x", "still", animate="blink=0", **about)
    with pytest.raises(ConfigError, match="finished videos have no options"):
        evaluate_videos(tmp_path, tmp_path, tmp_path / "x", animate="blink=0")


def test_frames_are_aligned_as_a_corpus_is() -> None:
    from stillspeak.face.align import crop_face, face_transform, scale_transform

    detector = shared_detector()
    (face,) = detector.detect(portrait())
    upright = face_transform(face.points)
    turn = np.radians(6)
    about = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    tilted = np.column_stack([about @ upright[:, :2], about @ (upright[:, 2] - 64) + 64])
    frames = np.stack([crop_face(portrait(), one, 128, 96) for one in (upright, tilted)])
    made = follow_head(np.repeat(frames, 8, axis=0), detector)
    assert made.head is not None and made.head.shape == (16, 3)
    assert made.head[-1, 2] - made.head[0, 2] == pytest.approx(6, abs=1.5)
    # Far from the change both show the same: the tilt is gone.
    first, last = made.frames[[0, -1]].astype(float)[:, 30:100, 20:76]
    assert (
        np.abs(first - last).mean()
        < 0.4 * np.abs(frames[0].astype(float) - frames[1])[30:100, 20:76].mean()
    )
    empty = np.zeros((2, 128, 96, 3), np.uint8)
    nothing = follow_head(empty, detector)
    assert nothing.head is None and (nothing.frames == empty).all()
    # Larger crops come down to the same place.
    large = np.stack([crop_face(portrait(), scale_transform(upright, 2), 256, 192)] * 8)
    small = follow_head(large, detector).frames[0].astype(float)
    assert np.abs(small - made.frames[0]).mean() < 4
    grey = np.repeat(np.arange(96, dtype=np.uint8), 2)[None, None, :, None]
    flat = np.broadcast_to(grey, (2, 256, 192, 3))
    assert (follow_head(flat, detector).frames == np.arange(96)[None, None, :, None]).all()
