"""Metrics by name: what each measures, in which version, and how it is computed.

A metric is a function of one clip's :class:`~stillspeak.evaluation.clip.Material`. Its
definition is text that readers get beside its values; changing what a metric gives means
raising its version, and both go into the key under which a value is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from stillspeak.errors import ConfigError
from stillspeak.evaluation.clip import Material
from stillspeak.evaluation.tools import Tool

Better = Literal["higher", "lower", "real"]
"""Which values are better; ``real``: those near the real video's own."""


class Score(NamedTuple):
    """A metric's value for one clip, None where it is not defined, and what is to say of it."""

    value: float | None
    note: str = ""


Measure = Callable[[Material], Score]


@dataclass(frozen=True)
class Metric:
    """One registered metric.

    Attributes:
        name: by which it is asked for.
        version: raised whenever values would change.
        definition: what is measured, in words that suffice to measure it again.
        unit: of its values; ``1`` for pure numbers.
        better: which values are.
        tools: what has to be loaded for it.
        measure: computes it.
        others: whether it looks at the real lips of other clips, too.
        beside: metrics without which its values say nothing; who asks for it gets them too.
    """

    name: str
    version: int
    definition: str
    unit: str
    better: Better
    tools: frozenset[Tool]
    measure: Measure
    beside: frozenset[str] = frozenset()
    others: bool = False

    @cached_property
    def definition_hash(self) -> str:
        """Twelve hexadecimal digits over name, version, unit, better and definition."""
        text = json.dumps([self.name, self.version, self.unit, self.better, self.definition])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_METRICS: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    version: int,
    unit: str,
    better: Better,
    definition: str,
    tools: Iterable[Tool] = (),
    beside: Iterable[str] = (),
    others: bool = False,
) -> Callable[[Callable[[Material], float | Score]], Measure]:
    """Register the decorated function as a metric.

    The function may return a plain number; NaN then means that the value is not defined.
    """

    def register(function: Callable[[Material], float | Score]) -> Measure:
        def measure(material: Material) -> Score:
            result = function(material)
            score = result if isinstance(result, Score) else Score(result)
            if score.value is not None and score.value != score.value:
                return Score(None, score.note or "not defined for this clip")
            return score

        if name in _METRICS:
            raise ValueError(f"there are two metrics with the name {name}")
        text = " ".join(definition.split())
        _METRICS[name] = Metric(
            *(name, version, text, unit, better),
            *(frozenset(tools), measure, frozenset(beside), others),
        )
        return measure

    return register


def all_metrics() -> list[Metric]:
    """Every registered metric, in the order of registration."""
    # Whoever asks for metrics wants those that stillspeak defines.
    import stillspeak.evaluation.metrics  # noqa: F401

    return list(_METRICS.values())


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """Metrics by name, and those that belong beside them, in the order of registration.

    Raises:
        ConfigError: an unknown name, or none.
    """
    wanted = set(names)
    known = all_metrics()
    unknown = sorted(wanted - {m.name for m in known})
    if unknown:
        raise ConfigError(
            f"there is no metric {', '.join(unknown)}; there are {', '.join(m.name for m in known)}"
        )
    if not wanted:
        raise ConfigError("no metric was asked for")
    wanted |= {name for m in known if m.name in wanted for name in m.beside}
    return [m for m in known if m.name in wanted]
