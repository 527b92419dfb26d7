"""A new kind of study is one module: nothing else knows it, and everything works with it."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillspeak.cli import app as cli
from stillspeak.errors import ConfigError
from stillspeak.study import kinds

pytest.importorskip("fastapi", reason="fastapi is not installed (extra: serve)")

from fastapi.testclient import TestClient

from stillspeak.study.app import create_app


def test_a_kind_of_one_module(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        kinds, "__path__", [*kinds.__path__, str(Path(__file__).with_name("kinds"))]
    )
    study = tmp_path / "study"

    def run(*words: object) -> str:
        result = CliRunner().invoke(cli.app, ["study", *map(str, words)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    # Its texts, its videos and its plan.
    said = run("init", study, "--kind", "artefacts", videos / "ours", videos / "theirs")
    assert "artefacts, 16 videos of 6 names, ours, theirs; 12 for each visitor" in said
    settings = study / "study.toml"
    assert "Does anything in this video look wrong?" in settings.read_text("utf-8")
    text = settings.read_text("utf-8").replace("must_watch = true", "must_watch = false")
    settings.write_text(text, "utf-8")

    # Its page and its answers.
    with TestClient(create_app(study), headers={"X-Study": "1"}) as client:
        page = client.get("/").text
        assert "<title>Do you see anything wrong?</title>" in page
        assert "You will see 12 short videos" in page
        (shown,) = re.findall(r'data-settings="([^"]*)"', page)
        (question,) = json.loads(shown.replace("&#34;", '"'))["questions"]
        assert (question["form"], question["values"]) == ("choice", ["yes", "no"])
        assert question["labels"] == ["Yes", "No"]
        state = client.post("/api/start", json={"agreed": True, "key": "0" * 32}).json()
        while state["phase"] == "trial":
            body = {"position": state["trial"]["position"], "responseMs": 900}
            wrong = client.post("/api/answer", json=body | {"answers": {"wrong": "perhaps"}})
            assert wrong.status_code == 422
            reply = client.post("/api/answer", json=body | {"answers": {"wrong": "yes"}})
            state = reply.json()["state"]
        assert state["total"] == 12 + 2 + 2
    said = run("report", study)
    assert "ours: 100.0 % look wrong." in said

    # Its simulated raters, its numbers and its report.
    said = run("simulate", study, "--raters", 20, "--share", 0.3)
    database = said.split()[-1]
    run("report", study, "--database", database, "--overwrite")
    numbers = json.loads((study / "report" / "report.json").read_text("utf-8"))
    assert [s["n"] for s in numbers["main"]["systems"]] == [120, 120]
    for system in numbers["main"]["systems"]:
        low, high = system["clustered"]
        assert low < 0.3 < high
    assert numbers["exposure"] == {"cells": 12, "least": 20, "most": 20, "n": 240}
    assert "Videos that look wrong" in (study / "report" / "report.md").read_text("utf-8")
    table = tmp_path / "answers.csv"
    run("export", study, "--database", database, "--csv", table)
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert Counter(r["role"] for r in rows) == {"main": 240, "catch": 40, "repeat": 40}


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="'beauty' is not one of intelligibility, mos, "):
        kinds.find_kind("beauty")


def test_contributors_read_the_same_module() -> None:
    module = Path(__file__).with_name("kinds") / "artefacts.py"
    text = Path(__file__).parents[2].joinpath("CONTRIBUTING.md").read_text("utf-8")
    assert f"```python\n{module.read_text('utf-8')}```" in text
