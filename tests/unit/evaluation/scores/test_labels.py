"""Scores of labels are scikit-learn's on any input, and their errors are those of the bootstrap."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pretextlm.errors import UserError
from pretextlm.evaluation.scores.bootstrap import bootstrap_error
from pretextlm.evaluation.scores.classification import accuracy, f1, f1_macro, f1_micro, f1_weighted, matthews

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def labelled(classes):
    return st.lists(st.tuples(st.sampled_from(classes), st.sampled_from(classes)), min_size=1, max_size=40).map(
        lambda rows: tuple(map(list, zip(*rows, strict=True)))
    )


EITHER = st.one_of(labelled([0, 1]), labelled([0, 1, 2, 7]), labelled(["no", "yes", "아니오"]), labelled([True, False]))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(EITHER)
def test_scores_of_labels_are_those_of_scikit_learn(sides):
    answers, wanted = sides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert accuracy(answers, wanted).value == pytest.approx(sklearn.accuracy_score(wanted, answers), **CLOSE)
        assert matthews(answers, wanted, resamples=0).value == pytest.approx(
            sklearn.matthews_corrcoef(wanted, answers), **CLOSE
        )
        for average, score in (("micro", f1_micro), ("macro", f1_macro), ("weighted", f1_weighted)):
            expected = sklearn.f1_score(wanted, answers, average=average, zero_division=0)
            assert score(answers, wanted, resamples=0).value == pytest.approx(expected, **CLOSE)
        classes = sorted({*answers, *wanted})
        expected = sklearn.f1_score(wanted, answers, average=None, labels=classes, zero_division=0)
        found = [f1(answers, wanted, label, resamples=0) for label in classes]
        assert [metric.value for metric in found] == pytest.approx(expected.tolist(), **CLOSE)


@settings(max_examples=40, deadline=None)
@given(labelled([0, 1, 2, 3]), st.sets(st.integers(0, 5), min_size=1))
def test_averages_over_named_classes_are_those_of_scikit_learn(sides, classes):
    answers, wanted = sides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average, score in (("micro", f1_micro), ("macro", f1_macro), ("weighted", f1_weighted)):
            expected = sklearn.f1_score(wanted, answers, average=average, labels=sorted(classes), zero_division=0)
            assert score(answers, wanted, sorted(classes), resamples=0).value == pytest.approx(expected, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.one_of(labelled([0, 1]), labelled([False, True]), labelled(["0", "1"])))
def test_f1_is_of_the_label_1(sides):
    answers, wanted = sides
    positive = "1" if isinstance(wanted[0], str) else 1
    expected = sklearn.f1_score(wanted, answers, labels=[positive], average="micro", zero_division=0)
    assert f1(answers, wanted, resamples=0).value == pytest.approx(expected, **CLOSE)


def test_f1_of_named_labels_is_of_the_one_named():
    answers, wanted = ["yes", "yes", "no"], ["yes", "no", "no"]
    assert f1(answers, wanted, "yes").value == pytest.approx(2 / 3)
    with pytest.raises(UserError, match=r"the labels are no, yes\.\nUse f1_macro"):
        f1(answers, wanted)


@pytest.mark.slow
def test_numpy_arrays_are_labels_too():
    answers, wanted = np.array([0, 1, 1]), np.array([0, 1, 0])
    assert accuracy(answers, wanted).value == pytest.approx(2 / 3)
    assert f1(answers, wanted).value == pytest.approx(2 / 3)
    assert f1_macro(answers, wanted) == f1_macro(answers.tolist(), wanted.tolist())


@pytest.mark.slow
def test_a_class_never_answered_and_one_never_wanted_count_nothing():
    found = [f1([0, 0, 2], [0, 1, 0], label) for label in (0, 1, 2, 3)]
    assert [metric.value for metric in found] == [0.5, 0.0, 0.0, 0.0]
    assert found[3].stderr is None
    assert f1_macro([0, 0, 2], [0, 1, 0], [0, 1, 2, 3]).value == 0.125
    assert f1_macro([0, 0, 2], [0, 1, 0]).value == pytest.approx(0.5 / 3)


def test_one_class_alone_has_no_matthews_correlation_and_scores_nothing():
    for answers, wanted in (([1, 1, 1], [0, 1, 0]), ([0, 1, 0], [1, 1, 1]), ([1], [1])):
        metric = matthews(answers, wanted)
        assert (metric.value, metric.n, metric.stderr) == (0.0, len(wanted), None)


@pytest.mark.parametrize("score", [accuracy, f1_micro, f1_macro, f1_weighted, matthews])
def test_answers_that_do_not_fit_what_is_wanted_are_refused(score):
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        score([0], [0, 1])
    with pytest.raises(ValueError, match="0 predictions for 0 references"):
        score([], [])
    with pytest.raises(ValueError, match="integer and text labels cannot be compared"):
        score(["0", "1"], [0, 1])


def many(seed=0, n=400):
    rng = np.random.default_rng(seed)
    wanted = rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    return np.where(rng.random(n) < 0.6, wanted, rng.integers(0, 4, n)).tolist(), wanted.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("score", [accuracy, f1_micro, f1_macro, f1_weighted, matthews])
def test_standard_errors_are_the_spread_of_the_score_over_resamples(score):
    answers, wanted = (np.array(side) for side in many())
    rng = np.random.default_rng(1)
    values = []
    for _ in range(600):
        drawn = rng.integers(0, len(wanted), len(wanted))
        one, other = answers[drawn].tolist(), wanted[drawn].tolist()
        values.append(score(one, other, **({} if score is accuracy else {"resamples": 0})).value)
    metric = score(answers.tolist(), wanted.tolist(), **({} if score is accuracy else {"resamples": 600}))
    assert metric.stderr == pytest.approx(np.std(values, ddof=1), rel=0.12)
    assert metric.n == 400


@pytest.mark.slow
def test_a_seed_makes_the_bootstrap_repeatable():
    answers, wanted = many()
    assert matthews(answers, wanted) == matthews(answers, wanted)
    assert matthews(answers, wanted, seed=1) != matthews(answers, wanted)
    values = np.random.default_rng(0).normal(size=300)

    def mean(rows):
        return float(values[rows].mean())

    each = np.arange(300)

    assert bootstrap_error(mean, each, 300, seed=3) == bootstrap_error(mean, each, 300, seed=3)
    assert bootstrap_error(mean, each, 300, resamples=4000) == pytest.approx(values.std() / 300**0.5, rel=0.05)
    assert bootstrap_error(mean, each[:1], 1) is None
    assert bootstrap_error(lambda rows: math.nan, each, 300) is None
    tens = each // 10
    of_means = bootstrap_error(lambda rows: float(tens[rows].mean()), tens, 30, resamples=4000)
    assert of_means == pytest.approx(np.arange(30).std() / 30**0.5, rel=0.05)
