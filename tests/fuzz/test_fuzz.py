"""Six kinds of input, damaged in every way: they work or are refused in one line.

``make test`` tries a few hundred cases of each kind, the same every time. ``pytest -m long
tests/fuzz`` tries STILLSPEAK_FUZZ_CASES of each (10,000), others every time unless
STILLSPEAK_FUZZ_SEED is set. ``scripts/fuzz.py`` goes on from there, guided by coverage.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import support.fuzz
from stillspeak.errors import InputError
from support.fuzz import FindingError, Form, Target, check, damage
from support.fuzz_targets import targets

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="the watch needs Linux's /proc"),
]

SHORT = {
    "image": 400,
    "audio": 250,
    "weights": 125,
    "cache": 150,
    "configuration": 300,
    "study": 150,
}
"""Cases in ``make test``."""

LONG = int(os.environ.get("STILLSPEAK_FUZZ_CASES", "10000"))

settings.register_profile(
    "fuzz",
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
PROFILE = settings.get_profile("fuzz")


@st.composite
def cases(draw: st.DrawFn, target: Target) -> bytes:
    """A form's number and noise, or a good input with a few damages, each by a seed of its own:
    shrinking leaves out those that do not matter."""
    number = draw(st.integers(0, len(target.forms) - 1))
    if draw(st.integers(0, 11)) == 0:
        return bytes([number]) + draw(st.binary(max_size=400))
    form, seeds = target.forms[number], target.seeds[number]
    content = draw(st.sampled_from(seeds))
    for number_of_damage in draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4)):
        content = damage(content, random.Random(number_of_damage), form, seeds)
    return bytes([number]) + content


def run(target: Target, count: int, chosen: int | None) -> None:
    """Try so many cases; derandomised without a seed."""

    @settings(PROFILE, max_examples=count, derandomize=chosen is None)
    @given(cases(target))
    def hold(case: bytes) -> None:
        check(target, case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PIL and NumPy, about what is wrong with the input
        hold() if chosen is None else seed(chosen)(hold)()


@pytest.mark.parametrize("name", SHORT)
def test_damaged_inputs_work_or_are_refused_in_one_line(name: str) -> None:
    target = targets()[name]
    before = target.cases
    run(target, SHORT[name], None)
    assert target.cases - before >= SHORT[name] // 2
    assert target.worked > 0
    assert target.refused.total() > 0


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SHORT)
def test_ten_thousand_damaged_inputs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = int(os.environ.get("STILLSPEAK_FUZZ_SEED") or time.time_ns() % 2**32)
    target = targets()[name]
    target.seeds  # noqa: B018 - not to be timed
    before, began = target.cases, time.perf_counter()
    try:
        run(target, LONG, chosen)
    finally:
        result = {
            "target": name,
            "cases": target.cases - before,
            "seed": chosen,
            "seconds": round(time.perf_counter() - began, 1),
            "worked": target.worked,
            "refused": target.refused.total(),
            "slowest_seconds": round(target.slowest, 2),
            "largest_growth_mib": round(target.growth / 2**20),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        with capsys.disabled():
            print("\n" + json.dumps(result))  # noqa: T201 - for docs/responsible-use.md
    assert target.cases - before >= LONG


# --- the watch sees what it should ------------------------------------------------------------


class Held:
    """What a bad reader keeps."""

    files: ClassVar[list[object]] = []


def two_lines(content: bytes, folder: Path) -> None:
    """An error's own text is one line in any case, so that of another class stands for it."""

    class TwoLinesError(InputError):
        def __str__(self) -> str:
            return "one\ntwo"

    raise TwoLinesError


def steers_the_terminal(content: bytes, folder: Path) -> None:
    class ColouredError(InputError):
        def __str__(self) -> str:
            return "\x1b[31mred"

    raise ColouredError


def fails_otherwise(content: bytes, folder: Path) -> None:
    raise KeyError("frames")


def hangs(content: bytes, folder: Path) -> None:
    while content:
        pass


def takes_memory(content: bytes, folder: Path) -> None:
    bytearray(b"x" * (64 * 2**20))


def wants_everything(content: bytes, folder: Path) -> None:
    bytearray(2**45)


def leaves_a_file_open(content: bytes, folder: Path) -> None:
    (folder / "a").touch()
    Held.files.append((folder / "a").open())


def leaves_half_a_file(content: bytes, folder: Path) -> None:
    (folder / ".out.mp4.1.partial").touch()


def leaves_a_temporary_file(content: bytes, folder: Path) -> None:
    Path(tempfile.gettempdir(), "left").touch()


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(support.fuzz, "SECONDS", 0.2)
    monkeypatch.setattr(support.fuzz, "MEMORY", 32 * 2**20)
    yield
    Held.files.clear()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (two_lines, "not one line"),
        (steers_the_terminal, "prints"),
        (fails_otherwise, "KeyError"),
        (hangs, "takes longer than 0.2 s"),
        (takes_memory, "memory grew by"),
        (wants_everything, "MemoryError"),
        (leaves_a_file_open, "left open"),
        (leaves_half_a_file, "left behind: .*partial"),
        (leaves_a_temporary_file, "left behind: .*left"),
    ],
)
def test_the_watch_sees(strict: None, body: support.fuzz.Body, message: str) -> None:
    target = Target("made up", (Form("form", list, lambda content, folder: None),))
    assert target.seeds == ((),)
    bad = Target("made up", (Form("form", tuple, body),))
    bad.__dict__["seeds"] = ((),)
    with pytest.raises(FindingError, match=message):
        check(bad, b"\0content")


def test_the_watch_lets_good_and_refused_inputs_pass() -> None:
    def odd(content: bytes, folder: Path) -> None:
        if len(content) % 2:
            raise InputError("an odd number of bytes")

    target = Target("made up", (Form("form", lambda: [b"ab"], odd),))
    assert [check(target, bytes(1 + n)) for n in range(3)] == ["worked", "InputError", "worked"]
    assert (target.cases, target.worked, dict(target.refused)) == (3, 2, {"InputError": 1})
