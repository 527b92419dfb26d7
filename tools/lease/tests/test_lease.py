"""tools/lease/lease.py: train elsewhere in parcels, bring it back, go on."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint
from stillspeak.training.run import RunOptions, train
from stillspeak.weights import load_model

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tools" / "lease" / "lease.py"
CONFIG = ROOT / "configs" / "smoke.toml"


@pytest.fixture(scope="module")
def lease() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("lease", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def call(lease: ModuleType, *arguments: object) -> int:
    return int(lease.main([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def run(speaking_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that was trained here."""
    folder = tmp_path_factory.mktemp("here") / "run"
    options = ("training.steps=4", "training.validate_every=100")
    train(RunOptions(CONFIG, speaking_cache, folder, overrides=options, device="cpu"))
    return folder


def test_there_and_back_again(
    lease: ModuleType,
    speaking_cache: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = shutil.copytree(run, tmp_path / "home")
    parts, parcel, out = (tmp_path / name for name in ("parts", "parcel", "out"))
    there_cache, there = tmp_path / "there_cache", tmp_path / "there"
    assert call(lease, "pack", speaking_cache, parts, "--part-mib", 0.05) == 0
    assert max(p.stat().st_size for p in parts.iterdir()) <= 0.05 * 2**20
    assert call(lease, "send", home, parcel, "--part-mib", 0.5) == 0
    assert max(p.stat().st_size for p in parcel.iterdir()) <= 0.5 * 2**20

    # There: only what was carried over.
    assert call(lease, "unpack", parts, there_cache) == 0
    command = ["run", "--data", there_cache, "--run", there, "--config", CONFIG, "--device", "cpu"]
    command += ["--minutes", 4, "--out", out, "--from", parcel, "--sheets", 1]
    command += ["--set", "training.steps=6", "--set", "training.validate_every=5"]
    command += ["--piece-mib", 0.3, "--call-mib", 0.8, "--call-files", 5]
    assert call(lease, *command) == 0
    said = capsys.readouterr().out
    assert "step 4: state put into" in said
    first = sorted(out.iterdir())
    assert len(first) <= 5
    assert sum(p.stat().st_size for p in first) <= 0.8 * 2**20
    assert max(p.stat().st_size for p in first) <= 0.3 * 2**20
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["from_step"], summary["step"], summary["exit_code"]) == (4, 6, 0)
    assert summary["steps_per_second"] > 0
    assert summary["frames_per_second"] > summary["steps_per_second"]
    assert summary["handed_out"] < summary["pieces"]

    # Back in several calls; the first alone holds whole sets, but no whole checkpoint.
    came = [shutil.copytree(out, tmp_path / "came0")]
    half = tmp_path / "half"
    assert call(lease, "collect", came[0], half) == 1
    assert "fetch them first" in capsys.readouterr().err
    assert load_model(half / "best.safetensors").config.decoder == "unet"
    assert latest_checkpoint(half) is None
    done = summary["handed_out"]
    while done < summary["pieces"]:
        more = ["more", "--run", there, "--out", out, "--after", done]
        assert call(lease, *more, "--piece-mib", 0.3, "--call-mib", 0.8) == 0
        came.append(shutil.copytree(out, tmp_path / f"came{len(came)}"))
        done += len(list(out.glob("*.piece")))
    assert call(lease, "collect", *came, home) == 0
    assert "step 6" in capsys.readouterr().out
    for name in ("checkpoint-000000006.safetensors", "metrics.jsonl", "last.safetensors"):
        assert (home / name).read_bytes() == (there / name).read_bytes()
    assert len(list((home / "samples").glob("*.png"))) == 1
    assert not (home / ".incoming").exists()
    assert call(lease, "collect", *came, home) == 0  # again, no harm

    # Here it goes on from there, with one history and one log.
    again = train(
        RunOptions(
            CONFIG,
            speaking_cache,
            home,
            resume=True,
            device="cpu",
            overrides=("training.steps=7", "training.validate_every=100"),
        )
    )
    assert again == "all 7 steps are done"
    steps = [json.loads(line)["step"] for line in (home / "metrics.jsonl").open()]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6, 7]
    path = latest_checkpoint(home)
    assert path is not None
    assert [c["from_step"] for c in load_checkpoint(path)["history"]] == [0, 4, 6]

    # What came is now behind the run.
    assert call(lease, "collect", *came, home) == 1
    assert "has gone on to step 7" in capsys.readouterr().err


def test_a_slim_state_travels(
    lease: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(lease, "send", run, tmp_path / "whole") == 0
    assert call(lease, "send", run, tmp_path / "slim", "--slim-state") == 0
    whole, slim = (
        sum(p.stat().st_size for p in (tmp_path / name).iterdir()) for name in ("whole", "slim")
    )
    assert slim < 0.65 * whole
    assert not list(run.glob("slim-*"))
    assert call(lease, "collect", tmp_path / "slim", tmp_path / "back") == 0
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert names == {"checkpoint-000000004.safetensors", "config.json", "metrics.jsonl"}
    back = load_checkpoint(tmp_path / "back" / "checkpoint-000000004.safetensors")
    mine = load_checkpoint(run / "checkpoint-000000004.safetensors")
    for name, weight in mine["objective"].items():
        assert torch.equal(back["objective"][name], weight)


def test_another_run_is_not_mixed_in(
    lease: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(lease, "send", run, tmp_path / "parcel") == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 7.0}\n')
    assert call(lease, "collect", tmp_path / "parcel", other) == 1
    assert "another run" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["metrics.jsonl"]


def test_mistakes_are_one_line(
    lease: ModuleType,
    speaking_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*arguments: object) -> str:
        assert call(lease, *arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("lease: ")
        assert error.count("\n") == 1
        return error

    run, out = tmp_path / "run", tmp_path / "out"
    command = ["run", "--data", speaking_cache, "--run", run, "--config", CONFIG, "--out", out]
    assert "none is left" in refused(*command, "--minutes", 0.5, "--device", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in refused(*command, "--minutes", 2)
    monkeypatch.setattr(lease, "NEEDED", lease.NEEDED | {"no_such_module": "no-such-package"})
    error = refused("check", "--device", "cpu")
    assert "lacks no-such-package;" in error
    assert "--no-index" in error
    assert "no checkpoint to send" in refused("send", run, out)
    assert "no such folder" in refused("collect", out, run)
    assert "nothing here to hand out" in refused("more", "--run", run, "--out", out, "--after", 1)
    assert "no prepared clips" in refused("pack", tmp_path, out)
    assert "no parts" in refused("unpack", tmp_path, out)
    assert not run.exists()


def test_a_training_that_breaks_off_still_sends_its_log(
    lease: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(command: list[str], log: Path, stop_at: float, kill_at: float) -> int:
        assert "--resume" not in command
        assert stop_at < kill_at
        log.write_text("device cpu\nstillspeak: the memory is full\n")
        return 1

    monkeypatch.setattr(lease, "supervise", broken)
    run, out = tmp_path / "run", tmp_path / "out"
    command = ["run", "--data", tmp_path / "nowhere", "--run", run, "--config", CONFIG]
    assert call(lease, *command, "--minutes", 2, "--device", "cpu", "--out", out) == 1
    assert "training broke off" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["exit_code"] == 1
    assert call(lease, "collect", out, tmp_path / "home") == 0
    assert "no checkpoint came" in capsys.readouterr().out
    assert "the memory is full" in (tmp_path / "home" / "lease.log").read_text()


def test_a_child_is_told_to_stop_and_then_ended(lease: ModuleType, tmp_path: Path) -> None:
    polite = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    now = time.monotonic()
    bare = [sys.executable, "-I", "-S", "-c"]
    code = lease.supervise([*bare, polite], tmp_path / "log", now + 3, now + 60)
    assert code == 5
    assert (tmp_path / "log").read_text() == "ready\n"
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n"
    now = time.monotonic()
    code = lease.supervise([*bare, deaf], tmp_path / "log", now + 1, now + 2)
    assert code < 0
    assert time.monotonic() - now < 20


def test_the_card_is_sampled(
    lease: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '87, 1024, 400.5'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with lease.Gauge() as gauge:
        end = time.monotonic() + 10
        while not gauge.rows and time.monotonic() < end:
            time.sleep(0.1)
    summary = gauge.summary()
    assert summary is not None
    assert (summary["busy_percent"], summary["memory_mib"]) == (87.0, 1024.0)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with lease.Gauge() as gauge:
        pass
    assert gauge.summary() is None


def test_it_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True
    )
    for name in ("pack", "unpack", "run", "more", "collect", "send", "check"):
        assert name in done.stdout
