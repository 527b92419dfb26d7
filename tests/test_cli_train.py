"""`stillspeak train` from the command line to weights that animate."""

import json
import sys
from pathlib import Path

import pytest

from stillspeak.cli.app import main
from stillspeak.weights import load_model, read_info

ROOT = Path(__file__).resolve().parents[1]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["stillspeak", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.e2e
def test_train_resume_and_use(
    monkeypatch: pytest.MonkeyPatch,
    speaking_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    command = ["train", "--config", ROOT / "configs" / "smoke.toml", "--data", speaking_cache]
    command += ["--run", folder, "--device", "cpu"]
    assert run(monkeypatch, *command, "--set", "training.steps=6") == 0
    assert "all 6 steps are done" in capsys.readouterr().out
    # Again without --resume it would overwrite what is there.
    assert run(monkeypatch, *command) == 1
    assert "--resume" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--resume") == 0
    assert "all 8 steps are done" in capsys.readouterr().out

    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]
    assert max(steps) == 8
    info = read_info(folder / "last.safetensors")["info"]
    assert info["steps"] == 8
    assert [chapter["from_step"] for chapter in info["history"]] == [0, 6]
    assert info["history"][1]["changed"] == {"training": {"steps": 8}}
    assert "--resume" in info["history"][1]["command"]
    assert load_model(folder / "last.safetensors").config.decoder == "unet"


def test_train_names_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ROOT / "configs" / "smoke.toml"
    rest = ["--data", tmp_path, "--run", tmp_path / "run"]
    assert run(monkeypatch, "train", "--config", config, *rest) == 1
    assert "stillspeak prepare" in capsys.readouterr().err
    assert run(monkeypatch, "train", "--config", config, *rest, "--set", "data.bach=3") == 1
    error = capsys.readouterr().err
    assert "bach" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.e2e
def test_a_dry_run_prints_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    speaking_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    command = ["train", "--config", ROOT / "configs" / "smoke.toml", "--data", speaking_cache]
    command += ["--run", folder, "--device", "cpu", "--set", "training.steps=3"]
    assert run(monkeypatch, *command, "--json") == 2
    assert "--dry-run" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--dry-run", "--json", "--quiet") == 0
    output = capsys.readouterr()
    plan = json.loads(output.out)
    assert output.err == ""
    assert plan["phases"][0]["name"] == "audio warm start"
    assert plan["steps_left"] == 3
    assert plan["memory"]["total"] > plan["memory"]["parameters"] > 0
    assert run(monkeypatch, *command, "--dry-run", "--minutes", 1) == 0
    lines = capsys.readouterr().out
    for row in ("device", "generator", "a frame", "audio warm start", "memory", "disk"):
        assert row in lines
    assert "this call stops after" in lines
    assert not folder.exists()
