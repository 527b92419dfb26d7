"""Bad inputs of the command line fail in one line; scripts/fuzz.py runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.bad_inputs import QUICK, ROOT, ROWS, Row, run

pytestmark = pytest.mark.e2e


def test_quick_rows_fail_in_one_line_that_says_why() -> None:
    rows = {row.input: row for row in ROWS}
    for name, begin in QUICK.items():
        outcome = run(rows[name])
        assert outcome.fine, outcome
        assert outcome.lines[0].startswith(f"stillspeak: {begin}"), outcome


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.input)
def test_all_rows_fail_in_one_line(row: Row) -> None:
    outcome = run(row)
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
