"""Pieces of a report, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillspeak.reporting.numbers import DASH, fixed, interval
from stillspeak.reporting.page import Figures, Picture
from stillspeak.reporting.plots import Plot


@dataclass
class Block:
    """One piece of a section: heading, headline, text, figure, table or definitions."""

    kind: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    fold: bool = False
    picture: Picture | None = None


@dataclass
class Section:
    """A titled part of a report."""

    title: str
    figures: Figures
    blocks: list[Block] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        self.blocks.append(Block(kind, text))

    def table(
        self, text: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, fold: bool = False
    ) -> None:
        self.blocks.append(Block("table", text, head, list(rows), fold))

    def figure(self, plot: Plot, alt: str, text: str) -> None:
        self.blocks.append(Block("figure", text, picture=self.figures.plot(plot, alt)))


@dataclass
class ReportBuilder:
    """Headline and sections, as they grow. ``level``: of the intervals, in words."""

    level: str
    headline: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def section(self, title: str) -> Section:
        section = Section(title, self.figures)
        self.sections.append(section)
        return section


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def span(pair: Sequence[float] | None) -> str:
    """An interval of shares."""
    return DASH if pair is None else f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f} %"


def number_span(pair: Sequence[float] | None) -> str:
    """An interval of numbers."""
    return interval(pair, fixed)


def p_value(value: float | None) -> str:
    return DASH if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def p_equals(value: float | None) -> str:
    """As :func:`p_value`, to stand behind the letter p."""
    text = p_value(value)
    return f"= {text}" if text[0].isdigit() else text


def of(counts: Mapping[str, Any]) -> str:
    """``k`` of ``n``."""
    return f"{counts['k']} of {counts['n']}"


def share_row(share: Mapping[str, Any]) -> list[str]:
    """Cells of a share: itself, its counts, the exact interval, that over visitors."""
    return [percent(share["share"]), of(share), span(share["exact"]), span(share["clustered"])]


def share_overview(name: str, share: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of a kind's overview."""
    return name, percent(share["share"]), of(share), span(share["clustered"])


def share_head(level: str) -> list[str]:
    """The head of :func:`share_row`."""
    return ["share", "n", f"{level} exact", f"{level} over visitors"]


ALPHA = ("Krippendorff’s alpha", "1 − observed / expected disagreement (2011).")
"""A row of the report's method, for kinds whose results have it."""
