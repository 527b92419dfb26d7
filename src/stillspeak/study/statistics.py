"""The statistics of studies. Answers of one person are not independent: wherever a function takes
``groups``, each is one person's answers, and the bootstrap draws people with all their answers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.reporting.bootstrap import RESAMPLES, Interval, percentile_intervals

Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a binomial share (Clopper and Pearson 1934), by quantiles of the beta
    distribution; (0, 1) for no trials.
    """
    from scipy.stats import beta

    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def binomial_test(successes: int, n: int, chance: float = 0.5) -> float:
    """Two-sided exact p-value: outcomes no likelier than this one, added up; 1 for no trials."""
    from scipy.stats import binomtest

    return float(binomtest(successes, n, chance).pvalue) if n else 1.0


def bootstrap(
    groups: Sequence[npt.ArrayLike],
    statistic: Callable[[Floats], Sequence[float]],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> list[Interval] | None:
    """Percentile intervals when whole groups are drawn with replacement.

    Args:
        groups: what each group adds to the sums, all of one shape.
        statistic: one value or several, of the sums over the drawn groups.

    Returns:
        As :func:`percentile_intervals`.
    """
    table = np.array(groups, dtype=float)
    return percentile_intervals(
        len(table),
        lambda drawn: np.array([statistic(sums) for sums in table[drawn].sum(axis=1)]),
        tails=((1 - level) / 2, (1 + level) / 2),
        resamples=resamples,
    )


def mean_interval(groups: Sequence[tuple[float, int]], level: float) -> Interval | None:
    """As :func:`bootstrap`, of a mean or share, from (sum, count) of each group."""
    found = bootstrap(groups, lambda s: [s[0] / s[1] if s[1] else math.nan], level=level)
    return found[0] if found else None


def tally(
    rows: Iterable[tuple[Hashable, bool | int]], keys: Iterable[Hashable] = ()
) -> dict[Any, tuple[int, int]]:
    """(successes, n) by key, first the ``keys`` and then as they come."""
    counts = dict.fromkeys(keys, (0, 0))
    for key, success in rows:
        k, n = counts.get(key, (0, 0))
        counts[key] = k + success, n + 1
    return counts


def counted(name: str, tallied: Mapping[Any, tuple[int, int]]) -> list[dict[str, Any]]:
    """A tally as JSON values: each key under this name, with ``k`` and ``n``."""
    return [{name: key, "k": k, "n": n} for key, (k, n) in tallied.items() if n]


def share(
    groups: Iterable[tuple[int, int]], level: float, *, chance: float | None = 0.5
) -> dict[str, Any]:
    """A share with its exact and its clustered interval, from (successes, n) of each person.

    ``p``: of the test against ``chance``, where one is given.
    """
    groups = [group for group in groups if group[1]]
    k, n = sum(g[0] for g in groups), sum(g[1] for g in groups)
    result: dict[str, Any] = {
        "k": k,
        "n": n,
        "raters": len(groups),
        "share": k / n if n else None,
        "exact": clopper_pearson(k, n, level) if n else None,
        "clustered": mean_interval(groups, level),
    }
    if chance is not None:
        result["p"] = binomial_test(k, n, chance)
    return result


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's interval of a mean; None for fewer than two values."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return None
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return mean - half, mean + half


def detection(hits: int, fakes: int, false_alarms: int, reals: int) -> tuple[float, float]:
    """Sensitivity and bias of telling fake from real, with the log-linear correction of Hautus
    (1995): half an event is added to each count of events, one to each count of trials, always.
    Hits are fake videos called fake, false alarms real ones.

    Returns:
        d' = z(H) - z(F), 0: no better than chance; c = -(z(H) + z(F)) / 2, above 0: "real" is
        said more readily, below: "fake".
    """
    h = _NORMAL.inv_cdf((hits + 0.5) / (fakes + 1))
    f = _NORMAL.inv_cdf((false_alarms + 0.5) / (reals + 1))
    return h - f, -(h + f) / 2


@dataclass(frozen=True)
class BradleyTerry:
    """Strengths on a common scale: P(i beats j) = 1 / (1 + exp(s_j - s_i)).

    Attributes:
        strengths: natural logarithms that add up to 0.
        prior: wins added in both directions of every pair that was compared; 0 unless the
            maximum lies at infinity (Ford 1957: one group of systems never lost to the rest).
        deviance: 2 sum of O ln(O / E); ``freedom`` degrees; ``p``: how well the scale fits.
    """

    strengths: tuple[float, ...]
    prior: float
    deviance: float
    freedom: int
    p: float


def bradley_terry(wins: npt.ArrayLike, *, prior: float | None = None) -> BradleyTerry:
    """Maximum likelihood by the MM algorithm of Hunter (2004).

    Args:
        wins: (S, S); wins[i, j] is how often i was preferred to j.
        prior: wins added to both sides of each compared pair; by default 0, or 0.5 where the
            likelihood has no maximum.

    Raises:
        ValueError: a system was compared with none of the others.
    """
    from scipy.sparse.csgraph import connected_components
    from scipy.stats import chi2

    table = np.array(wins, dtype=float)
    size = len(table)
    met = (table + table.T) > 0
    np.fill_diagonal(met, False)
    if connected_components(met, directed=False)[0] > 1:
        raise ValueError("some systems were never compared with the rest, directly or not")
    if prior is None:
        strong = connected_components(table > 0, directed=True, connection="strong")[0] == 1
        prior = 0.0 if strong else 0.5
    used = table + prior * met
    games = used + used.T
    power = np.ones(size)
    for _ in range(10_000):
        before = power
        power = used.sum(axis=1) / (games / (power[:, None] + power)).sum(axis=1)
        power /= math.exp(float(np.log(power).mean()))
        if np.abs(np.log(power) - np.log(before)).max() < 1e-10:
            break
    strengths = np.log(power)
    expected = (table + table.T) * power[:, None] / (power[:, None] + power)
    some = table > 0
    deviance = 2 * float((table[some] * np.log(table[some] / expected[some])).sum())
    freedom = int(np.triu(met).sum()) - (size - 1)
    p = float(chi2.sf(max(0.0, deviance), freedom)) if freedom > 0 else math.nan
    return BradleyTerry(tuple(float(s) for s in strengths), prior, deviance, freedom, p)


def majority_agreement(
    answers: Sequence[tuple[str, Hashable, Hashable]],
) -> dict[str, tuple[int, int]]:
    """How often each rater answers as most of the others do, from (rater, what was judged, answer):
    (agreed, judged). Where there are no others, or as many on either side, nothing is counted.
    """
    votes: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    for _, thing, answer in answers:
        votes[thing][answer] += 1
    result = {rater: (0, 0) for rater, _, _ in answers}
    for rater, thing, answer in answers:
        others = votes[thing] - Counter([answer])
        first, *second = [count for _, count in others.most_common(2)] or [0]
        if first and second != [first]:
            k, n = result[rater]
            result[rater] = k + (others[answer] == first), n + 1
    return result


def krippendorff_alpha(
    answers: Iterable[tuple[Hashable, Any]], *, interval: bool = False
) -> float | None:
    """Agreement beyond chance over things judged by different numbers of raters (Krippendorff
    2011): 1 - observed / expected disagreement; 1: perfect, 0: as by chance. None if nothing was
    judged twice or all answers are the same.

    Args:
        answers: things that were judged, each with one answer.
        interval: squared differences of numbers count, instead of equal or not.
    """
    things: dict[Hashable, list[Any]] = defaultdict(list)
    for thing, answer in answers:
        things[thing].append(answer)
    units = [values for values in things.values() if len(values) > 1]
    pooled = [value for values in units for value in values]
    n = len(pooled)
    if n < 2:
        return None

    def disagreement(values: Sequence[Any]) -> float:
        if interval:
            x = np.array(values, dtype=float)
            return float(2 * (len(x) * (x**2).sum() - x.sum() ** 2))
        return float(len(values) ** 2 - sum(c * c for c in Counter(values).values()))

    observed = sum(disagreement(v) / (len(v) - 1) for v in units) / n
    expected = disagreement(pooled) / (n * (n - 1))
    return None if expected == 0 else 1 - observed / expected


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.minimum(1, np.sort(p_values) * np.arange(len(p_values), 0, -1))
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected.tolist()
