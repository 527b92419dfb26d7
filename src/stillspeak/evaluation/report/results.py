"""Folders of results, as a report compares them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillspeak.errors import ConfigError, DataError
from stillspeak.evaluation.results import RunSummary
from stillspeak.evaluation.summary import MetricSummary, read_number
from stillspeak.evaluation.systems import System
from stillspeak.evaluation.traces import read_traces
from stillspeak.reporting.plots import INK, MUTED, VARIABLES, colour_of
from stillspeak.system.configuration import build


@dataclass(frozen=True)
class SystemResults:
    """One folder of results. ``name`` is unique in the report, ``values`` holds the defined ones by
    metric and clip; ``speakers``, ``keys`` (of the real clips) and ``traces`` are by clip.
    """

    folder: Path
    name: str
    system: System
    colour: str
    summary: RunSummary
    values: dict[str, dict[str, float]]
    speakers: dict[str, str]
    keys: dict[str, str]
    traces: dict[str, dict[str, Any]]

    @property
    def kind(self) -> str:
        """Of the system."""
        return self.system.kind

    @property
    def role(self) -> str:
        """What the system is to the others."""
        roles = {
            "still": "repeated still: the floor",
            "real": "real video: the ceiling",
            "videos": "another system's videos",
        }
        return roles.get(self.kind, "model")

    @property
    def generates(self) -> bool:
        """Whether it claims something: neither floor nor ceiling."""
        return self.kind not in ("still", "real")

    @property
    def metrics(self) -> dict[str, MetricSummary]:
        """The summaries by metric."""
        return self.summary.metrics

    @property
    def people(self) -> list[str]:
        """The speakers."""
        return sorted(set(self.speakers.values()))

    @property
    def where(self) -> str:
        """Which clips were scored."""
        split = self.summary.split
        return f"split {split}" if split else "videos of another system"

    @property
    def command(self) -> str:
        """What made the results, in one line."""
        return " ".join((self.summary.command or "not noted").split())

    @property
    def variable(self) -> str:
        """The page's CSS variable for the colour."""
        return VARIABLES[self.colour]

    def definition(self, metric: str) -> tuple[int, str]:
        """Version of a metric, and the hash of its definition: values of others do not compare."""
        summary = self.metrics[metric]
        return summary.version, summary.definition_hash


def metric_names(systems: Sequence[SystemResults]) -> list[str]:
    """Names of all metrics that any of the systems has."""
    return list(dict.fromkeys(name for system in systems for name in system.metrics))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers in names by their size."""
    return [(0, int(t), "") if t.isdigit() else (1, 0, t) for t in re.split(r"(\d+)", text) if t]


def read_all(folders: Sequence[str | Path]) -> list[SystemResults]:
    """The results of several folders, under names that differ.

    Raises:
        DataError: a folder holds no results, damaged ones, or is given twice.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("a folder of results is given twice")
    known = [_system_of(path) for path in paths]
    stems = [f"{Path(system.label).stem} {system.animate}".strip() for system in known]
    read: list[SystemResults] = []
    for path, name in zip(paths, stems, strict=True):
        if stems.count(name) > 1:
            name = f"{name} ({path.resolve().name})"
        if any(name == other.name for other in read):
            name = f"{name} {len(read) + 1}"
        read.append(read_results(path, name, sum(system.generates for system in read)))
    return read


def read_results(folder: Path, name: str, number: int) -> SystemResults:
    """One folder of results; ``number`` counts the systems that generate something before it.

    Raises:
        DataError: files are missing or damaged.
    """
    system, table = _system_of(folder), _object(folder / "summary.json")
    path = folder / "values.jsonl"
    values: dict[str, dict[str, float]] = {}
    speakers: dict[str, str] = {}
    keys: dict[str, str] = {}
    try:
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            clip = str(row["clip"])
            speakers[clip] = str(row["speaker"])
            keys[clip] = str(row.get("clip_key", ""))
            if row["value"] is not None:
                values.setdefault(str(row["metric"]), {})[clip] = read_number(row["value"])
        summary = build(RunSummary, table, name="summary.json")
        traces = read_traces(folder / "traces", set(speakers))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is none; run stillspeak evaluate to the end") from error
    except (ConfigError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(
            f"{folder}: the results are damaged ({reason}); run stillspeak evaluate again"
        ) from error
    colour = {"still": MUTED, "real": INK}.get(system.kind, colour_of(number))
    return SystemResults(folder, name, system, colour, summary, values, speakers, keys, traces)


def _system_of(folder: Path) -> System:
    path = folder / "system.json"
    if not path.is_file():
        raise DataError(f"{folder}: is no folder of results (it has no system.json)")
    system = _object(path)
    about = {key: system.get(key) for key in ("kind", "label", "sha256")}
    missing = [key for key, value in about.items() if not isinstance(value, str)]
    if missing:
        raise DataError(f"{path}: is damaged (without {', '.join(missing)}); evaluate again")
    return System(**about, animate=str(system.get("animate", "")))  # type: ignore[arg-type]


def _object(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is none; run stillspeak evaluate to the end") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); evaluate again") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: is damaged (no table); evaluate again")
    return table
