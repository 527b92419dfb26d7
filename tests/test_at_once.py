"""Several processes at one folder: they are safe together, or the later one is told so."""

import errno
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from stillspeak.cli.app import main
from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.errors import DataError
from stillspeak.evaluation.evaluate import evaluate_model
from stillspeak.media.video_writer import write_video
from stillspeak.system.atomic import LOCK, claim, partial_folder, sweep, whole_file
from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint
from stillspeak.weights import load_model, read_info
from support.animate import save_lively
from support.kill import Killer, left_over

pytestmark = pytest.mark.e2e

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.toml"
BUSY = DataError("somebody is there")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers of GRID's training part."""
    root = tmp_path_factory.mktemp("corpus")
    noise = np.random.default_rng(0).integers(0, 256, (26, 96, 128, 3), dtype=np.uint8)
    tone = np.sin(np.arange(26 * SAMPLE_RATE // VIDEO_FPS) / 9).astype(np.float32) / 4
    for speaker in ("s1", "s3"):
        (root / speaker).mkdir()
        for number, stem in enumerate(("bbaf2n", "lgbz7a")):
            path = root / speaker / f"{stem}.mp4"
            write_video(path, np.roll(noise, number, axis=2), audio=tone, crf=20)
    return root


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command that has to fail with one line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["stillspeak", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 1
        output = capsys.readouterr()
        assert output.out == ""
        (line,) = output.err.splitlines()
        return line

    return run


# --- the locks themselves -----------------------------------------------------------------------


def test_a_claim_excludes_and_ends(tmp_path: Path) -> None:
    with claim(tmp_path, BUSY):
        with pytest.raises(DataError, match="somebody is there"), claim(tmp_path, BUSY):
            pass
        waited = threading.Event()

        def wait() -> None:
            with claim(tmp_path, None):
                waited.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not waited.wait(0.1)
    thread.join(30)
    assert waited.is_set()
    with claim(tmp_path, BUSY):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_only_what_nobody_writes_any_more_is_swept(tmp_path: Path) -> None:
    dead = [tmp_path / f".stillspeak.0123abc{digit}.partial" for digit in "de"]
    for folder in dead:
        (folder / "inside").mkdir(parents=True)
    (dead[0] / LOCK).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    foreign = [tmp_path / ".stillspeak.partial", tmp_path / ".stillspeak.0123abcf.partial"]
    foreign[0].write_text("half")
    foreign[1].symlink_to(elsewhere)
    with whole_file(tmp_path / "b.txt") as file, partial_folder(tmp_path / "c") as folder:
        file.write_text("b")
        assert not any(path.exists() for path in dead)  # the next writer swept
        sweep(tmp_path)
        assert file.exists() and folder.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*foreign, elsewhere, tmp_path / "b.txt"])
    assert not any(elsewhere.iterdir())


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a[1]", mode=0o600) as partial:
        partial.write_text("whole")
    assert (tmp_path / "a[1]").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a[1]") as partial:
        partial.write_text("half")
        1 / 0  # noqa: B018
    assert (tmp_path / "a[1]").read_text() == "whole"
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "nowhere" / "a"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a[1]"]


def test_without_locks_nothing_is_removed_and_nobody_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".stillspeak.0123abcd.partial").mkdir()
    with claim(tmp_path, BUSY), claim(tmp_path, BUSY), whole_file(tmp_path / "a") as partial:
        partial.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(LOCK, ".stillspeak.0123abcd.partial", "a")
    ]


# --- prepare ------------------------------------------------------------------------------------


def test_prepare_refuses_a_cache_that_is_being_filled(
    corpus: Path, tmp_path: Path, refused: Any
) -> None:
    with claim(tmp_path, BUSY):
        line = refused("prepare", corpus, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert line == (
        f"stillspeak: {tmp_path}: another stillspeak prepare is filling this cache; wait for it, "
        "or name another cache"
    )


def test_three_prepares_at_once(kill: Killer, corpus: Path, tmp_path: Path) -> None:
    runs = [kill.start("prepare_quickly", corpus, tmp_path, folder=tmp_path) for _ in range(3)]
    codes = [run.finish() for run in runs]
    assert 0 in codes
    for one, code in zip(runs, codes, strict=True):
        assert code == 0 or "another stillspeak prepare is filling" in one.log.read_text()
    clips = load_manifest(tmp_path)
    assert len(clips) == 4
    for clip in clips:
        with open_clip(clip) as reader:
            assert reader.metadata["key"] == clip.key
    assert left_over(tmp_path) == []


# --- train --------------------------------------------------------------------------------------


def options(cache: Path, run: Path) -> list[object]:
    return [
        *("train", "--config", SMOKE, "--data", cache, "--run", run, "--device", "cpu", "--quiet"),
        *("--set", "training.steps=3", "--set", "training.checkpoint_minutes=1e-9"),
    ]


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds", "steps_per_second")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def test_train_while_prepare_makes_the_cache_anew(
    kill: Killer, corpus: Path, tmp_path: Path
) -> None:
    cache, alone, beside = tmp_path / "cache", tmp_path / "alone", tmp_path / "beside"
    assert kill.run("prepare_quickly", corpus, cache, folder=cache)
    keys = [clip.key for clip in load_manifest(cache)]
    assert kill.run("command", *options(cache, alone), folder=alone)
    runs = [
        kill.start("prepare_again", corpus, cache, 6, folder=cache),
        kill.start("command", *options(cache, beside), folder=beside),
    ]
    for one in runs:
        assert one.finish() == 0, one.log.read_text()
    assert all(a.key != b for a, b in zip(load_manifest(cache), keys, strict=True))
    assert losses(beside) == losses(alone)
    first, second = (load_file(run / "last.safetensors") for run in (alone, beside))
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_two_trainings_of_one_folder(kill: Killer, speaking_cache: Path, tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    runs = [kill.start("command", *options(speaking_cache, run), folder=run) for _ in range(2)]
    codes = [one.finish() for one in runs]
    assert sorted(codes) == [0, 1]
    (line,) = runs[codes.index(1)].said
    assert line.startswith(f"stillspeak: {run}: ")
    assert kill.run("command", *options(speaking_cache, alone), folder=alone)
    assert losses(run) == losses(alone)
    newest = latest_checkpoint(run)
    assert newest is not None and load_checkpoint(newest)["step"] == 3


def test_train_refuses_a_folder_in_which_another_one_runs(
    speaking_cache: Path, tmp_path: Path, refused: Any
) -> None:
    with claim(tmp_path, BUSY):
        line = refused(*options(speaking_cache, tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert line == (
        f"stillspeak: {tmp_path}: another stillspeak train is running there; name a new folder"
    )


# --- weights and evaluation ---------------------------------------------------------------------


def test_weights_are_read_while_others_write_them(kill: Killer, tmp_path: Path) -> None:
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    save_lively(source)
    shutil.copy(source, target)
    runs = [kill.start("save_often", source, target, 12, folder=tmp_path) for _ in range(2)]
    runs.append(kill.start("load_often", target, 12, folder=tmp_path))
    for one in runs:
        assert one.finish() == 0, one.log.read_text()
    assert load_model(target).config == load_model(source).config
    assert "n" in read_info(target)["info"]
    assert left_over(tmp_path) == []


def test_a_folder_of_results_belongs_to_one_evaluation_at_a_time(
    speaking_cache: Path, tmp_path: Path, refused: Any
) -> None:
    arguments = ["evaluate", "--model", "still", "--data", speaking_cache, "-o", tmp_path]
    arguments += ["--split", "train", "--metrics", "psnr"]
    with claim(tmp_path, BUSY):
        line = refused(*arguments)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert line == (
        f"stillspeak: {tmp_path}: another evaluation is writing there; wait for it, or give "
        "another folder"
    )
    settings: dict[str, Any] = {"split": "train", "metrics": ["psnr"], "workers": 0}
    assert evaluate_model("still", speaking_cache, tmp_path, **settings).scored == 3


def test_what_was_found_in_real_frames_is_shared(kill: Killer, tmp_path: Path) -> None:
    runs = [
        kill.start("keep_often", tmp_path / "kept", tmp_path / str(number), 100, folder=tmp_path)
        for number in range(3)
    ]
    for number, one in enumerate(runs):
        assert one.finish() == 0, one.log.read_text()
        assert (tmp_path / str(number)).exists()
    assert left_over(tmp_path) == []
