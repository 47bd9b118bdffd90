"""Answers score as the published rules of SQuAD, KorQuAD and KLUE-MRC say, which stand here once more, slowly."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretextlm.evaluation.scores.question_answering import (
    klue_exact_match,
    klue_rouge_w,
    korquad_exact_match,
    korquad_f1,
    normalize_korquad,
    normalize_squad,
    squad_exact_match,
    squad_f1,
)

WORDS = [
    "a",
    "An",
    "THE",
    "the",
    "theatre",
    "Paris",
    "paris!",
    "U.S.",
    "2-1",
    "'s",
    "1989년",
    "(서울)",
    "《책》",
    "‘말’",
    "",
    " ",
]
TEXT = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
QUESTIONS = st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=3)), min_size=1, max_size=8).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)


def slow_squad(text):
    """Lower case; drop punctuation; drop articles that are words; one space between words."""
    kept = [letter for letter in text.lower() if letter not in string.punctuation]
    return [word for word in "".join(kept).split() if word not in ("a", "an", "the")]


def slow_korquad(text):
    """Quotation marks and brackets apart; lower case; drop other punctuation."""
    for mark in "'\"《》<>〈〉()‘’":
        text = " ".join(text.split(mark))
    return "".join(letter for letter in text.lower() if letter not in string.punctuation).split()


def slow_f1(one, other):
    """Precision and recall over matched tokens, each matched once; of no-answers, whether both are."""
    if not one or not other:
        return float(not one and not other)
    left, same = list(other), 0
    for token in one:
        if token in left:
            left.remove(token)
            same += 1
    precision, recall = same / len(one), same / len(other)
    return 2 * precision * recall / (precision + recall) if same else 0.0


@settings(max_examples=150, deadline=None)
@given(QUESTIONS)
def test_squad_scores_are_those_of_the_published_rule(questions):
    answers, wanted = questions
    right = [[one for one in map(slow_squad, some) if one] or [[]] for some in wanted]
    exact = [max(slow_squad(answer) == one for one in some) for answer, some in zip(answers, right, strict=True)]
    shared = [max(slow_f1(slow_squad(a), one) for one in some) for a, some in zip(answers, right, strict=True)]
    assert squad_exact_match(answers, wanted).value == pytest.approx(sum(exact) / len(exact))
    assert squad_f1(answers, wanted).value == pytest.approx(sum(shared) / len(shared))


@settings(max_examples=150, deadline=None)
@given(QUESTIONS)
def test_korquad_scores_are_those_of_the_published_rule(questions):
    answers, wanted = questions
    right = [[one for one in map(slow_korquad, some) if one] or [[]] for some in wanted]
    exact = [max(slow_korquad(answer) == one for one in some) for answer, some in zip(answers, right, strict=True)]
    shared = [
        max(slow_f1("".join(slow_korquad(a)), "".join(one)) for one in some)
        for a, some in zip(answers, right, strict=True)
    ]
    assert korquad_exact_match(answers, wanted).value == pytest.approx(sum(exact) / len(exact))
    assert korquad_f1(answers, wanted).value == pytest.approx(sum(shared) / len(shared))


def slow_klue(text):
    """Lower case; drop ASCII punctuation; one space between words."""
    return " ".join("".join(letter for letter in text.lower() if letter not in string.punctuation).split())


def slow_run(one, other):
    """Precision and recall of the longest run of characters of `one` that `other` has, too; of nothing, nothing."""
    if not other:
        return float(not one)
    runs = [one[a:b] for a in range(len(one)) for b in range(a + 1, len(one) + 1)]
    longest = max((len(run) for run in runs if run in other), default=0)
    return 2 / (len(one) / longest + len(other) / longest) if longest else 0.0


@settings(max_examples=150, deadline=None)
@given(QUESTIONS)
def test_klue_scores_are_those_of_the_published_rule(questions):
    answers, wanted = questions
    right = [[slow_klue(one) for one in some] or [""] for some in wanted]
    said = [slow_klue(answer) for answer in answers]
    exact = [max(one == answer for one in some) for answer, some in zip(said, right, strict=True)]
    shared = [max(slow_run(answer, one) for one in some) for answer, some in zip(said, right, strict=True)]
    assert klue_exact_match(answers, wanted).value == pytest.approx(sum(exact) / len(exact))
    assert klue_rouge_w(answers, wanted).value == pytest.approx(sum(shared) / len(shared))


def test_klue_counts_the_longest_run_that_both_have():
    assert klue_rouge_w(["1989년 2월"], [["1989년 2월 15일"]]).value == pytest.approx(16 / 20)
    assert klue_rouge_w(["ab cd"], [["cd ab", "xb c"]]).value == pytest.approx(2 * 3 / 9)


@pytest.mark.parametrize(
    ("text", "squad", "korquad"),
    [
        ("The  Eiffel-Tower!", "eiffeltower", "the eiffeltower"),
        ("an apple, a pear", "apple pear", "an apple a pear"),
        ("'임종석'(1966)", "임종석1966", "임종석 1966"),
        ("《삼국지》 연의", "《삼국지》 연의", "삼국지 연의"),
        ("theatre", "theatre", "theatre"),
        ("“the” end", "“ ” end", "“the” end"),
    ],
)
def test_what_of_an_answer_is_compared(text, squad, korquad):
    assert (normalize_squad(text), normalize_korquad(text)) == (squad, korquad)


def test_the_best_right_answer_counts_and_f1_gives_part_of_it():
    wanted = [["Denver Broncos", "The Broncos"], ["1989년 2월 15일"]]
    assert squad_exact_match(["the broncos", "1989년"], wanted).value == 0.5
    assert squad_f1(["the broncos", "1989년"], wanted).value == pytest.approx((1 + 2 * 1 * (1 / 3) / (4 / 3)) / 2)
    assert korquad_f1(["broncos", "1989년 2월"], wanted).value == pytest.approx((14 / 17 + 14 / 17) / 2)


def test_a_question_without_an_answer_is_answered_by_nothing():
    for score in (squad_exact_match, squad_f1, korquad_exact_match, korquad_f1, klue_exact_match, klue_rouge_w):
        assert score(["", "something"], [[], []]).value == 0.5
        assert score(["", ""], [["something"], [""]]).value == 0.5


def test_answers_have_a_standard_error_and_must_be_as_many_as_questions():
    metric = squad_exact_match(["a b", "c", "d", "e"], [["b"], ["c"], ["x"], ["y"]])
    assert (metric.value, metric.n, metric.stderr) == (0.5, 4, pytest.approx((1 / 3) ** 0.5 / 2))
    for score in (squad_exact_match, squad_f1, korquad_exact_match, korquad_f1):
        with pytest.raises(ValueError, match="0 predictions for 0"):
            score([], [])
        with pytest.raises(ValueError, match="1 predictions for 2"):
            score(["a"], [["a"], ["b"]])
        with pytest.raises(ValueError, match="a list for each question"):
            score(["a"], ["a"])
