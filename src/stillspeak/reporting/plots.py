"""Plots as SVG that follows the page's colours.

Colours are placeholders: within a page they become CSS variables, so that light and dark pages
share one picture; in a file of its own they become fixed colours on white.
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
    from matplotlib.legend import Legend

INK, MUTED, RULE, SHADE = "#010102", "#010103", "#010104", "#010105"
SERIES = ("#010106", "#010107", "#010108", "#010109", "#01010a", "#01010b")
"""Placeholders, one a system; more systems than colours repeat them."""

VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", SHADE: "shade"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
"""The page's CSS variable for each placeholder."""

# Series after Okabe and Ito 2008, darkened where white needs it.
_HUES = ("#0072b2", "#c9510c", "#00856a", "#a8508a", "#8a6d00", "#3a86b8")
_FIXED = {INK: "#1c1d21", MUTED: "#5c6068", RULE: "#d5d8dd", SHADE: "#eceef1"} | dict(
    zip(SERIES, _HUES, strict=True)
)

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


@dataclass(frozen=True)
class Plot:
    """An SVG with placeholders for colours."""

    svg: str

    @classmethod
    def of(cls, axes: Axes) -> Plot:
        """What was drawn on a :func:`canvas`; call it before the canvas closes."""
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        axes.get_figure(root=True).savefig(  # type: ignore[union-attr]
            buffer, format="svg", metadata=nothing
        )
        svg = buffer.getvalue().decode()
        svg = svg[svg.index("<svg ") :]
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
        svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
        # Names of families that a reader's system lacks would only make the text fall back.
        svg = re.sub(r"font:\s*([^;\"']*?px)\s[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
        return cls(svg.strip())

    def inline(self, prefix: str) -> str:
        """For a page: colours are the page's variables, and ids begin with ``prefix``."""
        svg = self.svg
        for colour, name in VARIABLES.items():
            svg = svg.replace(colour, f"var(--{name})")
        svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
        svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
        svg = svg.replace("url(#", f"url(#{prefix}-")
        # The page says what is seen; screen readers need not hear every tick.
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
    """The colour of a report's n-th series."""
    return SERIES[number % len(SERIES)]


@contextmanager
def canvas(width: float, height: float) -> Iterator[Axes]:
    """Empty axes of a figure of this size in inches. Nothing outside is changed, and the user's
    own settings of matplotlib do not count.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot()


def name_rows(
    axes: Axes,
    names: Sequence[str],
    colours: Sequence[str] | str = MUTED,
    places: Sequence[float] | None = None,
) -> None:
    """Write a name beside each row of a plot, instead of an axis; rows are at 0, 1, 2 and so on
    unless ``places`` says otherwise.
    """
    axes.set_yticks(range(len(names)) if places is None else places, names)
    each = [colours] * len(names) if isinstance(colours, str) else colours
    for label, colour in zip(axes.get_yticklabels(), each, strict=True):
        label.set_color(colour)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def rule_values(axes: Axes) -> None:
    """Draw fine vertical lines behind the values."""
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_above(axes: Axes, columns: int, **style: Any) -> Legend:
    return axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, frameon=False, **style
    )
