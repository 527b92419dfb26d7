"""Several processes: two with a batch each do what one does with both, and resume as one run.

Started the way a user starts them, through torchrun, with gloo on the CPU.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NOT_COMPARED = {"kind", "seconds", "steps_per_second"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(processes: int, cache: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """`stillspeak train` on the smoke configuration, in one or two processes."""
    # The dashes end torchrun's own options, which it would look for among ours ("--run").
    launcher = [*TORCHRUN, "-m", "--"] if processes == 2 else ["-m"]
    command = [sys.executable, *launcher, "stillspeak", "train"]
    command += ["--config", str(ROOT / "configs" / "smoke.toml"), "--data", str(cache)]
    command += ["--run", str(folder), "--device", "cpu"]
    command += ["--set", "training.precision=32-true", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=270)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun hands it on; nothing of it may outlive the test
        process.communicate(timeout=20)
        raise
    assert process.returncode == 0, output
    return output


def lines(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in r.items() if k not in NOT_COMPARED} for r in rows if r["kind"] == kind
    ]


def assert_close(first: list[dict[str, Any]], second: list[dict[str, Any]], rel: float) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, rel=rel, abs=1e-6)


@pytest.fixture(scope="module")
def two(speaking_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, stopped by its own length."""
    folder = tmp_path_factory.mktemp("processes") / "two"
    said = finish(start(2, speaking_cache, folder))
    assert said.count("all 8 steps are done") == 1
    return folder


@pytest.mark.e2e
def test_two_processes_are_one_with_both_batches(
    two: Path, speaking_cache: Path, tmp_path: Path
) -> None:
    # One process that adds up two batches sees the same examples in the same portions, so
    # batch norms see the same statistics too, and every loss must come out alike.
    finish(start(1, speaking_cache, tmp_path / "one", "--set", "training.accumulate=2"))
    ours, theirs = lines(two), lines(tmp_path / "one")
    assert len(ours) == 8
    assert {"frame_loss", "sequence_loss", "sync_loss"} <= set(ours[-1])
    assert_close(ours, theirs, rel=1e-4)
    # A doubled batch in one piece has other batch statistics, and only those differ.
    finish(start(1, speaking_cache, tmp_path / "large", *doubled()))
    assert_close(
        [{k: r[k] for k in ("step", "mouth_shape", "loss")} for r in ours[:3]],
        [{k: r[k] for k in ("step", "mouth_shape", "loss")} for r in lines(tmp_path / "large")[:3]],
        rel=0.15,
    )


def doubled() -> list[str]:
    return ["--set", "data.batch=4", "--set", "data.audio_batch=4"]


@pytest.mark.e2e
def test_a_run_of_two_processes_is_one_run_with_one_folder(two: Path) -> None:
    assert [line["step"] for line in lines(two)] == list(range(1, 9))
    assert [line["step"] for line in lines(two, "validation")] == [4, 8]
    assert len(list(two.glob("checkpoint-*"))) == 1
    assert (two / "best.safetensors").is_file()


@pytest.mark.e2e
def test_two_processes_stop_together_and_resume(
    two: Path, speaking_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    process = start(2, speaking_cache, folder, "--set", "training.steps=100000")
    deadline = time.monotonic() + 120
    log = folder / "metrics.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # torchrun hands it on to both
    process.communicate(timeout=120)
    path = latest_checkpoint(folder)
    assert path is not None
    step = load_checkpoint(path)["step"]
    assert step >= 3
    goal = step + 2
    finish(start(2, speaking_cache, folder, "--resume", "--set", f"training.steps={goal}"))
    assert [line["step"] for line in lines(folder)] == list(range(1, goal + 1))
