"""Notices a run that diverges."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping

from stillspeak.training.config import WatchConfig


class DivergenceMonitor:
    """Averages over the last steps, and says what is wrong with them."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config
        self._seen: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=config.steps))

    def trouble(self, values: Mapping[str, float]) -> str | None:
        """Take in a step's values, and say in words what is wrong, if anything is.

        Looked at are each discriminator's ``NAME_accuracy`` in [0, 1], ``gradient_norm`` and
        ``NAME_gradient_norm``, and ``variance`` relative to real frames.
        """
        for name, value in values.items():
            if math.isfinite(value):
                self._seen[name].append(value)
        for name, seen in self._seen.items():
            if len(seen) < self._config.steps or name not in values:
                continue
            wrong = self._judge(name, sum(seen) / len(seen))
            if wrong:
                return f"{wrong} on average over {len(seen)} steps"
        return None

    def _judge(self, name: str, mean: float) -> str | None:
        config = self._config
        if name.endswith("_accuracy") and config.accuracy and mean > config.accuracy:
            who = name.removesuffix("_accuracy")
            return (
                f"the {who} discriminator is right {mean:.1%} of the time, and the generator "
                f"cannot follow (watch.accuracy {config.accuracy:g}); lower "
                f"adversarial.{who}_learning_rate or add adversarial.r1;"
            )
        if name.endswith("gradient_norm") and config.gradient and mean > config.gradient:
            return (
                f"{name} is {mean:.3g} (watch.gradient {config.gradient:g}); lower the learning "
                "rate or the weight of the term that grows;"
            )
        if name == "variance" and config.variance and mean < config.variance:
            return (
                f"generated frames vary {mean:.3f} times as much as real ones "
                f"(watch.variance {config.variance:g}): the generator has collapsed; lower the "
                "adversarial weights;"
            )
        return None
