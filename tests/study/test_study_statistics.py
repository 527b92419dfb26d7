"""Every statistic against numbers worked out by hand or printed in a textbook."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from stillspeak.study import statistics as st


def test_clopper_pearson_at_the_ends_is_a_power() -> None:
    low, high = st.clopper_pearson(0, 10)
    assert (low, high) == (0.0, pytest.approx(1 - 0.025**0.1))  # 0.3085
    low, high = st.clopper_pearson(10, 10)
    assert (low, high) == (pytest.approx(0.025**0.1), 1.0)
    assert st.clopper_pearson(0, 0) == (0.0, 1.0)


def test_clopper_pearson_leaves_half_of_the_rest_on_either_side() -> None:
    low, high = st.clopper_pearson(8, 10)
    assert (low, high) == (pytest.approx(0.4439, abs=5e-5), pytest.approx(0.9748, abs=5e-5))
    at_least_8 = sum(math.comb(10, k) * low**k * (1 - low) ** (10 - k) for k in (8, 9, 10))
    at_most_8 = 1 - sum(math.comb(10, k) * high**k * (1 - high) ** (10 - k) for k in (9, 10))
    assert at_least_8 == pytest.approx(0.025)
    assert at_most_8 == pytest.approx(0.025)
    assert st.clopper_pearson(8, 10, 0.8)[0] > low


def test_a_share_of_more_than_all_is_refused() -> None:
    with pytest.raises(ValueError, match="11 of 10"):
        st.clopper_pearson(11, 10)


def test_binomial_test() -> None:
    assert st.binomial_test(8, 10) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert st.binomial_test(5, 10) == pytest.approx(1)
    assert st.binomial_test(0, 0) == 1


def test_d_prime_and_criterion_with_the_log_linear_correction() -> None:
    d_prime, criterion = st.detection(hits=8, fakes=10, false_alarms=3, reals=10)
    h, f = NormalDist().inv_cdf(8.5 / 11), NormalDist().inv_cdf(3.5 / 11)
    assert (h, f) == (pytest.approx(0.7479, abs=1e-4), pytest.approx(-0.4728, abs=1e-4))
    assert d_prime == pytest.approx(h - f)
    assert criterion == pytest.approx(-(h + f) / 2)
    # Nobody is infinitely good: 10 of 10 and 0 of 10 have a value too.
    best = 2 * NormalDist().inv_cdf(10.5 / 11)
    assert st.detection(10, 10, 0, 10) == (pytest.approx(best), pytest.approx(0, abs=1e-12))
    assert st.detection(5, 10, 5, 10) == (0, pytest.approx(0, abs=1e-12))


def test_bradley_terry_of_two_is_the_logarithm_of_the_odds() -> None:
    fit = st.bradley_terry([[0, 30], [10, 0]])
    assert fit.strengths[0] - fit.strengths[1] == pytest.approx(math.log(3))
    assert sum(fit.strengths) == pytest.approx(0)
    assert (fit.prior, fit.freedom) == (0, 0)
    assert math.isnan(fit.p)


def test_bradley_terry_of_three_on_one_scale() -> None:
    # Strengths 1 : 2 : 3, 60 comparisons a pair: 20 to 40, 15 to 45, 24 to 36.
    fit = st.bradley_terry([[0, 20, 15], [40, 0, 24], [45, 36, 0]])
    mean = math.log(6) / 3
    expected = [math.log(k) - mean for k in (1, 2, 3)]
    assert fit.strengths == pytest.approx(expected)
    assert fit.deviance == pytest.approx(0, abs=1e-9)
    assert (fit.freedom, fit.p) == (1, pytest.approx(1))


def test_bradley_terry_says_when_preferences_go_in_a_circle() -> None:
    fit = st.bradley_terry([[0, 8, 2], [2, 0, 8], [8, 2, 0]])
    assert fit.strengths == pytest.approx([0, 0, 0], abs=1e-9)
    assert fit.deviance == pytest.approx(6 * (8 * math.log(8 / 5) + 2 * math.log(2 / 5)))
    assert fit.p == pytest.approx(0.00067, abs=1e-5)


def test_bradley_terry_of_one_that_never_lost() -> None:
    fit = st.bradley_terry([[0, 10], [0, 0]])
    assert fit.prior == 0.5
    assert fit.strengths[0] - fit.strengths[1] == pytest.approx(math.log(10.5 / 0.5))


def test_bradley_terry_needs_comparisons() -> None:
    with pytest.raises(ValueError, match="never compared"):
        st.bradley_terry([[0, 5, 0], [5, 0, 0], [0, 0, 0]])


def test_bradley_terry_intervals_hold_the_fit() -> None:
    random = np.random.default_rng(0)
    tables = []
    for _ in range(20):
        table = np.zeros((3, 3))
        for i, j, p in ((0, 1, 2 / 3), (0, 2, 3 / 4), (1, 2, 3 / 5)):
            won = random.binomial(8, p)
            table[i, j] += won
            table[j, i] += 8 - won
        tables.append(table)
    fit = st.bradley_terry(sum(tables))

    def strengths(wins: st.Floats) -> tuple[float, ...]:
        return st.bradley_terry(wins).strengths

    found = st.bootstrap(tables, strengths, resamples=100)
    assert found is not None
    for strength, (low, high) in zip(fit.strengths, found, strict=True):
        assert low < strength < high
        assert 0.1 < high - low < 1
    assert found == st.bootstrap(tables, strengths, resamples=100)
    assert st.bootstrap(tables[:1], strengths) is None


def test_majority_of_the_others() -> None:
    answers = [
        ("ann", "x", "a"), ("ben", "x", "a"), ("cat", "x", "b"), ("dan", "x", "a"),
        ("ann", "y", "a"), ("ben", "y", "b"),  # each is the other's majority
        ("ann", "z", "b"), ("ben", "z", "a"), ("cat", "z", "a"),
    ]  # fmt: skip
    # x: for ann, ben and dan the others are 2:1 and 2:1 for a; for cat 3:0 for a.
    # z: for ann the others are 0:2 for a; for ben 1:1, nothing; for cat 1:1, nothing.
    assert st.majority_agreement(answers) == {
        "ann": (1, 3), "ben": (1, 2), "cat": (0, 1), "dan": (1, 1),
    }  # fmt: skip
    assert st.majority_agreement([("ann", "x", "a")]) == {"ann": (0, 0)}


def test_krippendorff_on_his_own_example() -> None:
    # Krippendorff 2011, part A: two observers, ten units, alpha = 0.095.
    meg, owen = "0100000010", "1110010000"
    units = [*enumerate(meg), *enumerate(owen)]
    assert st.krippendorff_alpha(units) == pytest.approx(1 - 19 * 4 / (14 * 6))
    assert st.krippendorff_alpha(units) == pytest.approx(0.095, abs=5e-4)


def test_krippendorff_of_numbers() -> None:
    def alpha(x: list[int], y: list[int], *, interval: bool = False) -> float | None:
        return st.krippendorff_alpha(
            [*(("x", value) for value in x), *(("y", value) for value in y)], interval=interval
        )

    assert alpha([1, 1], [3, 3], interval=True) == 1
    # Observed (0 + 2) / 4; expected over 1, 1, 1, 2: 6 of 12 ordered pairs, one apart.
    assert alpha([1, 1], [1, 2], interval=True) == pytest.approx(0)
    assert alpha([1], [2]) is None
    assert alpha([1, 1], [1, 1]) is None


def test_holm() -> None:
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert st.holm([0.9, 0.8]) == [1, 1]
    assert st.holm([]) == []


def test_student() -> None:
    low, high = st.t_interval([1, 2, 3]) or (0, 0)
    assert (low, high) == (
        pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4),
        pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4),
    )
    assert st.t_interval([1]) is None


def test_bootstrap_draws_people_not_answers() -> None:
    # Two people of opposite opinion: only 0, 0.5 and 1 can be drawn, however many answers.
    assert st.mean_interval([(30, 30), (0, 30)], 0.95) == (0, 1)
    assert st.mean_interval([(24, 30)] * 10, 0.95) == (0.8, 0.8)
    assert st.mean_interval([(5, 10)], 0.95) is None
    interval = st.mean_interval([(3, 1), (4, 1), (5, 1), (6, 1)], 0.95)
    assert interval is not None
    assert 3 <= interval[0] < 4.5 < interval[1] <= 6
    assert st.bootstrap([[1.0]], lambda sums: [0]) is None
    assert st.bootstrap([[1.0], [2.0]], lambda sums: [math.nan]) is None


def test_the_clustered_interval_covers_where_the_exact_one_is_too_narrow() -> None:
    """30 raters with their own leanings around 0.8, 30 answers each, many times over."""
    random = np.random.default_rng(1)
    clustered = exact = 0
    tries = 200
    for _ in range(tries):
        own = random.beta(0.8 * 9, 0.2 * 9, size=30)  # variance a tenth of 0.8 x 0.2
        k = random.binomial(30, own)
        interval = st.mean_interval([(x, 30) for x in k], 0.95)
        assert interval is not None
        clustered += interval[0] <= 0.8 <= interval[1]
        low, high = st.clopper_pearson(int(k.sum()), 900)
        exact += low <= 0.8 <= high
    assert clustered / tries > 0.88
    assert exact / tries < 0.8
