"""The bootstrap: whole groups are resampled, undefined resamples are left out, and each seed gives one result."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pretextlm.evaluation.scores.bootstrap import bootstrap_error, measure
from pretextlm.evaluation.scores.classification import f1_macro, matthews
from pretextlm.evaluation.scores.span_f1 import span_f1


def test_the_error_of_a_mean_is_that_of_the_formula():
    values = np.random.default_rng(0).normal(size=400)
    error = bootstrap_error(lambda rows: float(values[rows].mean()), np.arange(400), 400, resamples=2000)
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(400), rel=0.05)


def test_examples_of_a_group_are_resampled_together():
    groups = np.array([0, 0, 1, 2, 2, 2])

    def score(rows):
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[1]
        assert counts[3] == counts[4] == counts[5]
        return float(counts[[0, 2, 3]].sum())

    assert bootstrap_error(score, groups, 3) == 0.0


def test_a_seed_gives_one_result_and_another_seed_another():
    values = np.arange(50.0)
    errors = [
        bootstrap_error(lambda rows: float(np.median(values[rows])), np.arange(50), 50, seed=n) for n in (1, 1, 2)
    ]
    assert errors[0] == errors[1] != errors[2]


def test_there_is_no_error_of_one_group_or_where_most_resamples_are_undefined():
    def rarely_defined(rows):
        return 1.0 if np.array_equal(rows, np.arange(4)) else math.nan

    assert bootstrap_error(lambda rows: float(rows.sum()), np.zeros(3, np.int64), 1) is None
    assert bootstrap_error(rarely_defined, np.arange(4), 4) is None
    assert measure(rarely_defined, 4, "").value == 1.0
    assert measure(lambda _: math.nan, 4, "").plain() == {
        **{"value": 0.0, "n": 4, "stderr": None},
        **{"unit": "", "better": "higher"},
    }
    assert measure(lambda rows: float(len(rows)), 4, "", resamples=0).stderr is None


def test_scores_of_a_single_example_have_no_error():
    assert f1_macro(["a"], ["a"]).plain()["stderr"] is None
    assert f1_macro(["a"], ["b"]).value == 0.0
    assert matthews([1], [1]).stderr is None
    one = span_f1([["B-X"]], [["B-X"]])
    assert (one.value, one.n, one.stderr) == (1.0, 1, None)
