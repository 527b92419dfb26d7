"""Means with intervals over a test set, from the values of single clips."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stillspeak.reporting.bootstrap import Interval, percentile_intervals

Better = Literal["higher", "lower", "real"]
"""Which values are better; ``real``: those near the real video's own."""

BETTER: dict[Better, str] = {"higher": "higher", "lower": "lower", "real": "as real"}
"""In words."""


@dataclass(frozen=True)
class SpeakerMean:
    """One speaker's clips with a value, and the mean over them."""

    clips: int
    mean: float


@dataclass(frozen=True)
class MetricSummary:
    """One metric over all clips of a test set.

    Attributes:
        name, version, definition, definition_hash, unit, better: of the metric.
        clips: values that go into the mean.
        undefined: clips for which the metric has no value.
        mean, median: over clips; None if there are none.
        interval_clips: 95 % of bootstrap means, clips drawn with replacement; None for fewer
            than two clips or where a value is infinite.
        interval_speakers: the same, speakers drawn with all their clips.
        speakers: clips and mean of each speaker.
        notes: what is to say of values, and how many clips say it.
    """

    name: str
    version: int
    definition: str
    definition_hash: str
    unit: str
    better: Better
    clips: int
    undefined: int
    mean: float | None
    median: float | None
    interval_clips: Interval | None
    interval_speakers: Interval | None
    speakers: dict[str, SpeakerMean]
    notes: dict[str, int] = field(default_factory=dict)


def summarise(rows: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]) -> MetricSummary:
    """One metric's values over clips, from its lines and :attr:`Metric.about`."""
    by_speaker: dict[str, list[float]] = defaultdict(list)
    notes: dict[str, int] = defaultdict(int)
    for row in rows:
        if row["value"] is not None:
            by_speaker[row["speaker"]].append(read_number(row["value"]))
        if row.get("note"):
            notes[row["note"]] += 1
    values = np.array([v for group in by_speaker.values() for v in group])
    return MetricSummary(
        **metric,
        clips=len(values),
        undefined=len(rows) - len(values),
        mean=float(values.mean()) if len(values) else None,
        median=float(np.median(values)) if len(values) else None,
        interval_clips=bootstrap([np.array([v]) for v in values]),
        interval_speakers=bootstrap([np.array(group) for group in by_speaker.values()]),
        speakers={s: SpeakerMean(len(v), float(np.mean(v))) for s, v in sorted(by_speaker.items())},
        notes=dict(sorted(notes.items())),
    )


def bootstrap(groups: Sequence[npt.NDArray[np.float64]]) -> Interval | None:
    """95 % interval of the mean of all values when whole groups are drawn with replacement: 2.5 and
    97.5 % quantiles of 2,000 means, the same at each call; None if there are fewer than two
    groups or a value is not finite.
    """
    if not all(np.isfinite(group).all() for group in groups):
        return None
    sums = np.array([group.sum() for group in groups])
    counts = np.array([len(group) for group in groups])
    found = percentile_intervals(
        len(groups), lambda drawn: sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    )
    return found[0] if found else None


def write_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: infinities as ``inf`` and ``-inf``."""
    return str(value) if value is not None and math.isinf(value) else value


def read_number(value: float | str) -> float:
    return float(value)


def as_json(summary: MetricSummary) -> dict[str, Any]:
    """A summary as JSON values."""
    table = asdict(summary)
    table["median"] = write_number(table["median"])
    for values in (table, *table["speakers"].values()):
        values["mean"] = write_number(values["mean"])
    return table


def format_table(summaries: Sequence[MetricSummary]) -> str:
    """Means, medians and intervals as lines of text."""
    rows: list[tuple[str, ...]] = [
        ("metric", "unit", "better", "clips", "mean", "median", "95 % clips", "95 % speakers")
    ]
    for s in summaries:
        intervals = (
            "-" if i is None else f"{_digits(i[0])} to {_digits(i[1])}"
            for i in (s.interval_clips, s.interval_speakers)
        )
        centre = ("-" if v is None else _digits(v) for v in (s.mean, s.median))
        rows.append((s.name, s.unit, BETTER[s.better], str(s.clips), *centre, *intervals))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _digits(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
