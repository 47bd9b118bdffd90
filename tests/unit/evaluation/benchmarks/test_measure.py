"""Metrics from scores: counted by hand, and macro F1 as scikit-learn has it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pretextlm.evaluation.benchmarks.definition import find
from pretextlm.evaluation.benchmarks.measure import by_group, measure, outcome, share_of_ties
from pretextlm.evaluation.benchmarks.request_scorer import Score
from pretextlm.evaluation.benchmarks.wording import Question
from pretextlm.metric import arrow, distance_from_best


def asked(sizes: tuple[int, ...], answer: int, group: str = "") -> Question:
    texts = tuple("x" * size for size in sizes)
    return Question(texts, texts, sizes, answer, group)


def scores(*logs: float, greedy: bool = False) -> list[Score]:
    return [Score(log, 1, greedy) for log in logs]


def test_accuracy_takes_the_likeliest_choice_and_by_length_the_likeliest_per_character():
    benchmark = find("arc_easy")
    outcomes = [
        outcome(benchmark, asked((2, 10), 0), scores(-3.0, -10.0)),  # likeliest right, per character wrong
        outcome(benchmark, asked((2, 10), 1), scores(-3.0, -10.0)),  # the other way round
        outcome(benchmark, asked((2, 2), 1), scores(-3.0, -1.0)),  # right both ways
        outcome(benchmark, asked((2, 2), 1), scores(-1.0, -1.0)),  # of two equal ones, half
    ]
    found = measure(benchmark, outcomes)
    assert (found["accuracy"].value, found["accuracy"].n) == (0.625, 4)
    assert found["accuracy"].stderr == pytest.approx(np.std([1, 0, 1, 0.5], ddof=1) / 2)
    assert found["accuracy_by_length"].value == 0.625
    assert share_of_ties(outcomes) == 0.25


@pytest.mark.parametrize(
    ("name", "measured"), [("blimp", "accuracy"), ("arc_easy", "accuracy"), ("crows_pairs", "stereotyped")]
)
def test_a_scorer_of_one_score_for_all_is_right_by_chance(name, measured):
    benchmark = find(name)
    outcomes = [outcome(benchmark, asked((2,) * k, 0), scores(*[-1.0] * k)) for k in (2, 2, 4, 5)]
    assert measure(benchmark, outcomes)[measured].value == pytest.approx((1 / 2 + 1 / 2 + 1 / 4 + 1 / 5) / 4)
    assert share_of_ties(outcomes) == 1.0


def test_a_tie_among_true_and_false_statements_counts_by_the_share_of_true_ones():
    question = Question(("",) * 4, ("a", "b", "c", "d"), (1,) * 4, 0, "", (True, False, True, False))
    assert outcome(find("truthfulqa_mc2"), question, scores(-1, -1, -1, -9)).right == pytest.approx(2 / 3)


def test_perplexity_is_that_of_the_words_and_accuracy_what_would_have_been_written():
    benchmark = find("lambada")
    logs = [-1.0, -2.0, -4.5]
    outcomes = [outcome(benchmark, asked((4,), 0), scores(log, greedy=nth == 0)) for nth, log in enumerate(logs)]
    found = measure(benchmark, outcomes)
    assert found["accuracy"].value == pytest.approx(1 / 3)
    assert found["perplexity"].value == pytest.approx(math.exp(2.5))
    assert found["perplexity"].stderr == pytest.approx(math.exp(2.5) * np.std(logs, ddof=1) / math.sqrt(3))


def test_bias_is_the_share_of_pairs_whose_first_sentence_is_preferred():
    benchmark = find("crows_pairs")
    outcomes = [outcome(benchmark, asked((3, 3), 0, g), scores(*w)) for g, w in (("a", (-1, -2)), ("b", (-2, -1)))]
    found = measure(benchmark, outcomes)["stereotyped"]
    assert (found.value, found.better, arrow(found.better)) == (0.5, 0.5, "→ 0.5")
    assert {name: some["stereotyped"].value for name, some in by_group(benchmark, outcomes).items()} == {"a": 1, "b": 0}


def test_truths_are_measured_by_their_share_of_the_probability():
    benchmark = find("truthfulqa_mc2")
    truths = Question(("",) * 3, ("a", "b", "c"), (1, 1, 1), 0, "", (True, False, True))
    one = outcome(benchmark, truths, scores(math.log(0.1), math.log(0.3), math.log(0.2)))
    assert one.truth == pytest.approx(0.3 / 0.6)
    assert not one.right
    assert measure(benchmark, [one])["probability_of_true"].value == pytest.approx(0.5)
    far = outcome(benchmark, truths, scores(-2000.0, -2001.0, -2000.0))
    assert far.truth == pytest.approx(2 / (2 + math.exp(-1)))


def test_one_group_alone_is_not_told_apart():
    benchmark = find("blimp")
    assert by_group(benchmark, [outcome(benchmark, asked((3, 3), 0, "x"), scores(-1, -2))]) == {}


@pytest.mark.parametrize("choices", [2, 4])
def test_macro_f1_is_scikit_learns(choices):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(choices)
    answers, logs = rng.integers(0, choices - (choices > 2), 60), rng.normal(size=(60, choices))
    benchmark = find("kobest_hellaswag")
    outcomes = [
        outcome(benchmark, asked((3,) * choices, int(answer)), scores(*row))
        for answer, row in zip(answers, logs, strict=True)
    ]
    found = measure(benchmark, outcomes)["macro_f1"]
    assert found.value == pytest.approx(sklearn.f1_score(answers, logs.argmax(axis=1), average="macro"))
    assert 0.01 < found.stderr < 0.15


def test_values_are_ranked_by_their_direction_or_by_their_distance_from_the_best():
    values = [0.2, 0.4, 0.55, 0.9]
    ranked = {"lower": values, "higher": values[::-1], 0.5: [0.55, 0.4, 0.2, 0.9]}
    for better, order in ranked.items():
        distances = [distance_from_best(value, better) for value in order]
        assert distances == sorted(distances)
    assert [arrow(better) for better in ("lower", "higher", None, 0.5)] == ["↓", "↑", "", "→ 0.5"]
