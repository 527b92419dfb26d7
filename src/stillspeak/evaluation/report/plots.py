"""Plots of an evaluation: every clip's values, and lips and eyes over time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from stillspeak.evaluation.measures.expression import find_blinks
from stillspeak.evaluation.report.results import SystemResults, metric_names, natural
from stillspeak.evaluation.report.sheets import brow_movements
from stillspeak.evaluation.summary import BETTER
from stillspeak.evaluation.traces import curve
from stillspeak.reporting.numbers import number
from stillspeak.reporting.page import Figures, Picture
from stillspeak.reporting.plots import (
    INK,
    MUTED,
    RULE,
    SHADE,
    Plot,
    canvas,
    legend_above,
    name_rows,
    rule_values,
)

_MARKERS = "os^Dv"


@dataclass(frozen=True)
class Curve:
    """One system's curve or values, with the colour that it has all through the report."""

    name: str
    colour: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Events:
    """Stretches of time on one row: (start s, end s)."""

    name: str
    colour: str
    stretches: Sequence[tuple[float, float]]
    group: str = ""


def draw_plots(systems: Sequence[SystemResults], figures: Figures, count: int) -> dict[str, Any]:
    """Plots of every clip's values and of curves over time, by the templates' names for them."""
    distributions = []
    for name in metric_names(systems):
        rows, said = [], []
        for system in systems:
            values = sorted(system.values.get(name, {}).items())
            if finite := [v for _, v in values if math.isfinite(v)]:
                rows.append(Curve(system.name, system.colour, finite))
                median = number(float(np.median(finite)))
                said.append(f"{system.name}: median {median}, {len(finite)} clips")
        if rows:
            metric = next(s.metrics[name] for s in systems if name in s.metrics)
            plot = distribution(name, metric.unit, rows)
            picture = figures.plot(plot, f"{name}, every clip. {'; '.join(said)}.")
            distributions.append({"picture": picture, "better": BETTER[metric.better]})
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


def _in_turn(traced: Sequence[SystemResults], count: int) -> list[str]:
    """Clips that every traced system has, the speakers in turn by name; or the first's own."""
    if not traced:
        return []
    common = set.intersection(*(set(s.traces) for s in traced)) or set(traced[0].traces)
    speakers = traced[0].speakers
    turns: Counter[str] = Counter()
    order = []
    for clip in sorted(common):
        speaker = speakers.get(clip, "")
        order.append((turns[speaker], natural(speaker), clip))
        turns[speaker] += 1
    return [clip for *_, clip in sorted(order)[:count]]


def _lip_plot(clip: str, traced: Sequence[SystemResults], figures: Figures) -> dict[str, Any]:
    have = [s for s in traced if clip in s.traces]
    trace = have[0].traces[clip]
    curves = [
        Curve(s.name, s.colour, s.traces[clip]["generated"]["opening"])
        for s in have
        if s.kind != "real"
    ]
    real = Curve("real video", INK, trace["real"]["opening"])
    plot = lip_opening(real, curves, trace["words"], trace["fps"])
    said = " ".join(word for _, _, word in trace["words"]) or "no word timings"
    shown = ", ".join(c.name for c in curves) or "the real video alone"
    alt = f"Lip opening over time in {clip} ({said}): the real video, and {shown}."
    return {"clip": clip, "words": said, "picture": figures.plot(plot, alt)}


def _blink_plot(clips: Sequence[str], traced: Sequence[SystemResults], figures: Figures) -> Picture:
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
            rows.append(Events(name, colour, stretches, clip))
            said.append(f"{clip} {name}: {len(found)}")
    alt = f"When the eyes are closed. Blinks: {'; '.join(said)}."
    return figures.plot(blink_timeline(rows, seconds), alt)


def _blink_counts(traced: Sequence[SystemResults]) -> list[dict[str, Any]]:
    """Blinks and brow movements over all traced clips, generated and real."""
    rows = []
    for s in traced:
        entry: dict[str, Any] = {"name": s.name, "clips": len(s.traces)}
        for side in ("generated", "real"):
            closures = [curve(trace[side]["closure"]) for trace in s.traces.values()]
            entry[side] = sum(len(find_blinks(closure)) for closure in closures)
            entry[f"{side}_brows"] = len(brow_movements(s.traces, side))
        rows.append(entry)
    return rows


def lip_opening(
    real: Curve, curves: Sequence[Curve], words: Sequence[tuple[float, float, str]], fps: float
) -> Plot:
    """Opening of the inner lips over time in pixels, words (start s, end s, word) shaded; None
    leaves a gap.
    """
    with canvas(4.7, 2.35) as axes:
        everything = [v for c in (real, *curves) for v in c.values if v is not None]
        top = 1.38 * max(1.0, *everything)
        seconds = len(real.values) / fps
        for number, (start, end, word) in enumerate(words):
            end = min(end, seconds)
            axes.axvspan(start, end, color=SHADE, linewidth=0, alpha=1 if number % 2 else 0.55)
            middle, height = (start + end) / 2, top * (0.965 if number % 2 else 0.885)
            style: Any = {"ha": "center", "va": "center", "fontsize": 7.5, "color": MUTED}
            axes.text(middle, height, word, clip_on=True, **style)
        for number, curve in enumerate((real, *curves)):
            axes.plot(
                [(i + 0.5) / fps for i in range(len(curve.values))],
                [float("nan") if v is None else v for v in curve.values],
                color=curve.colour,
                linewidth=1.2 if number == 0 or curve.colour == MUTED else 1.7,
                linestyle=(0, (1, 1.2)) if number == 0 else "-",
                label=curve.name,
            )
        axes.set_xlim(0, seconds)
        axes.set_ylim(min([0.0, *everything]), top)
        axes.set_xlabel("time, s")
        axes.set_ylabel("lip opening, px")
        columns = min(4, 1 + len(curves))
        legend = legend_above(axes, columns, handlelength=1.6, borderaxespad=0.2, columnspacing=1.2)
        for text, curve in zip(legend.get_texts(), (real, *curves), strict=True):
            text.set_color(curve.colour)
        return Plot.of(axes)


def blink_timeline(rows: Sequence[Events], seconds: float) -> Plot:
    """When the eyes are closed: one row a system, grouped by clip."""
    places: list[float] = []
    heads: list[tuple[float, str]] = []
    y = 0.0
    for clip, group in groupby(rows, key=lambda row: row.group):
        y += 1.25 if heads else 0.6
        heads.append((y, clip))
        y += 0.85
        for _ in group:
            places.append(y)
            y += 0.8
    with canvas(4.7, 0.55 + 0.185 * (y + 0.4)) as axes:
        for place, row in zip(places, rows, strict=True):
            axes.plot([0, seconds], [place, place], color=RULE, linewidth=0.8, zorder=0)
            for start, end in row.stretches:
                axes.barh(place, end - start, left=start, height=0.52, color=row.colour)
        for place, text in heads:
            axes.text(0, place, text, color=INK, fontsize=8.5, va="center", fontweight="bold")
        name_rows(axes, [row.name for row in rows], [row.colour for row in rows], places)
        axes.set_xlim(0, seconds)
        axes.set_ylim(y, 0)
        axes.set_xlabel("time, s")
        return Plot.of(axes)


def distribution(title: str, unit: str, rows: Sequence[Curve]) -> Plot:
    """All clips' finite values, a dot each, and their median, a bar; one row a system."""
    with canvas(3.5, 0.78 + 0.3 * len(rows)) as axes:
        for place, row in enumerate(rows):
            values = sorted(v for v in row.values if v is not None)
            # Equal numbers of dots above and below the row, in an order that is always the same.
            lift = [0.17 * ((number * 0.618034) % 1 - 0.5) * 2 for number in range(len(values))]
            marker = _MARKERS[place % len(_MARKERS)]
            style: Any = {"color": row.colour, "alpha": 0.6, "linewidths": 0, "marker": marker}
            axes.scatter(values, [place + offset for offset in lift], s=13, **style)
            if values:
                median = float(np.median(values))
                axes.plot([median] * 2, [place - 0.34, place + 0.34], color=INK, linewidth=1.6)
        name_rows(axes, [row.name for row in rows], [row.colour for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=5)
        rule_values(axes)
        heading = title if unit == "1" else f"{title}, {unit}"
        axes.set_title(heading, loc="left", fontsize=9.5, color=INK)
        return Plot.of(axes)
