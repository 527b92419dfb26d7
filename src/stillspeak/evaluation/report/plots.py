"""Plots of a report, as SVG that follows the page's colours.

Curves are those of :mod:`stillspeak.evaluation.report.traces`. Colours are placeholders: within a
page they become CSS variables, so that light and dark pages share one picture; in a file of its
own they become fixed colours on white.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, SHADE = "#010102", "#010103", "#010104", "#010105"
SERIES = ("#010106", "#010107", "#010108", "#010109", "#01010a", "#01010b")
"""Placeholders, one a system; more systems than colours repeat them with other markers."""

VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", SHADE: "shade"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
"""The page's CSS variable for each placeholder."""

_FIXED = {
    INK: "#1c1d21",
    MUTED: "#5c6068",
    RULE: "#d5d8dd",
    SHADE: "#eceef1",
    # After Okabe and Ito 2008, darkened where white needs it.
    SERIES[0]: "#0072b2",
    SERIES[1]: "#c9510c",
    SERIES[2]: "#00856a",
    SERIES[3]: "#a8508a",
    SERIES[4]: "#8a6d00",
    SERIES[5]: "#3a86b8",
}
_MARKERS = "os^Dv"

Values = Sequence[float | None]


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


@dataclass(frozen=True)
class Plot:
    """An SVG with placeholders for colours."""

    svg: str

    def inline(self, prefix: str) -> str:
        """For a page: colours are the page's variables, and ids begin with ``prefix``."""
        svg = self.svg
        for colour, name in VARIABLES.items():
            svg = svg.replace(colour, f"var(--{name})")
        svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
        svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
        svg = svg.replace("url(#", f"url(#{prefix}-")
        # The page says what is seen; readers of screens need not hear every tick.
        svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1)
        svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
        return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)

    def file(self) -> bytes:
        """A file of its own, on white."""
        svg = self.svg
        for colour, fixed in _FIXED.items():
            svg = svg.replace(colour, fixed)
        svg = re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg)
        return ('<?xml version="1.0" encoding="utf-8"?>\n' + svg).encode()


def colour_of(number: int) -> str:
    """The colour of the report's n-th generating system."""
    return SERIES[number % len(SERIES)]


def lip_opening(
    real: Curve, curves: Sequence[Curve], words: Sequence[tuple[float, float, str]], fps: float
) -> Plot:
    """Opening of the inner lips over time, words shaded.

    Args:
        real, curves: (T,) pixels; None where no face was found leaves a gap.
        words: (start s, end s, word).
        fps: frames a second.
    """
    with _figure(4.7, 2.35) as (figure, axes):
        everything = [v for c in (real, *curves) for v in c.values if v is not None]
        top = 1.38 * max([1.0, *everything])
        seconds = len(real.values) / fps
        for number, (start, end, word) in enumerate(words):
            end = min(end, seconds)
            axes.axvspan(start, end, color=SHADE, linewidth=0, alpha=1 if number % 2 else 0.55)
            axes.text(
                (start + end) / 2,
                top * (0.965 if number % 2 else 0.885),
                word,
                ha="center",
                va="center",
                fontsize=7.5,
                color=MUTED,
                clip_on=True,
            )
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
        legend = axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=min(4, 1 + len(curves)),
            frameon=False,
            handlelength=1.6,
            borderaxespad=0.2,
            columnspacing=1.2,
        )
        for text, curve in zip(legend.get_texts(), (real, *curves), strict=True):
            text.set_color(curve.colour)
        return _plot(figure)


def blink_timeline(rows: Sequence[Events], seconds: float) -> Plot:
    """When the eyes are closed: one row a system, grouped by clip.

    Args:
        rows: those of one clip follow each other.
        seconds: length of the time axis.
    """
    places: list[float] = []
    heads: list[tuple[float, str]] = []
    y, before = 0.0, None
    for row in rows:
        if row.group != before:
            y += 0.6 if before is None else 1.25
            heads.append((y, row.group))
            before = row.group
            y += 0.85
        places.append(y)
        y += 0.8
    with _figure(4.7, 0.55 + 0.185 * (y + 0.4)) as (figure, axes):
        for place, row in zip(places, rows, strict=True):
            axes.plot([0, seconds], [place, place], color=RULE, linewidth=0.8, zorder=0)
            for start, end in row.stretches:
                axes.barh(place, end - start, left=start, height=0.52, color=row.colour)
        for place, text in heads:
            axes.text(0, place, text, color=INK, fontsize=8.5, va="center", fontweight="bold")
        axes.set_yticks(places, [row.name for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(row.colour)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, seconds)
        axes.set_ylim(y, 0)
        axes.set_xlabel("time, s")
        return _plot(figure)


def distribution(title: str, unit: str, rows: Sequence[Curve]) -> Plot:
    """All clips' values, a dot each, and their median, a bar; one row a system.

    Args:
        title: the metric.
        unit: of the values.
        rows: finite values; None is left out.
    """
    with _figure(3.5, 0.78 + 0.3 * len(rows)) as (figure, axes):
        for place, row in enumerate(rows):
            values = sorted(v for v in row.values if v is not None)
            # Equal numbers of dots above and below the row, in an order that is always the same.
            lift = [0.17 * ((number * 0.618034) % 1 - 0.5) * 2 for number in range(len(values))]
            axes.scatter(
                values,
                [place + offset for offset in lift],
                s=13,
                color=row.colour,
                alpha=0.6,
                linewidths=0,
                marker=_MARKERS[place % len(_MARKERS)],
            )
            if values:
                middle = len(values) // 2
                median = (values[middle] + values[-middle - 1]) / 2
                axes.plot([median] * 2, [place - 0.34, place + 0.34], color=INK, linewidth=1.6)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(row.colour)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(
            title if unit == "1" else f"{title}, {unit}", loc="left", fontsize=9.5, color=INK
        )
        return _plot(figure)


_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillspeak",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty plot, inches; without pyplot, so that nothing outside is changed."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), mpl.rc_context():
        # Whatever the person's own settings are, a report looks the same.
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _plot(figure: Figure) -> Plot:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    # Names of families that a reader's system lacks would only make the text fall back.
    svg = re.sub(r"font:\s*([^;\"']*?px)\s[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return Plot(svg.strip())
