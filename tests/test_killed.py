"""kill -9 at any moment: begun again, the commands end as if nothing had happened."""

import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import load_manifest
from stillspeak.media.video import iter_frames
from stillspeak.media.video_writer import write_video
from stillspeak.system.workers import WorkerPool
from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint
from support.kill import Killer, Run, left_over

pytestmark = pytest.mark.e2e

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.toml"


# --- prepare ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GRID's layout: two speakers with four clips each, one file that is no video."""
    root = tmp_path_factory.mktemp("corpus")
    noise = np.random.default_rng(0).integers(0, 256, (8, 96, 128, 3), dtype=np.uint8)
    tone = np.sin(np.arange(8 * SAMPLE_RATE // VIDEO_FPS) / 9).astype(np.float32) / 4
    for speaker in ("s1", "s4"):
        (root / speaker).mkdir()
        for number, stem in enumerate(("bbaf2n", "lgbz7a", "prizzp", "swwv1s")):
            path = root / speaker / f"{stem}.mp4"
            write_video(path, np.roll(noise, number, axis=2), audio=tone, crf=20)
    (root / "s4" / "pbaf2n.mp4").write_bytes(b"no video at all")
    return root


def content(cache: Path) -> dict[str, object]:
    """Every file; of safetensors the header as what it says, for its order is not fixed."""
    found: dict[str, object] = {}
    for path in cache.rglob("*"):
        if path.is_file():
            data: bytes = path.read_bytes()
            if path.suffix == ".safetensors":
                end = 8 + int.from_bytes(data[:8], "little")
                found[path.relative_to(cache).as_posix()] = json.loads(data[8:end]), data[end:]
            else:
                found[path.relative_to(cache).as_posix()] = data
    return found


def killed_prepare(kill: Killer, corpus: Path, folder: Path, kills: int, seed: int) -> int:
    """Kill ``prepare`` so often; how many caches were filled meanwhile."""
    straight = folder / "straight"
    begin = time.monotonic()
    undisturbed = kill.run("prepare_quickly", corpus, straight, folder=straight)
    assert undisturbed is not None
    seconds, operations = time.monotonic() - begin, undisturbed.operations
    expected = content(straight)
    assert len(load_manifest(straight)) == 8
    assert operations > 30

    before, chance = kill.kills, random.Random(seed)
    for round_ in itertools.count():
        cache = folder / f"cache-{round_}"
        finished = False
        while not finished:
            plan: dict[str, Any] = {}
            if kill.kills - before < kills:
                by_time = chance.random() < 0.5
                plan = (
                    {"after": chance.uniform(0, seconds / 3)}
                    if by_time
                    else {"die_at": chance.randint(1, operations // 3)}
                )
            finished = kill.run("prepare_quickly", corpus, cache, folder=cache, **plan) is not None
            # Of all the runs before this one nothing is left.
            assert len(left_over(cache)) <= 1
        assert content(cache) == expected
        if kill.kills - before >= kills:
            return round_ + 1
    raise AssertionError


def test_prepare_goes_on_after_kills(kill: Killer, corpus: Path, tmp_path: Path) -> None:
    assert killed_prepare(kill, corpus, tmp_path, 10, seed=0) >= 1


@pytest.mark.long
def test_prepare_goes_on_after_many_kills(kill: Killer, corpus: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    rounds = killed_prepare(kill, corpus, tmp_path, 200, seed=1)
    assert rounds >= 2
    sys.stdout.write(f"\nprepare: 200 kills, {rounds} caches, {time.monotonic() - begin:.0f} s\n")


@pytest.mark.parametrize("name", ["a.mp4", pytest.param("frames", marks=pytest.mark.long)])
def test_a_video_is_the_old_or_the_new_one(kill: Killer, tmp_path: Path, name: str) -> None:
    target = tmp_path / name

    def frames() -> int:
        if name == "frames":
            return len(list(target.glob("*.png")))
        return sum(1 for _ in iter_frames(target))

    assert kill.run("write_a_video", target, 3, folder=tmp_path)
    straight = kill.run("write_a_video", target, 3, folder=tmp_path)
    assert straight is not None
    seen = set()
    for number in range(1, straight.operations + 1):
        assert kill.run("write_a_video", target, 5, folder=tmp_path, die_at=number) is None
        if name == "frames" and not target.exists():
            seen.add(0)  # a folder cannot take another one's place in one step
        else:
            seen.add(frames())
        assert kill.run("write_a_video", target, 3, folder=tmp_path) is not None
        assert sorted(tmp_path.iterdir()) == [target]
        assert frames() == 3
    assert {3, 5} <= seen <= ({0, 3, 5} if name == "frames" else {3, 5})


def children(pid: int) -> set[int]:
    """The living processes that this one started, and theirs."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[1]) == pid:
                found |= {int(status.parent.name)} | children(int(status.parent.name))
    return found


def announce() -> None:
    os.write(1, b"up\n")


def slow() -> None:
    """Worker processes that have something to do for an hour."""
    pool = WorkerPool(time.sleep, announce, (), 2, str)
    for _ in pool.results([3600.0] * 4):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_worker_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}\nfrom test_killed import slow\nslow()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        for _ in range(2):
            assert parent.stdout.readline() == b"up\n"
        started = children(parent.pid)
        assert len(started) >= 2
        parent.kill()
        # All who hold the other end of this pipe have to go before it ends.
        assert parent.stdout.read() == b""
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.long
def test_prepare_goes_on_after_each_file_operation(
    kill: Killer, corpus: Path, tmp_path: Path
) -> None:
    undisturbed = kill.run("prepare_quickly", corpus, tmp_path / "0", folder=tmp_path / "0")
    assert undisturbed is not None
    expected = content(tmp_path / "0")
    for number in range(1, undisturbed.operations + 1):
        cache = tmp_path / str(number)
        assert kill.run("prepare_quickly", corpus, cache, folder=cache, die_at=number) is None
        assert kill.run("prepare_quickly", corpus, cache, folder=cache) is not None
        assert content(cache) == expected
    sys.stdout.write(f"\nprepare: killed at each of {undisturbed.operations} file operations\n")


# --- train --------------------------------------------------------------------------------------


def tensors_equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(tensors_equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(tensors_equal, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)


def outcome(run: Path) -> dict[str, Any]:
    """All that a run says of its training, without clocks and the history of its starts."""
    newest = latest_checkpoint(run)
    assert newest is not None
    state = load_checkpoint(newest)
    for name in ("seconds", "history"):
        state.pop(name)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("seconds", "steps_per_second"):
            line.pop(name, None)
    return {
        "state": state,
        "lines": lines,
        "best": load_file(run / "best.safetensors"),
        "last": load_file(run / "last.safetensors"),
        "samples": {p.name: p.read_bytes() for p in sorted((run / "samples").iterdir())},
        "files": sorted(p.name for p in run.iterdir()),
    }


def train(kill: Killer, cache: Path, run: Path, steps: int, **plan: Any) -> Run | None:
    """One start of ``stillspeak train``, as a script would: resumed where there is something."""
    options = ["--quiet", "--device", "cpu", "--set", "training.checkpoint_minutes=1e-9"]
    options += ["--set", f"training.steps={steps}", "--set", "training.validate_every=2"]
    if latest_checkpoint(run) is not None:
        options.append("--resume")
    return kill.run(
        "command", "train", "--config", SMOKE, "--data", cache, "--run", run, *options,
        folder=run, **plan,
    )  # fmt: skip


def killed_train(
    kill: Killer, cache: Path, folder: Path, kills: int, *, steps: int, seed: int
) -> int:
    straight = folder / "straight"
    begin = time.monotonic()
    undisturbed = train(kill, cache, straight, steps)
    assert undisturbed is not None
    seconds, operations = time.monotonic() - begin, undisturbed.operations
    expected = outcome(straight)
    assert {line["step"] for line in expected["lines"]} == set(range(1, steps + 1))
    assert operations > 30

    before, chance = kill.kills, random.Random(seed)
    for round_ in itertools.count():
        run = folder / f"run-{round_}"
        finished = False
        while not finished:
            plan: dict[str, Any] = {}
            if kill.kills - before < kills:
                by_time = chance.random() < 0.5
                plan = (
                    {"after": chance.uniform(0, seconds)}
                    if by_time
                    else {"die_at": chance.randint(1, operations // 2)}
                )
            finished = train(kill, cache, run, steps, **plan) is not None
            assert len(left_over(run)) <= 2  # a checkpoint, or a sample and its folder
        assert left_over(run) == []
        assert tensors_equal(outcome(run), expected)
        if kill.kills - before >= kills:
            return round_ + 1
    raise AssertionError


def test_train_goes_on_after_kills(kill: Killer, speaking_cache: Path, tmp_path: Path) -> None:
    assert killed_train(kill, speaking_cache, tmp_path, 5, steps=4, seed=0) >= 1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_train_goes_on_after_many_kills(kill: Killer, speaking_cache: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    rounds = killed_train(kill, speaking_cache, tmp_path, 100, steps=8, seed=1)
    assert rounds >= 2
    sys.stdout.write(f"\ntrain: 100 kills, {rounds} runs, {time.monotonic() - begin:.0f} s\n")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_train_goes_on_after_each_file_operation(
    kill: Killer, speaking_cache: Path, tmp_path: Path
) -> None:
    """From the same checkpoint, so that what was done before it is there to be lost."""
    straight, half = tmp_path / "straight", tmp_path / "half"
    begin = time.monotonic()
    assert train(kill, speaking_cache, straight, 4) is not None
    expected = outcome(straight)
    assert train(kill, speaking_cache, half, 2) is not None
    resumed = tmp_path / "resumed"
    shutil.copytree(half, resumed)
    undisturbed = train(kill, speaking_cache, resumed, 4)
    assert undisturbed is not None
    for number in range(1, undisturbed.operations + 1):
        run = tmp_path / str(number)
        shutil.copytree(half, run)
        assert train(kill, speaking_cache, run, 4, die_at=number) is None
        assert train(kill, speaking_cache, run, 4) is not None
        assert tensors_equal(outcome(run), expected), number
        shutil.rmtree(run)
    seconds = time.monotonic() - begin
    sys.stdout.write(f"\ntrain: killed at each of {undisturbed.operations}, {seconds:.0f} s\n")
