"""The folder of results: what an evaluation writes, and reads when it goes on.

::

    system.json                 what was evaluated
    clips/SPEAKER/NAME.jsonl    the values of one clip, replaced in one step
    values.jsonl                all values that this run asked for, in the clips' order
    summary.json                means, medians, 95 % intervals, failures, versions
    traces/SPEAKER/NAME.json    curves over time, where landmarks were found (see ``traces``)
    aligned/                    for folders of videos: their aligned crops
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from stillspeak import __version__
from stillspeak.errors import OutputError, OutputExistsError
from stillspeak.evaluation.summary import MetricSummary, as_json
from stillspeak.evaluation.systems import System
from stillspeak.evaluation.tools import Tool
from stillspeak.system.atomic import claim, whole_file

_PACKAGES = ("numpy", "scipy", "scikit-image", "torch", "opencv-contrib-python", "av")


@dataclass(frozen=True)
class Failure:
    """A clip that could not be scored, and why."""

    clip: str
    reason: str

    @classmethod
    def of(cls, clip: str, error: Exception) -> Failure:
        """The error's message in one line."""
        return cls(clip, " ".join(str(error).split()))


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation did.

    Attributes:
        scored, reused, failed: clips for which something was computed, whose values were all
            there, and that were skipped.
        left_out: metrics that were not asked for by name and lack a package, with the reason.
        metrics: summaries, in the order of registration.
    """

    system: System
    scored: int
    reused: int
    failed: tuple[Failure, ...]
    left_out: dict[str, str]
    metrics: tuple[MetricSummary, ...]


@dataclass(frozen=True)
class RunSummary:
    """``summary.json``, as a report reads it; see :class:`Evaluation`."""

    clips: int
    metrics: dict[str, MetricSummary]
    failed: tuple[Failure, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    split: str | None = None
    data: str | None = None
    command: str | None = None


@contextmanager
def claimed(output: Path, system: System, *, overwrite: bool) -> Iterator[None]:
    """Make a folder of results this system's, and have it for this process alone.

    Raises:
        OutputExistsError: it holds another system's results, and ``overwrite`` is not set.
        OutputError: another evaluation writes there, or the disk refuses.
    """
    with _refusals(output, "made"):
        output.mkdir(parents=True, exist_ok=True)
    busy = OutputError(
        f"{output}: another evaluation is writing there; wait for it, or give another folder"
    )
    with claim(output, busy):
        _name_owner(output / "system.json", _about(system), overwrite=overwrite)
        yield


def _name_owner(path: Path, mine: dict[str, str], *, overwrite: bool) -> None:
    """Note whose results a folder holds, unless they are another system's."""
    try:
        theirs = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        theirs = None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); give another folder") from error
    if theirs is not None and _identity(theirs) != _identity(mine) and not overwrite:
        raise OutputExistsError(
            f"{path.parent}: holds the results of {theirs.get('label')} ({theirs.get('sha256')}); "
            "give another folder, or allow them to be overwritten"
        )
    write_text(path, json.dumps(mine, indent=1) + "\n")


def _about(system: System) -> dict[str, str]:
    about = {"kind": system.kind, "label": system.label, "sha256": system.sha256}
    return about | ({"animate": system.animate} if system.animate else {})


def _identity(system: dict[str, Any]) -> tuple[Any, ...]:
    """A model is its weights and options, whatever they are called."""
    kind = system.get("kind")
    return kind, system.get("sha256" if kind == "model" else "label"), system.get("animate")


def write_summary(
    output: Path, evaluation: Evaluation, versions: dict[Tool, str], facts: dict[str, Any]
) -> None:
    """Write ``summary.json``; raises as :func:`write_text`."""
    table = {
        "system": _about(evaluation.system),
        **facts,
        "clips": evaluation.scored + evaluation.reused,
        "failed": [asdict(failure) for failure in evaluation.failed],
        "left_out": evaluation.left_out,
        "metrics": {m.name: as_json(m) for m in evaluation.metrics},
        "versions": {
            "stillspeak": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
            **{str(tool): version for tool, version in versions.items()},
        },
    }
    write_text(output / "summary.json", json.dumps(table, indent=1) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The values in a file; none if there is no such file or it is damaged."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return [line for line in lines if isinstance(line, dict) and "key" in line]


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write values, one a line; raises as :func:`write_text`."""
    write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def write_text(path: Path, text: str) -> None:
    """Write a file so that its name never stands for half of it.

    Raises:
        OutputError: the disk refuses.
    """
    with _refusals(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(text, "utf-8")


@contextmanager
def _refusals(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be {what} ({error.strerror or error})") from error
