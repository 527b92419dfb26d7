"""The tables of a report, beside the paper's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from stillspeak.evaluation.measures.mood import JUDGED
from stillspeak.evaluation.report.results import SystemResults, metric_names, natural
from stillspeak.evaluation.summary import BETTER, MetricSummary, bootstrap
from stillspeak.evaluation.tools import TOOLS
from stillspeak.motion.moods import MOODS
from stillspeak.reporting.bootstrap import Interval
from stillspeak.reporting.numbers import DASH, interval, number

PAPER = {
    "GRID proposed": (27.98, 0.844, 0.114, 0.277, 1.02, 1.38, 25.4),
    "GRID baseline": (27.39, 0.831, 0.113, 0.280, 1.07, 1.45, 37.2),
    "TCD-TIMIT proposed": (23.54, 0.697, 0.102, 0.253, 2.06, None, None),
    "TCD-TIMIT baseline": (23.01, 0.654, 0.097, 0.252, 2.29, None, None),
}
"""The paper's Table 1 (Vougioukas, Petridis and Pantic 2018), metrics as in :data:`PAPER_FORMATS`.
ACD is in 1e-4, WER in percent; None: not printed. Ratios are over the real videos' ACD, 0.74e-4 on
GRID by the paper's text."""

PAPER_FORMATS = {
    "psnr": "{:.2f}",
    "ssim": "{:.3f}",
    "fdbm": "{:.3f}",
    "cpbd": "{:.3f}",
    "acd": "{:.2f}e−4",
    "acd_ratio": "{:.2f}",
    "wer": "{:.1f}",
}

TABLE = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "fdbm": "FDBM",
    "cpbd": "CPBD",
    "acd": "ACD",
    "acd_ratio": "ACD / real",
    "wer": "WER, %",
    "wer_real": "WER, real clips, %",
    "av_offset": "AV offset, frames",
    "av_confidence": "AV confidence",
    "av_confidence_real": "AV confidence, real clips",
    "blink_rate": "blinks, 1/s",
    "head_amplitude": "head / real",
}
"""Columns of the first table."""

PERCENT = ("wer", "wer_real")


@dataclass(frozen=True)
class Difference:
    """Mean of A minus B over ``clips`` with two finite values; ``infinite`` more are left out."""

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


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], speakers: Mapping[str, str]
) -> Difference:
    """A minus B, values by clip; clips that one lacks are left out."""
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


def best(metric: str, systems: Sequence[SystemResults]) -> str | None:
    """The system to mark as best in a metric, if any.

    Marked is a system that generates something (never the floor or the ceiling) if there are two
    of them or more, its 95 % intervals of the paired difference to each of the others (over clips
    and over speakers) leave out zero, and the repeated still, where it was scored, does not do
    as well. Where the best value is the real video's, distances from it count, clip by clip.
    """
    have = [s for s in systems if metric in s.values]
    rivals = [s for s in have if s.generates]
    if len(rivals) < 2 or len({s.definition(metric) for s in have}) > 1:
        return None
    better = rivals[0].metrics[metric].better
    ceiling = next((s.values[metric] for s in have if s.kind == "real"), {})

    def cost(system: SystemResults) -> dict[str, float]:
        own = system.values[metric]
        if better == "real":
            return {c: abs(v - ceiling[c]) for c, v in own.items() if c in ceiling}
        return own if better == "lower" else {c: -v for c, v in own.items()}

    def ahead(one: SystemResults, other: SystemResults) -> Difference:
        return _difference(one, other, cost(one), cost(other))

    for one in rivals:
        against = [ahead(one, other) for other in rivals if other is not one]
        if all(d.clear and d.mean is not None and d.mean < 0 for d in against):
            floors = [ahead(one, s).mean for s in have if s.kind == "still"]
            return one.name if all(floor is None or floor < 0 for floor in floors) else None
    return None


def tables(systems: Sequence[SystemResults]) -> dict[str, Any]:
    """Everything that is shown as a table, by the templates' names for it."""
    names = metric_names(systems)
    marked = {name: best(name, systems) for name in names}
    # A word error rate never stands without that of the real clips.
    always = (*PAPER_FORMATS, "wer_real")
    columns = [metric for metric in TABLE if metric in names or metric in always]
    return {
        "columns": [TABLE[metric] for metric in columns],
        "paper": [_paper_row(name, columns) for name in PAPER],
        "rows": [(system, _first_row(system, columns, marked)) for system in systems],
        "any_best": any(marked.values()),
        "absent": [heading for metric, heading in TABLE.items() if metric not in names],
        "systems": systems,
        "notes": notes(systems),
        "full": [_full(name, systems, marked[name]) for name in names],
        "pairs": _pairs(systems, names),
        "moods": _moods(systems),
        "speakers": [t for name in names if (t := _by_speaker(name, systems)) is not None],
        "definitions": [d for name in names for d in _definitions(name, systems)],
        "versions": _versions(systems),
        "failures": [(s.name, failure) for s in systems for failure in s.summary.failed],
        "left_out": _left_out(systems),
        "undefined": [(s.name, m) for s in systems for m in s.metrics.values() if m.undefined],
    }


def _about(metric: MetricSummary) -> dict[str, str]:
    unit = "" if metric.unit == "1" else metric.unit
    return {"metric": metric.name, "unit": unit, "better": BETTER[metric.better]}


def _paper_row(name: str, columns: Sequence[str]) -> dict[str, Any]:
    printed = {
        metric: write.format(value)
        for (metric, write), value in zip(PAPER_FORMATS.items(), PAPER[name], strict=True)
        if value is not None
    }
    cells = [printed.get(metric, DASH) for metric in columns]
    return {"name": name, "corpus": name.split()[0], "cells": cells}


def _first_row(
    system: SystemResults, metrics: Sequence[str], marked: Mapping[str, str | None]
) -> list[dict[str, Any]]:
    cells = []
    for name in metrics:
        metric = system.metrics.get(name)
        if metric is None:
            cells.append({"value": DASH, "interval": "", "best": False})
            continue
        write = partial(number, percent=name in PERCENT)
        span, over = metric.interval_speakers, "speakers"
        if span is None:
            span, over = metric.interval_clips, "clips"
        cell = {"value": write(metric.mean), "over": over, "best": marked[name] == system.name}
        cells.append({**cell, "interval": "" if span is None else interval(span, write)})
    return cells


def _full(name: str, systems: Sequence[SystemResults], best_name: str | None) -> dict[str, Any]:
    rows = [(s.name, s.metrics[name], s.name == best_name) for s in systems if name in s.metrics]
    return {**_about(rows[0][1]), "rows": rows}


def _pairs(systems: Sequence[SystemResults], names: Sequence[str]) -> list[dict[str, Any]]:
    """Differences of every two systems; those between systems that generate something first."""
    pairs = []
    for a, b in combinations(systems, 2):
        # What claims something comes first, so that plus means more of it.
        one, other = (a, b) if a.generates or not b.generates else (b, a)
        rows = []
        for name in names:
            both = name in one.metrics and name in other.metrics
            if both and one.definition(name) == other.definition(name):
                values = one.values.get(name, {}), other.values.get(name, {})
                difference = _difference(one, other, *values)
                rows.append({**_about(one.metrics[name]), "difference": difference})
        if rows:
            made = one.generates and other.generates
            pairs.append({"a": one.name, "b": other.name, "rows": rows, "made": made})
    return sorted(pairs, key=lambda pair: not pair["made"])


def _difference(
    one: SystemResults, other: SystemResults, mine: Mapping[str, float], theirs: Mapping[str, float]
) -> Difference:
    """The paired difference over clips whose real video was prepared alike. Other systems' videos
    bring their own preparation, so that their keys always differ: there the name decides.
    """
    alike = set(one.speakers) & set(other.speakers)
    if "videos" not in (one.kind, other.kind):
        alike = {clip for clip in alike if one.keys[clip] == other.keys[clip]}
    mine = {clip: value for clip, value in mine.items() if clip in alike}
    return paired_difference(mine, theirs, one.speakers)


def _by_speaker(name: str, systems: Sequence[SystemResults]) -> dict[str, Any] | None:
    have = [s for s in systems if name in s.metrics and s.metrics[name].speakers]
    people = sorted({p for s in have for p in s.metrics[name].speakers}, key=natural)
    if not people:
        return None
    rows = [(person, [s.metrics[name].speakers.get(person) for s in have]) for person in people]
    names = [s.name for s in have]
    return {**_about(have[0].metrics[name]), "systems": names, "rows": rows}


def _moods(systems: Sequence[SystemResults]) -> dict[str, Any] | None:
    """How many clips of each system that moves show which mood."""
    rows = []
    for system in systems:
        if "mood_strength" in system.metrics and system.kind != "still":
            notes = system.metrics["mood_strength"].notes
            rows.append((system.name, [notes.get(f"{JUDGED}{mood}", 0) for mood in MOODS]))
    return {"names": MOODS, "rows": rows} if rows else None


def _definitions(name: str, systems: Sequence[SystemResults]) -> list[dict[str, Any]]:
    """The definitions of a metric, of which there are several if systems differ in it."""
    seen: dict[tuple[int, str], list[SystemResults]] = {}
    for system in systems:
        if name in system.metrics:
            seen.setdefault(system.definition(name), []).append(system)
    found = []
    for users in seen.values():
        notes: Counter[str] = Counter()
        for system in users:
            notes.update(system.metrics[name].notes)
        metric = users[0].metrics[name]
        about = {"summary": metric, "better": BETTER[metric.better]}
        names = [system.name for system in users] if len(seen) > 1 else []
        found.append({**about, "users": names, "notes": sorted(notes.items())})
    return found


def _versions(systems: Sequence[SystemResults]) -> list[tuple[str, list[str], bool]]:
    """Name of each package and tool, its versions, and whether they are all the same."""
    names = dict.fromkeys(name for system in systems for name in system.summary.versions)
    rows = []
    for name in names:
        cells = [system.summary.versions.get(name, DASH) for system in systems]
        rows.append((name, cells, len(set(cells)) == 1))
    return rows


def _left_out(systems: Sequence[SystemResults]) -> list[dict[str, Any]]:
    rows = []
    for system in systems:
        found: dict[str, list[str]] = {}
        for metric, reason in system.summary.left_out.items():
            found.setdefault(reason, []).append(metric)
        rows += [{"system": system.name, "metrics": m, "reason": r} for r, m in found.items()]
    return rows


def notes(systems: Sequence[SystemResults]) -> list[str]:
    """What keeps the systems from being compared as they stand."""
    said = []
    first, *others = systems
    for other in others:
        mine, theirs = set(first.speakers), set(other.speakers)
        if mine != theirs:
            said.append(
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
            said.append(
                f"{different} of {len(mine & theirs)} clips that {first.name} and {other.name} "
                f"have in common are prepared differently: {whose}."
            )
        if not videos and first.summary.split != other.summary.split:
            splits = [s.summary.split or "none" for s in (first, other)]
            said.append(
                f"{first.name} and {other.name} name different splits: {' and '.join(splits)}."
            )
    for name in metric_names(systems):
        have = [s for s in systems if name in s.metrics]
        if len({s.definition(name) for s in have}) > 1:
            which = ", ".join(f"{s.name} version {s.metrics[name].version}" for s in have)
            said.append(f"{name} has different definitions ({which}): its values do not compare.")
    changed = [
        name
        for name, cells, same in _versions(systems)
        # A tool that some results did without is no difference in version.
        if not same and (name not in TOOLS or len(set(cells) - {DASH}) > 1)
    ]
    if changed:
        said.append(
            f"Made with different versions of {', '.join(changed)} (see Versions): small "
            "differences may come from these."
        )
    return said
