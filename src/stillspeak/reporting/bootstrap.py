"""Bootstrap intervals, the same at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000

Interval = tuple[float, float]


def percentile_intervals(
    groups: int,
    statistic: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]],
    *,
    tails: Interval = (0.025, 0.975),
    resamples: int = RESAMPLES,
) -> list[Interval] | None:
    """Percentile intervals when whole groups are drawn with replacement.

    Args:
        groups: how many there are.
        statistic: from drawn groups' numbers (resamples, groups) to one value or several for
            each draw: (resamples,) or (resamples, values).
        tails: the quantiles at both ends.
        resamples: number of draws.

    Returns:
        An interval for each value; None for fewer than two groups. Draws for which a value is not
        finite are left out.
    """
    if groups < 2:
        return None
    drawn = np.random.default_rng(0).integers(groups, size=(resamples, groups))
    values = statistic(drawn).reshape(resamples, -1)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    return [(float(low), float(high)) for low, high in np.quantile(values, tails, axis=0).T]
