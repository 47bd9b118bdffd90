"""Scores over groups of records are MultiRC's, and those of probabilities KLUE-RE's, by definitions written out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pretextlm.evaluation.scores.multirc import group_accuracy, group_f1
from pretextlm.evaluation.scores.ranking import auprc

LABEL = st.integers(0, 1)
RECORDS = st.lists(st.tuples(LABEL, LABEL, st.sampled_from(["1-1", "1-2", "2-1", "2-2"])), min_size=1, max_size=24).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)


@settings(max_examples=80, deadline=None)
@given(RECORDS)
def test_groups_score_as_multirc_scores_questions(records):
    answers, wanted, groups = records
    questions = {}
    for answer, right, group in zip(answers, wanted, groups, strict=True):
        questions.setdefault(group, []).append((answer, right))
    exact = [all(answer == right for answer, right in some) for some in questions.values()]
    found = group_accuracy(answers, wanted, groups)
    assert (found.value, found.n) == (pytest.approx(np.mean(exact)), len(questions))
    f1a = sklearn.f1_score(wanted, answers, labels=[1], average="micro", zero_division=0)
    assert group_f1(answers, wanted, groups, resamples=0).value == pytest.approx(f1a)
    assert group_f1(answers, wanted, groups, resamples=0).n == len(wanted)


@pytest.mark.slow
def test_the_error_of_a_group_f1_is_over_groups():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(120), 5)
    hard = rng.random(120)[group]  # answers to one question are alike
    wanted = (rng.random(600) < 0.4).astype(int)
    answers = np.where(rng.random(600) < hard, wanted, 1 - wanted)
    values = []
    for drawn in rng.integers(0, 120, (500, 120)):
        rows = (drawn[:, None] * 5 + np.arange(5)).ravel()
        values.append(sklearn.f1_score(wanted[rows], answers[rows]))
    found = group_f1(answers.tolist(), wanted.tolist(), group.tolist(), resamples=500)
    assert found.stderr == pytest.approx(np.std(values, ddof=1), rel=0.12)


def test_every_record_has_a_group():
    for score in (group_accuracy, group_f1):
        with pytest.raises(ValueError, match="1 predictions for 2 references"):
            score([0, 1], [0, 1], ["a"])


CHANCES = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9]), min_size=4, max_size=4)),
    min_size=1,
    max_size=20,
).map(lambda rows: (np.array([chances for _, chances in rows]), [label for label, _ in rows]))


@settings(max_examples=80, deadline=None)
@given(CHANCES)
def test_the_area_under_precision_and_recall_is_that_of_scikit_learn_with_ties(records):
    chances, wanted = records
    areas = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in set(wanted):
            precision, recall, _ = sklearn.precision_recall_curve(np.array(wanted) == number, chances[:, number])
            areas.append(sklearn.auc(recall, precision))
    assert auprc(chances, wanted, resamples=0).value == pytest.approx(np.mean(areas))


@pytest.mark.slow
def test_the_error_of_the_area_is_its_spread_over_resamples():
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 3, 300)
    chances = rng.random((300, 3)) + 0.4 * np.eye(3)[wanted]
    values = [
        auprc(chances[drawn], wanted[drawn].tolist(), resamples=0).value for drawn in rng.integers(0, 300, (300, 300))
    ]
    assert auprc(chances, wanted.tolist()).stderr == pytest.approx(np.std(values, ddof=1), rel=0.2)


def test_probabilities_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"2 references do not match probabilities of shape \(1, 2\)"):
        auprc([[0.5, 0.5]], [0, 1])
    with pytest.raises(ValueError, match="a reference is not one of the classes"):
        auprc([[0.5, 0.5]], [2])
