"""Plots of a study's report, in the look of :mod:`stillspeak.reporting.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stillspeak.reporting.plots import (
    INK,
    MUTED,
    SERIES,
    SHADE,
    Plot,
    canvas,
    colour_of,
    legend_above,
    name_rows,
    rule_values,
)


@dataclass(frozen=True)
class Row:
    """A value with its interval, or without."""

    label: str
    value: float
    interval: Sequence[float] | None = None
    colour: str = SERIES[0]


def intervals(
    rows: Sequence[Row],
    label: str,
    *,
    reference: float | None = None,
    limits: tuple[float, float] | None = None,
    names: bool = True,
) -> Plot:
    """Values and intervals from top to bottom; ``reference`` is a dashed line such as chance."""
    step = 0.3 if names else 0.07
    with canvas(4.7, 0.65 + step * max(2, len(rows))) as axes:
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        for place, row in enumerate(rows):
            if row.interval is not None:
                axes.plot(list(row.interval), [place] * 2, color=row.colour, linewidth=1.6)
            axes.plot([row.value], [place], "o", color=row.colour, markersize=5 if names else 3)
        name_rows(axes, [_short(row.label) for row in rows] if names else [], INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        if limits is not None:
            axes.set_xlim(*limits)
        rule_values(axes)
        axes.set_xlabel(label)
        return Plot.of(axes)


def histogram(counts: Sequence[int], expected: Sequence[float], label: str) -> Plot:
    """Numbers of visitors by score from 0 up, and what chance alone would give."""
    with canvas(4.7, 2.5) as axes:
        places = range(len(counts))
        bars = axes.bar(places, counts, width=0.78, color=SERIES[0], label="visitors")
        axes.bar_label(bars, [c or "" for c in counts], padding=2, fontsize=7.5, color=INK)
        (line,) = axes.plot(places, expected, "o", color=MUTED, label="guessing (binomial, 0.5)")
        line.set(markersize=3, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xticks(list(places))
        axes.set_xlabel(label)
        axes.set_ylabel("visitors")
        legend_above(axes, 2, labelcolor=MUTED)
        return Plot.of(axes)


def grades(rows: Sequence[tuple[str, Sequence[int]]], labels: Sequence[str]) -> Plot:
    """Shares of the grades 1 to 5, stacked, one bar a system."""
    with canvas(4.7, 0.9 + 0.36 * max(2, len(rows))) as axes:
        for place, (_, counts) in enumerate(rows):
            total, left = max(1, sum(counts)), 0.0
            for grade, count in enumerate(counts):
                share, name = count / total, f"{grade + 1} {labels[grade]}"
                bar = axes.barh(place, share, 0.66, left, label=None if place else name)
                bar[0].set(color=colour_of(0), alpha=0.16 + 0.21 * grade)
                left += share
        name_rows(axes, [_short(name) for name, _ in rows], INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the ratings")
        spacing = {"handlelength": 0.9, "handletextpad": 0.4, "columnspacing": 0.9}
        legend_above(axes, 5, labelcolor=MUTED, **spacing)
        return Plot.of(axes)


def confusion(words: Sequence[str], table: Sequence[Sequence[float]]) -> Plot:
    """Shares of what was read (columns) where what was said (rows)."""
    size = len(words)
    side = min(4.7, 1.1 + (0.24 if size > 8 else 0.42) * size)
    with canvas(side, side) as axes:
        for i, row in enumerate(table):
            for j, share in enumerate(row):
                axes.barh(i, 1, 1, j - 0.5, color=SERIES[0], alpha=0.75 * share, linewidth=0)
                if share and size <= 8:
                    text = f"{100 * share:.0f}"
                    axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=INK)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_xticks(range(size), words, rotation=0 if size > 8 else 45)
        axes.set_yticks(range(size), words)
        axes.tick_params(length=0)
        axes.set_xlabel("read")
        axes.set_ylabel("said")
        for spine in axes.spines.values():
            spine.set_color(SHADE)
        axes.set_aspect("equal")
        return Plot.of(axes)


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
