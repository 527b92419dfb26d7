"""The table of bad inputs in docs/hardening.md: every row fails in one line, and says it still."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from support.docs import ROOT, text

pytestmark = pytest.mark.e2e

PAGE = "docs/hardening.md"


def load(name: str) -> ModuleType:
    """A program of the scripts' folder as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


bad_inputs = load("bad_inputs")
QUICK = [row for row in bad_inputs.ROWS if row.input in bad_inputs.QUICK]


def test_the_page_has_a_line_for_each_row() -> None:
    _, _, rest = text(PAGE).partition(bad_inputs.BEGIN)
    lines = [line for line in rest.partition(bad_inputs.END)[0].splitlines() if "| `" in line]
    begun = [f"| {row.input} | `{row.command}` | 1 | " for row in bad_inputs.ROWS]
    assert len({row.input for row in bad_inputs.ROWS}) == len(begun) >= 35
    for line, begin in zip(lines, begun, strict=True):
        assert line.startswith(begin)


def test_no_line_names_a_place_of_the_machine_that_wrote_it() -> None:
    table = text(PAGE).partition(bad_inputs.BEGIN)[2]
    assert tempfile.gettempdir() not in table
    assert str(Path.home()) not in table


def test_the_quick_rows_are_rows() -> None:
    assert len(QUICK) == len(bad_inputs.QUICK) > 2


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.input)
def test_quick_rows_say_what_the_page_says(row: object) -> None:
    outcome = bad_inputs.run(row)
    assert outcome.fine, outcome
    assert bad_inputs.line(row, outcome) in text(PAGE).splitlines()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("row", bad_inputs.ROWS, ids=lambda row: row.input)
def test_all_rows_fail_in_one_line(row: object) -> None:
    outcome = bad_inputs.run(row)
    assert outcome.fine, outcome


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "scripts" / "fuzz.py"), *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip


def test_the_fuzzer_by_chance(tmp_path: Path) -> None:
    done = fuzz("configuration", "--cases", "40", "--seed", "3", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["target"], told["cases"], told["findings"]) == ("configuration", 40, 0)
    assert (tmp_path / "configuration.last").read_bytes()


@pytest.mark.long
def test_the_fuzzer_guided_by_coverage(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed (extra: fuzz)")
    done = fuzz("configuration", "--guided", "--cases", "2500", "--corpus", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stat::number_of_executed_units" in done.stderr
    assert len(list(tmp_path.iterdir())) > 20
