"""``stillspeak study`` on the command line, and the example."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillspeak.cli import app as cli
from stillspeak.errors import StillspeakError
from support.study import paper_study

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed (extra: study)")

ROOT = Path(__file__).parents[2]

Run = Callable[..., str]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; what it wrote to standard output."""

    def invoke(*words: object, code: int = 0) -> str:
        result = CliRunner().invoke(cli.app, ["study", *map(str, words)])
        if isinstance(result.exception, StillspeakError):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def test_from_videos_to_a_report(run: Run, tmp_path: Path, videos: Path) -> None:
    study = tmp_path / "study"
    said = run("init", study, "--pairs", videos / "ours", videos / "theirs", "--seed", 3)
    assert "preference, 16 videos of 6 names, ours, theirs; 6 for each visitor" in said
    assert f"stillspeak study serve {study}" in said
    said = run("simulate", study, "--raters", 12, "--share", 0.9, "--seed", 1)
    match = re.search(r"--database (\S+)", said)
    assert match is not None
    database = match[1]
    said = run("report", study, "--database", database)
    assert "ours was preferred to theirs in" in said
    assert (study / "report" / "index.html").is_file()
    text = run("export", study, "--database", database, "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12 * (6 + 2 + 1)
    target = tmp_path / "answers.json"
    run("export", study, "--database", database, "--json", target)
    assert len(json.loads(target.read_text("utf-8"))["answers"]) == len(rows)
    for again in (
        ("export", study, "--database", database, "--json", target),
        ("report", study, "--database", database),
    ):
        with pytest.raises(StillspeakError, match=r"already|holds a report"):
            run(*again)
        run(*again, "--overwrite")


def test_one_kind_is_chosen(run: Run, tmp_path: Path, videos: Path) -> None:
    for kinds in ((), ("--pairs", "--mos")):
        said = run("init", tmp_path / "s", *kinds, videos / "ours", videos / "theirs", code=2)
        assert "one of --pairs, --turing" in " ".join(said.replace("│", " ").split())
    assert not (tmp_path / "s").exists()


def test_options_of_simulate(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    paper_study(folder, "preference", systems=("a", "b", "c"), items=5, count=15)
    with pytest.raises(StillspeakError, match="--strengths: 3 systems need one each"):
        run("simulate", folder)
    assert not (folder / "simulated.db").exists()
    run("simulate", folder, "--raters", 3, "--strengths", "1, 0, -1")
    run("simulate", folder, "--strengths", "1,two", code=2)
    run("export", folder, code=2)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    for words, message in (
        (["serve", str(tmp_path)], "holds no study.toml"),
        (["report", str(tmp_path / "nowhere")], "holds no materials.json"),
        (["init", str(tmp_path / "s"), "--mos", str(tmp_path / "no")], "no such folder"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "stillspeak", "study", *words],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("stillspeak: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_serve_reminds_of_the_consent_and_of_a_taken_port(tmp_path: Path) -> None:
    import socket
    from dataclasses import replace

    from stillspeak.study.config import as_toml
    from stillspeak.study.kinds import PLACEHOLDER

    pytest.importorskip("fastapi", reason="fastapi is not installed (extra: serve)")
    folder = tmp_path / "s"
    config = paper_study(folder, "mos", items=5, count=5).config
    config = replace(config, texts=replace(config.texts, consent=f"*{PLACEHOLDER}*"))
    (folder / "study.toml").write_text(as_toml(config), "utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "stillspeak", "study", "serve", str(folder), "--port",
             str(taken.getsockname()[1])],
            capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip
    assert done.returncode == 1
    note, error = done.stderr.splitlines()
    assert "texts.consent does not say yet who runs the study" in note
    assert "cannot listen on" in error


@pytest.mark.e2e
def test_the_example_makes_a_study(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "study" / "make_study.py"), str(tmp_path / "my")],
        capture_output=True, text=True, check=False,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # What nobody said is not told as a result.
    assert "raters who do not exist" in done.stdout and "preferred" not in done.stdout
    page = tmp_path / "my" / "simulated-report" / "index.html"
    assert "living" in page.read_text("utf-8")
    assert len(list((tmp_path / "my" / "study" / "videos").iterdir())) == 16
