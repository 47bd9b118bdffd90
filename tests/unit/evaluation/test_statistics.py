"""Statistics against scipy, closed forms and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pretextlm.evaluation.statistics import (
    Interval,
    bootstrap,
    mcnemar,
    paired_bootstrap,
    standard_error_interval,
    summarise,
    welch,
)


def test_the_interval_over_seeds_is_that_of_scipy() -> None:
    values = [0.31, 0.35, 0.28, 0.33]
    summary = summarise(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert summary.interval is not None
    assert (summary.interval.low, summary.interval.high) == pytest.approx((low, high))
    assert summary.deviation == pytest.approx(np.std(values, ddof=1))


def test_the_interval_over_two_seeds_uses_twelve_point_seven_and_not_two_standard_errors() -> None:
    assert summarise([0.0, 2.0]).half_width == pytest.approx(12.7062, rel=1e-4)


def test_one_value_has_a_mean_but_no_spread() -> None:
    summary = summarise([0.5])
    assert (summary.mean, summary.deviation, summary.half_width, summary.interval) == (0.5, None, None, None)


def test_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one number"):
        summarise([])


def test_the_interval_over_seeds_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [summarise(list(rng.normal(3, 2, size=3))).interval for _ in range(2000)]
    covered = np.mean([i is not None and i.low <= 3 <= i.high for i in intervals])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_welch_is_that_of_scipy() -> None:
    a, b = [0.4, 0.45, 0.41], [0.3, 0.38, 0.29, 0.36]
    difference = welch(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert difference.p_value == pytest.approx(expected.pvalue)
    assert difference.interval is not None
    assert (difference.interval.low, difference.interval.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_welch_claims_nothing_without_spread(a: list[float], b: list[float]) -> None:
    difference = welch(a, b)
    assert difference.interval is None
    assert difference.p_value is None
    assert difference.value < 0


def test_the_bootstrap_of_three_values_has_the_quantiles_of_all_27_samples() -> None:
    values = np.array([0.0, 1.0, 5.0])
    every = [np.mean(s) for s in itertools.product(values, repeat=3)]
    interval = bootstrap(values, confidence=0.8, resamples=200_000)
    expected = np.quantile(every, [0.1, 0.9], method="inverted_cdf")
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))


def test_the_bootstrap_of_many_values_approaches_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=4000)
    expected = standard_error_interval(values.mean(), values.std() / math.sqrt(len(values)))
    interval = bootstrap(values, resamples=4000)
    assert interval.low == pytest.approx(expected.low, abs=2e-3)
    assert interval.high == pytest.approx(expected.high, abs=2e-3)


def test_the_bootstrap_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(50.0)
    whole = bootstrap(values, resamples=500, seed=3)
    monkeypatch.setattr("pretextlm.evaluation.statistics.INDICES_AT_ONCE", 1000)
    assert bootstrap(values, resamples=500, seed=3) == whole


def test_pairing_sees_a_difference_that_the_spread_of_the_examples_hides() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 5, size=300)
    a, b = hard + 0.2 + rng.normal(0, 0.1, 300), hard
    paired = paired_bootstrap(a, b, resamples=2000)
    assert paired.interval is not None
    assert paired.interval.low > 0.15
    assert bootstrap(a, resamples=2000).overlaps(bootstrap(b, resamples=2000))


def test_mcnemar_equals_the_sum_of_binomial_probabilities() -> None:
    a = [1] * 9 + [0] * 3 + [1] * 20 + [0] * 8
    b = [0] * 9 + [1] * 3 + [1] * 20 + [0] * 8
    tail = sum(math.comb(12, k) for k in range(9, 13)) / 2**12
    difference = mcnemar(a, b)
    assert difference.p_value == pytest.approx(2 * tail)
    assert difference.value == pytest.approx(6 / 40)


def test_mcnemar_of_equal_answers_finds_nothing() -> None:
    assert mcnemar([1, 0, 1], [1, 0, 1]).p_value == 1.0


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same examples: 2 and 3"):
        mcnemar([1, 0], [1, 0, 1])


def test_intervals_that_touch_overlap() -> None:
    assert Interval(0, 1).overlaps(Interval(1, 2))
    assert not Interval(0, 1).overlaps(Interval(1.01, 2))
