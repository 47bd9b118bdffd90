"""Scores of numbers are scipy's on any input, ties and scales included."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from pretextlm.evaluation.scores.classification import f1_at_3
from pretextlm.evaluation.scores.regression import mse, pearson, spearman

NUMBERS = st.one_of(st.integers(0, 5).map(float), st.floats(-1e3, 1e3).map(lambda value: round(value, 3)))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=40).map(lambda rows: np.array(rows).T)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_correlations_are_those_of_scipy_with_ties(pair):
    answers, wanted = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [stats.pearsonr(answers, wanted)[0], stats.spearmanr(answers, wanted)[0]]
    found = [score(answers, wanted, resamples=0).value for score in (pearson, spearman)]
    assert found == pytest.approx(np.nan_to_num(expected).tolist(), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(PAIRS)
def test_squared_error_is_that_of_scikit_learn(pair):
    assert mse(*pair).value == pytest.approx(sklearn.mean_squared_error(pair[1], pair[0]), rel=1e-12)
    assert mse(*pair).better == "lower"


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_f1_at_3_is_that_of_numbers_cut_at_three(pair):
    found, meant = (side >= 3 for side in pair)
    expected = sklearn.f1_score(meant, found, zero_division=0)
    assert f1_at_3(*pair, resamples=0).value == pytest.approx(expected)


@pytest.mark.parametrize("score", [pearson, spearman])
def test_a_constant_correlates_with_nothing_and_is_never_not_a_number(score):
    for answers, wanted in (([0.1] * 3, [1, 2, 3]), ([1, 2, 3], [0.1] * 3), ([5], [5])):
        metric = score(answers, wanted)
        assert (metric.value, metric.n, metric.stderr) == (0.0, len(wanted), None)


@pytest.mark.parametrize("score", [pearson, spearman])
def test_scale_and_origin_change_no_correlation(score):
    rng = np.random.default_rng(0)
    answers, wanted = rng.normal(size=50), rng.normal(size=50)
    expected = score(answers, wanted).value
    for scale, origin in ((1e-200, 0.0), (1e200, 0.0), (1.0, 1e6)):
        assert score(answers * scale + origin, wanted).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("score", [pearson, spearman])
def test_standard_errors_are_the_spread_of_the_score_over_resamples(score):
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 6, 200).astype(float)
    answers = np.round(wanted + rng.normal(size=200) * 2)
    function = {pearson: stats.pearsonr, spearman: stats.spearmanr}[score]
    drawn = rng.integers(0, 200, (1000, 200))
    expected = np.std([function(answers[one], wanted[one])[0] for one in drawn], ddof=1)
    assert score(answers, wanted, resamples=1000).stderr == pytest.approx(expected, rel=0.12)
    assert score(answers, wanted) == score(answers, wanted)
    assert score(answers, wanted, seed=1).stderr != score(answers, wanted).stderr


@pytest.mark.parametrize("score", [pearson, spearman, mse, f1_at_3])
@pytest.mark.parametrize("sides", [([1.0], [1.0, 2.0]), ([], []), ([float("nan"), 1.0], [1.0, 2.0])])
def test_numbers_that_do_not_fit_are_refused(score, sides):
    with pytest.raises(ValueError, match=r"of one length|infinite or NaN"):
        score(*sides)
