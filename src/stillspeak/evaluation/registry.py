"""What a metric is, and the table that :mod:`~stillspeak.evaluation.metrics` fills.

A metric is a function of one :class:`~stillspeak.evaluation.clip.EvaluationClip`. Its definition
is text that readers get beside its values; changing what a metric gives means raising its
version, and both go into the key under which a value is stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from stillspeak.errors import VideoError
from stillspeak.evaluation.clip import EvaluationClip
from stillspeak.evaluation.summary import Better
from stillspeak.evaluation.tools import Tool


class Score(NamedTuple):
    """A metric's value for one clip, None where it is not defined, and what is to say of it."""

    value: float | None
    note: str = ""


Measure = Callable[[EvaluationClip], float | Score]
"""Computes a metric. NaN and VideoError say that the value is not defined for this clip."""


@dataclass(frozen=True)
class Metric:
    """One registered metric; its ``definition`` suffices to measure it again.

    Attributes:
        unit: of its values; ``1`` for pure numbers.
        version: raised whenever values would change.
        tools: what has to be loaded for it.
        beside: metrics without which its values say nothing; asking for it asks for them too.
        others: whether it looks at the real lips of other clips, too.
    """

    name: str
    compute: Measure
    definition: str
    better: Better = "real"
    unit: str = "1"
    version: int = 1
    tools: tuple[Tool, ...] = ()
    beside: tuple[str, ...] = ()
    others: bool = False

    @cached_property
    def definition_hash(self) -> str:
        """Twelve hexadecimal digits over name, version, unit, better and definition."""
        text = json.dumps([self.name, self.version, self.unit, self.better, self.definition])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def about(self) -> dict[str, Any]:
        """What summaries say of it."""
        names = ("name", "version", "definition", "definition_hash", "unit", "better")
        return {name: getattr(self, name) for name in names}

    def measure(self, clip: EvaluationClip) -> Score:
        """The value of one clip, or why there is none."""
        try:
            result = self.compute(clip)
        except VideoError as error:
            return Score(None, str(error))
        score = result if isinstance(result, Score) else Score(result)
        if score.value is not None and score.value != score.value:
            return Score(None, score.note or "not defined for this clip")
        return score


METRICS: dict[str, Metric] = {}
"""Every metric by name, in the order in which results list them."""


def metric(name: str, compute: Measure, definition: str, **about: Any) -> None:
    """Register a metric; line breaks in the definition do not count."""
    if name in METRICS:
        raise ValueError(f"there are two metrics with the name {name}")
    METRICS[name] = Metric(name, compute, " ".join(definition.split()), **about)


FACES = (
    "Landmarks are MediaPipe's, found frame by frame in the crop (with a grey border, enlarged "
    "three times), in the same way for generated and real frames; pixels are those of the "
    "128 x 96 crop."
)

LOST = Score(None, "fewer than half of the frames show a face")


def of_faces(name: str, compute: Measure, definition: str, **about: Any) -> None:
    """Register a metric that looks at landmarks."""
    metric(name, compute, f"{definition} {FACES}", tools=("landmarks",), **about)
