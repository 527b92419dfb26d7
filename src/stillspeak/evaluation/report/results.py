"""A report on results: tables beside the paper's, plots and sheets of frames.

The folder of a report::

    index.html    one page that needs nothing else: no script, no request, pictures inside
    report.md     the same as Markdown
    figures/      the pictures of report.md

Everything shown is read from folders of results (see ``evaluate``) or made again from the
prepared cache that they name. The same input gives the same bytes: a report holds no time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from stillspeak.errors import DataError, StillspeakError
from stillspeak.evaluation.measures.expression import find_blinks
from stillspeak.evaluation.report import plots, sheets
from stillspeak.evaluation.summary import Interval, bootstrap, read_number
from stillspeak.evaluation.tools import TOOLS
from stillspeak.evaluation.traces import curve, read_traces
from stillspeak.reporting.numbers import DASH, interval, number
from stillspeak.reporting.page import Figures, Picture, check_target, write_page
from stillspeak.reporting.plots import INK, MUTED, VARIABLES, colour_of

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and how many there are."""

FACES = 4
"""Rows of a sheet in which several faces speak the same sound."""


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's Table 1 (Vougioukas, Petridis and Pantic 2018). ACD is in 1e-4,
    the user preference and WER in percent; None: not printed.
    """

    corpus: str
    method: str
    psnr: float
    ssim: float
    fdbm: float
    cpbd: float
    acd: float
    acd_ratio: float | None
    user: float
    wer: float | None


PAPER = (
    PaperRow("GRID", "proposed", 27.98, 0.844, 0.114, 0.277, 1.02, 1.38, 79.77, 25.4),
    PaperRow("GRID", "baseline", 27.39, 0.831, 0.113, 0.280, 1.07, 1.45, 20.22, 37.2),
    PaperRow("TCD-TIMIT", "proposed", 23.54, 0.697, 0.102, 0.253, 2.06, None, 77.03, None),
    PaperRow("TCD-TIMIT", "baseline", 23.01, 0.654, 0.097, 0.252, 2.29, None, 22.97, None),
)
"""Ratios over the real videos' ACD, 0.74e-4 on GRID by the paper's text; it prints none for
TCD-TIMIT."""

TABLE = (
    ("psnr", "PSNR, dB"),
    ("ssim", "SSIM"),
    ("fdbm", "FDBM"),
    ("cpbd", "CPBD"),
    ("acd", "ACD"),
    ("acd_ratio", "ACD / real"),
    ("wer", "WER, %"),
    ("wer_real", "WER, real clips, %"),
    ("av_offset", "AV offset, frames"),
    ("av_confidence", "AV confidence"),
    ("av_confidence_real", "AV confidence, real clips"),
    ("blink_rate", "blinks, 1/s"),
)
"""Columns of the first table."""

PERCENT = ("wer", "wer_real")

BETTER = {"higher": "higher", "lower": "lower", "real": "as real"}


@dataclass(frozen=True)
class Results:
    """One folder of results.

    Attributes:
        folder: where it is.
        name: what the report calls the system; no two have the same.
        kind, label, sha256: of the system.
        colour: in every plot.
        summary: ``summary.json``.
        values: metric, then clip, to the value; undefined ones are not in it.
        speakers: clip to speaker.
        keys: clip to the key of the real clip.
        traces: clip to its curves over time.
    """

    folder: Path
    name: str
    kind: str
    label: str
    sha256: str
    colour: str
    summary: dict[str, Any]
    values: dict[str, dict[str, float]]
    speakers: dict[str, str]
    keys: dict[str, str]
    traces: dict[str, dict[str, Any]]

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
    def made(self) -> bool:
        """Whether it claims something: neither floor nor ceiling."""
        return self.kind not in ("still", "real")

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The summaries by metric."""
        metrics: dict[str, dict[str, Any]] = self.summary["metrics"]
        return metrics


@dataclass(frozen=True)
class Difference:
    """Mean of A minus B over the clips that both have a finite value for.

    Attributes:
        clips: so many.
        infinite: clips left out because a value is infinite.
        mean: None without clips.
        interval_clips, interval_speakers: 95 % bootstrap, clips or speakers drawn.
    """

    clips: int
    infinite: int
    mean: float | None
    interval_clips: Interval | None
    interval_speakers: Interval | None

    @property
    def clear(self) -> bool:
        """Whether the widest interval there is leaves out zero."""
        known = [i for i in (self.interval_clips, self.interval_speakers) if i is not None]
        return bool(known) and all(low > 0 or high < 0 for low, high in known)


@dataclass(frozen=True)
class Report:
    """What :func:`write_report` wrote, and what the report warns of."""

    page: Path
    markdown: Path
    systems: tuple[str, ...]
    notes: tuple[str, ...]


def write_report(
    results: Sequence[str | Path],
    output: str | Path,
    *,
    data: str | Path | None = None,
    title: str = "Talking faces: results",
    clips: int = 4,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write a report on folders of results.

    Args:
        results: folders that ``stillspeak evaluate`` wrote, one a system.
        output: folder of the report; it appears whole or not at all.
        data: the prepared cache, instead of those that the results name.
        title: of the page.
        clips: clips whose lips and blinks are drawn; the speakers in turn, by name.
        overwrite: replace a report that is there.
        progress: called after each step.

    Raises:
        DataError: a folder holds no results, or damaged ones.
        OutputExistsError: there is a report already.
        OutputError: the folder holds something else, or cannot be written.
    """
    if not results:
        raise DataError("no folder of results was given")
    target = Path(output)
    check_target(target, overwrite=overwrite)
    systems = read_all(results)
    steps = len(systems) + 2

    def advance(done: int) -> None:
        if progress is not None:
            progress("report", done, steps)

    figures = Figures()
    context = _tables(systems)
    context |= _draw(systems, figures, clips)
    advance(1)
    context["sheets"], context["no_sheets"] = [], []
    for done, system in enumerate(systems):
        made, reasons = _sheets(system, figures, Path(data) if data is not None else None)
        context["sheets"] += made
        context["no_sheets"] += reasons
        advance(done + 2)
    context["title"] = " ".join(title.split())
    page, markdown = write_page(target, context, figures)
    advance(steps)
    return Report(page, markdown, tuple(s.name for s in systems), tuple(context["notes"]))


# ------------------------------------------------------------------ reading


def read_all(folders: Sequence[str | Path]) -> list[Results]:
    """The results of several folders, under names that differ.

    Raises:
        DataError: a folder holds no results, damaged ones, or is given twice.
    """
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("a folder of results is given twice")
    labels = [_system_of(path)["label"] for path in paths]
    read: list[Results] = []
    made = 0
    for path, label in zip(paths, labels, strict=True):
        name = {"still": "still", "real": "real"}.get(label, Path(label).stem)
        if sum(Path(other).stem == Path(label).stem for other in labels) > 1:
            name = f"{name} ({path.resolve().name})"
        if any(name == other.name for other in read):
            name = f"{name} {len(read) + 1}"
        system = read_results(path, name=name, number=made)
        made += system.made
        read.append(system)
    return read


def read_results(folder: Path, *, name: str, number: int) -> Results:
    """One folder of results.

    Args:
        folder: that ``stillspeak evaluate`` wrote.
        name: what to call the system.
        number: place among the systems that make something, for the colour.

    Raises:
        DataError: files are missing or damaged.
    """
    system, summary = _system_of(folder), _object(folder / "summary.json")
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
        _check_summary(summary)
        traces = read_traces(folder / "traces", set(speakers))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is none; run stillspeak evaluate to the end") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(
            f"{folder}: the results are damaged ({reason}); run stillspeak evaluate again"
        ) from error
    kind = system["kind"]
    colour = {"still": MUTED, "real": INK}.get(kind, colour_of(number))
    return Results(
        *(folder, name, kind, system["label"], system["sha256"], colour, summary),
        *(values, speakers, keys, traces),
    )


def _system_of(folder: Path) -> dict[str, str]:
    path = folder / "system.json"
    if not path.is_file():
        raise DataError(f"{folder}: is no folder of results (it has no system.json)")
    system = _object(path)
    missing = [key for key in ("kind", "label", "sha256") if not isinstance(system.get(key), str)]
    if missing:
        raise DataError(f"{path}: is damaged (without {', '.join(missing)}); evaluate again")
    return system


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


def _check_summary(summary: Mapping[str, Any]) -> None:
    """Raise what reading a damaged summary would raise later."""
    int(summary["clips"])
    for failure in summary.get("failed", []):
        _ = failure["clip"], failure["reason"]
    dict(summary.get("left_out", {}))
    dict(summary.get("versions", {}))
    for metric in summary["metrics"].values():
        for key in ("name", "version", "definition", "definition_hash", "unit"):
            _ = metric[key]
        if metric["better"] not in BETTER:
            raise ValueError(f"better is {metric['better']!r}")
        int(metric["clips"]), int(metric["undefined"])
        for key in ("mean", "median"):
            if metric[key] is not None:
                read_number(metric[key])
        for key in ("interval_clips", "interval_speakers"):
            if metric[key] is not None:
                low, high = metric[key]
                float(low), float(high)
        for speaker in metric["speakers"].values():
            int(speaker["clips"]), read_number(speaker["mean"])


# ------------------------------------------------------------------ numbers


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], speakers: Mapping[str, str]
) -> Difference:
    """A minus B, clip by clip.

    Args:
        a, b: values by clip; clips that one lacks are left out.
        speakers: clip to speaker.
    """
    common = sorted(set(a) & set(b))
    finite = [clip for clip in common if math.isfinite(a[clip]) and math.isfinite(b[clip])]
    groups: dict[str, list[float]] = {}
    for clip in finite:
        groups.setdefault(speakers[clip], []).append(a[clip] - b[clip])
    every = [value for group in groups.values() for value in group]
    return Difference(
        len(finite),
        len(common) - len(finite),
        float(np.mean(every)) if every else None,
        bootstrap([np.array([value]) for value in every]),
        bootstrap([np.array(group) for group in groups.values()]),
    )


def best(metric: str, systems: Sequence[Results]) -> tuple[str | None, str]:
    """The system to mark as best in a metric, or None and why none is.

    Marked is a system that makes something (never the floor or the ceiling) if there are two of
    them or more, its 95 % intervals of the paired difference to each of the others (over clips
    and over speakers) leave out zero, and the repeated still, where it was scored, does not do
    as well. Where the best value is the real video's, distances from the real video's values
    count, clip by clip.

    Args:
        metric: its name.
        systems: all of the report.
    """
    have = [s for s in systems if metric in s.values]
    rivals = [s for s in have if s.made]
    if len(rivals) < 2:
        return None, "fewer than two systems"
    if len({_definition(s, metric) for s in have}) > 1:
        return None, "different definitions"
    better = rivals[0].metrics[metric]["better"]
    ceiling = next((s.values[metric] for s in have if s.kind == "real"), None)
    if better == "real" and ceiling is None:
        return None, "the real video's values are not here"

    def cost(system: Results) -> dict[str, float]:
        own = system.values[metric]
        if better == "real":
            assert ceiling is not None
            return {c: abs(v - ceiling[c]) for c, v in own.items() if c in ceiling}
        return own if better == "lower" else {c: -v for c, v in own.items()}

    def ahead(one: Results, other: Results) -> Difference:
        alike = _comparable(one, other)
        mine, theirs = ({c: v for c, v in cost(s).items() if c in alike} for s in (one, other))
        return paired_difference(mine, theirs, one.speakers)

    for one in rivals:
        against = [ahead(one, other) for other in rivals if other is not one]
        if all(d.clear and d.mean is not None and d.mean < 0 for d in against):
            floors = [ahead(one, s).mean for s in have if s.kind == "still"]
            if any(floor is not None and floor >= 0 for floor in floors):
                return None, "the repeated still does as well"
            return one.name, ""
    return None, "no system is clearly ahead"


# ------------------------------------------------------------------ tables


def _definition(system: Results, metric: str) -> tuple[Any, ...]:
    table = system.metrics[metric]
    return table["version"], table["definition_hash"]


def _all_metrics(systems: Sequence[Results]) -> list[str]:
    names: dict[str, None] = {}
    for system in systems:
        names |= dict.fromkeys(system.metrics)
    return list(names)


def _tables(systems: Sequence[Results]) -> dict[str, Any]:
    """Everything that is shown as a table."""
    names = _all_metrics(systems)
    marked = {name: best(name, systems) for name in names}
    # A word error rate never stands without that of the real clips.
    always = (*vars(PAPER[0]), "wer_real")
    columns = [(m, heading) for m, heading in TABLE if m in names or m in always]
    return {
        "columns": [heading for _, heading in columns],
        "paper": [_paper_row(row, [m for m, _ in columns]) for row in PAPER],
        "rows": [_first_row(s, [m for m, _ in columns], marked) for s in systems],
        "any_best": any(winner for winner, _ in marked.values()),
        "absent": [heading for m, heading in TABLE if m not in names],
        "systems": [_about(s) for s in systems],
        "notes": _notes(systems),
        "full": [_full(name, systems, marked[name][0]) for name in names],
        "pairs": _pairs(systems, names),
        "speakers": [t for name in names if (t := _by_speaker(name, systems)) is not None],
        "definitions": _definitions(systems, names),
        "versions": _versions(systems),
        "failures": [
            {"system": s.name, "clip": f["clip"], "reason": f["reason"]}
            for s in systems
            for f in s.summary.get("failed", [])
        ],
        "left_out": _left_out(systems),
        "undefined": [
            {
                "system": s.name,
                "metric": name,
                "clips": table["undefined"],
                "of": table["undefined"] + table["clips"],
            }
            for s in systems
            for name, table in s.metrics.items()
            if table["undefined"]
        ],
    }


def _paper_row(row: PaperRow, metrics: Sequence[str]) -> dict[str, Any]:
    cells = []
    for metric in metrics:
        value = getattr(row, metric, None)
        if value is None:
            cells.append(DASH)
        elif metric == "acd":
            cells.append(f"{value:.2f}e−4")
        else:
            digits = {"psnr": 2, "wer": 1, "acd_ratio": 2}.get(metric, 3)
            cells.append(f"{value:.{digits}f}")
    return {
        "name": f"{row.corpus} {row.method}",
        "corpus": row.corpus,
        "cells": cells,
    }


def _first_row(
    system: Results, metrics: Sequence[str], marked: Mapping[str, tuple[str | None, str]]
) -> dict[str, Any]:
    cells = []
    for metric in metrics:
        table, percent = system.metrics.get(metric), metric in PERCENT
        if table is None:
            cells.append({"value": DASH, "interval": "", "best": False})
            continue
        span, over = table["interval_speakers"], "speakers"
        if span is None:
            span, over = table["interval_clips"], "clips"
        cells.append(
            {
                "value": number(_read(table["mean"]), percent=percent),
                "interval": ""
                if span is None
                else interval(span, partial(number, percent=percent)),
                "over": over,
                "best": marked[metric][0] == system.name,
            }
        )
    return {"name": system.name, "role": system.role, "clips": system.summary["clips"]} | {
        "cells": cells,
        "speakers": len(set(system.speakers.values())),
    }


def _about(system: Results) -> dict[str, Any]:
    s = system.summary
    where = f"split {s['split']}" if s.get("split") else "videos of another system"
    return {
        "name": system.name,
        "role": system.role,
        "label": system.label,
        "folder": system.folder.resolve().name,
        "clips": s["clips"],
        "speakers": sorted(set(system.speakers.values())),
        "failed": len(s.get("failed", [])),
        "where": where,
        "command": " ".join(str(s.get("command") or "not noted").split()),
        "sha256": system.sha256 if system.kind == "model" else None,
        "colour": VARIABLES[system.colour],
    }


def _full(metric: str, systems: Sequence[Results], best_name: str | None) -> dict[str, Any]:
    have = [s for s in systems if metric in s.metrics]
    first = have[0].metrics[metric]
    rows = []
    for system in have:
        table = system.metrics[metric]
        rows.append(
            {
                "name": system.name,
                "clips": table["clips"],
                "undefined": table["undefined"],
                "mean": number(_read(table["mean"])),
                "median": number(_read(table["median"])),
                "over_clips": interval(table["interval_clips"]),
                "over_speakers": interval(table["interval_speakers"]),
                "best": system.name == best_name,
            }
        )
    unit = "" if first["unit"] == "1" else first["unit"]
    return {"metric": metric, "unit": unit, "better": BETTER[first["better"]], "rows": rows}


def _pairs(systems: Sequence[Results], names: Sequence[str]) -> list[dict[str, Any]]:
    """Differences of every two systems; those between systems that make something first."""
    pairs = []
    for a, b in combinations(systems, 2):
        # What claims something comes first, so that plus means more of it.
        one, other = (a, b) if a.made or not b.made else (b, a)
        rows = []
        for name in names:
            if name not in one.metrics or name not in other.metrics:
                continue
            if _definition(one, name) != _definition(other, name):
                continue
            comparable = _comparable(one, other)
            d = paired_difference(
                {c: v for c, v in one.values.get(name, {}).items() if c in comparable},
                {c: v for c, v in other.values.get(name, {}).items() if c in comparable},
                one.speakers,
            )
            table = one.metrics[name]
            rows.append(
                {
                    "metric": name,
                    "unit": "" if table["unit"] == "1" else table["unit"],
                    "better": BETTER[table["better"]],
                    "clips": d.clips,
                    "infinite": d.infinite,
                    "mean": number(d.mean, sign=True),
                    "over_clips": interval(d.interval_clips),
                    "over_speakers": interval(d.interval_speakers),
                    "apart": d.clear,
                }
            )
        if rows:
            pairs.append(
                {"a": one.name, "b": other.name, "rows": rows, "made": one.made and other.made}
            )
    return sorted(pairs, key=lambda pair: not pair["made"])


def _comparable(a: Results, b: Results) -> set[str]:
    """Clips that both have and whose real video was prepared alike. Other systems' videos bring
    their own preparation, so that their keys always differ: there the name decides.
    """
    common = set(a.speakers) & set(b.speakers)
    if "videos" in (a.kind, b.kind):
        return common
    return {clip for clip in common if a.keys[clip] == b.keys[clip]}


def _by_speaker(metric: str, systems: Sequence[Results]) -> dict[str, Any] | None:
    have = [s for s in systems if s.metrics.get(metric, {}).get("speakers")]
    people = sorted({p for s in have for p in s.metrics[metric]["speakers"]}, key=_natural)
    if not people:
        return None
    rows = []
    for person in people:
        cells = []
        for system in have:
            entry = system.metrics[metric]["speakers"].get(person)
            if entry is None:
                cells.append({"mean": DASH, "clips": 0})
            else:
                cells.append({"mean": number(_read(entry["mean"])), "clips": entry["clips"]})
        rows.append({"speaker": person, "cells": cells})
    unit = have[0].metrics[metric]["unit"]
    return {
        "metric": metric,
        "unit": "" if unit == "1" else unit,
        "systems": [s.name for s in have],
        "rows": rows,
    }


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(t), "") if t.isdigit() else (1, 0, t) for t in re.split(r"(\d+)", text) if t]


def _definitions(systems: Sequence[Results], names: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for name in names:
        seen: dict[tuple[Any, ...], list[str]] = {}
        for system in systems:
            if name in system.metrics:
                seen.setdefault(_definition(system, name), []).append(system.name)
        for key, users in seen.items():
            tables = [s.metrics[name] for s in systems if s.name in users]
            notes: dict[str, int] = {}
            for table in tables:
                for note, count in dict(table.get("notes", {})).items():
                    notes[note] = notes.get(note, 0) + count
            found.append(
                {
                    "metric": name,
                    "version": key[0],
                    "hash": key[1],
                    "text": tables[0]["definition"],
                    "unit": tables[0]["unit"],
                    "better": BETTER[tables[0]["better"]],
                    "users": users if len(seen) > 1 else [],
                    "notes": sorted(notes.items()),
                }
            )
    return found


def _versions(systems: Sequence[Results]) -> list[dict[str, Any]]:
    names: dict[str, None] = {}
    for system in systems:
        names |= dict.fromkeys(system.summary.get("versions", {}))
    rows = []
    for name in names:
        cells = [str(s.summary.get("versions", {}).get(name, DASH)) for s in systems]
        rows.append({"name": name, "cells": cells, "same": len(set(cells)) == 1})
    return rows


def _left_out(systems: Sequence[Results]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[str]] = {}
    for system in systems:
        for metric, reason in system.summary.get("left_out", {}).items():
            found.setdefault((system.name, str(reason)), []).append(metric)
    return [
        {"system": system, "metrics": metrics, "reason": reason}
        for (system, reason), metrics in found.items()
    ]


def _notes(systems: Sequence[Results]) -> list[str]:
    """What keeps the systems from being compared as they stand."""
    notes = []
    first, *others = systems
    for other in others:
        mine, theirs = set(first.speakers), set(other.speakers)
        if mine != theirs:
            notes.append(
                f"{first.name} and {other.name} were scored on different clips: "
                f"{len(mine & theirs)} in common, {len(mine - theirs)} only for {first.name}, "
                f"{len(theirs - mine)} only for {other.name}. Means over different clips do not "
                "compare; the paired differences do."
            )
        videos = "videos" in (first.kind, other.kind)
        different = sum(first.keys[c] != other.keys[c] for c in mine & theirs)
        if different:
            whose = (
                "other systems' videos bring their own preparation of the real videos"
                if videos
                else "the caches differ, and these clips are left out of the paired differences"
            )
            notes.append(
                f"{different} of {len(mine & theirs)} clips that {first.name} and {other.name} "
                f"have in common are prepared differently: {whose}."
            )
        if not videos and first.summary.get("split") != other.summary.get("split"):
            splits = [str(s.summary.get("split") or "none") for s in (first, other)]
            notes.append(
                f"{first.name} and {other.name} name different splits: {' and '.join(splits)}."
            )
    for name in _all_metrics(systems):
        have = [s for s in systems if name in s.metrics]
        if len({_definition(s, name) for s in have}) > 1:
            said = ", ".join(f"{s.name} version {s.metrics[name]['version']}" for s in have)
            notes.append(f"{name} has different definitions ({said}): its values do not compare.")
    changed = [row["name"] for row in _versions(systems) if not row["same"]]
    changed = [name for name in changed if name not in TOOLS or _tool_differs(systems, name)]
    if changed:
        notes.append(
            f"Made with different versions of {', '.join(changed)} (see Versions): small "
            "differences may come from these."
        )
    return notes


def _tool_differs(systems: Sequence[Results], tool: str) -> bool:
    """A tool that some results did without is no difference in version."""
    said = {s.summary.get("versions", {}).get(tool) for s in systems}
    return len(said - {None}) > 1


def _read(value: Any) -> float | None:
    return None if value is None else read_number(value)


# ------------------------------------------------------------------ plots


def _draw(systems: Sequence[Results], figures: Figures, count: int) -> dict[str, Any]:
    """Plots of distributions and of curves over time."""
    distributions = []
    for name in _all_metrics(systems):
        rows = []
        for system in systems:
            values = system.values.get(name, {})
            finite = [values[clip] for clip in sorted(values) if math.isfinite(values[clip])]
            if finite:
                rows.append(plots.Curve(system.name, system.colour, finite))
        if rows:
            table = next(s.metrics[name] for s in systems if name in s.metrics)
            said = "; ".join(
                f"{row.name}: median {number(float(np.median(np.array(row.values, float))))}, "
                f"{len(row.values)} clips"
                for row in rows
            )
            plot = plots.distribution(name, table["unit"], rows)
            better = BETTER[table["better"]]
            distributions.append(
                {"picture": figures.plot(plot, f"{name}, every clip. {said}."), "better": better}
            )
    traced = [s for s in systems if s.traces]
    reasons = [
        f"{s.name}: no curves over time (its results hold no traces; metrics of lips or blinks "
        "write them)"
        for s in systems
        if not s.traces
    ]
    clips = _in_turn(traced, count)
    return {
        "distributions": distributions,
        "lips": [_lip_plot(clip, traced, figures) for clip in clips],
        "blinks": _blink_plot(clips, traced, figures) if clips else None,
        "blink_counts": _blink_counts(traced),
        "no_curves": reasons,
    }


def _in_turn(traced: Sequence[Results], count: int) -> list[str]:
    """Clips that every traced system has, the speakers in turn by name; or the first's own."""
    if not traced:
        return []
    common = set.intersection(*(set(s.traces) for s in traced)) or set(traced[0].traces)
    speakers = traced[0].speakers
    groups: dict[str, list[str]] = {}
    for clip in sorted(common):
        groups.setdefault(speakers.get(clip, ""), []).append(clip)
    order = sorted(
        (turn, _natural(speaker), clip)
        for speaker, group in groups.items()
        for turn, clip in enumerate(group)
    )
    return [clip for _, _, clip in order[:count]]


def _lip_plot(clip: str, traced: Sequence[Results], figures: Figures) -> dict[str, Any]:
    have = [s for s in traced if clip in s.traces]
    trace = have[0].traces[clip]
    curves = [
        plots.Curve(s.name, s.colour, s.traces[clip]["generated"]["opening"])
        for s in have
        if s.kind != "real"
    ]
    real = plots.Curve("real video", INK, trace["real"]["opening"])
    plot = plots.lip_opening(real, curves, trace["words"], trace["fps"])
    said = " ".join(word for _, _, word in trace["words"]) or "no word timings"
    shown = ", ".join(c.name for c in curves) or "the real video alone"
    picture = figures.plot(
        plot, f"Lip opening over time in {clip} ({said}): the real video, and {shown}."
    )
    return {"clip": clip, "words": said, "picture": picture}


def _blink_plot(clips: Sequence[str], traced: Sequence[Results], figures: Figures) -> Picture:
    rows, said, seconds = [], [], 0.0
    for clip in clips:
        have = [s for s in traced if clip in s.traces]
        trace = have[0].traces[clip]
        seconds = max(seconds, trace["seconds"])
        sides = [("real video", INK, trace, "real")]
        sides += [(s.name, s.colour, s.traces[clip], "generated") for s in have if s.kind != "real"]
        for name, colour, curves, side in sides:
            found = find_blinks(curve(curves[side]["closure"]))
            stretches = [(start / curves["fps"], stop / curves["fps"]) for start, stop in found]
            rows.append(plots.Events(name, colour, stretches, clip))
            said.append(f"{clip} {name}: {len(found)}")
    alt = f"When the eyes are closed. Blinks: {'; '.join(said)}."
    return figures.plot(plots.blink_timeline(rows, seconds), alt)


def _blink_counts(traced: Sequence[Results]) -> list[dict[str, Any]]:
    """Blinks and brow movements over all traced clips, generated and real."""
    rows = []
    for s in traced:
        entry: dict[str, Any] = {"name": s.name, "clips": len(s.traces)}
        for side in ("generated", "real"):
            entry[side] = sum(
                len(find_blinks(curve(t[side]["closure"]))) for t in s.traces.values()
            )
            entry[f"{side}_brows"] = len(sheets.brow_movements(s.traces, side))
        rows.append(entry)
    return rows


# ------------------------------------------------------------------ sheets


def _sheets(
    system: Results, figures: Figures, data: Path | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Sheets of one system, and why there are none."""
    if data is None and isinstance(system.summary.get("data"), str):
        data = Path(system.summary["data"])
    frames = sheets.SystemFrames(
        *(system.folder, system.kind, system.label, system.sha256, data, system.keys)
    )
    made: list[dict[str, Any]] = []
    reasons: list[str] = []

    def add(what: str, draw: Callable[[], sheets.Sheet]) -> None:
        try:
            made.append(_sheet(draw(), figures))
        except (StillspeakError, OSError) as error:
            reasons.append(f"{system.name}, {what}: {' '.join(str(error).split())}")

    if system.kind == "model":
        faces = _one_a_speaker(system)[:FACES]
        add(
            "the same sound on several faces", lambda: sheets.same_sound(frames, faces, system.name)
        )
    if system.kind == "videos":
        reasons.append(
            f"{system.name}, the same sound on several faces: these are given videos, which no "
            "other sound can drive"
        )
    if system.kind == "still":
        return made, reasons
    if not system.traces:
        reasons.append(f"{system.name}, blinks and brows: its results hold no traces")
        return made, reasons
    fps = next(iter(system.traces.values()))["fps"]
    found = sheets.blinks(system.traces, "generated")
    moves = sheets.brow_movements(system.traces, "generated")
    lowered = [move for move in moves if move.size < 0]
    raised = [move for move in moves if move.size > 0]
    many = f"in {len(system.traces)} clips"
    if found:
        add("a blink", lambda: sheets.blink_sheet(frames, found[0], system.name, fps))
    else:
        reasons.append(f"{system.name}: no whole blink was found {many}, so none is shown")
    for way, some in (("lowered (a frown)", lowered), ("raised", raised)):
        if some:
            first = some[0]
            add("brows", lambda first=first: sheets.brow_sheet(frames, first, system.name, fps))  # type: ignore[misc]
        else:
            reasons.append(
                f"{system.name}: no brows {way} by more than {sheets.BROW_EXCURSION:g} px for "
                f"{sheets.BROW_FRAMES} frames were found {many}, so none are shown"
            )
    return made, reasons


def _one_a_speaker(system: Results) -> list[str]:
    first: dict[str, str] = {}
    for clip in sorted(system.speakers):
        first.setdefault(system.speakers[clip], clip)
    return [first[speaker] for speaker in sorted(first, key=_natural)]


def _sheet(sheet: sheets.Sheet, figures: Figures) -> dict[str, Any]:
    headings = ", ".join(sheet.columns)
    return {
        "title": sheet.title,
        "caption": sheet.caption,
        "columns": sheet.columns,
        "strips": [
            {
                "label": strip.label,
                "picture": figures.png(strip.png, f"{strip.label}. Frames: {headings}."),
            }
            for strip in sheet.strips
        ],
    }
