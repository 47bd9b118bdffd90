"""Scores of written texts are sacrebleu's, and the table of all scores says what each takes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretextlm.errors import UserError
from pretextlm.evaluation.scores.generation import bleu, chrf, exact_match
from pretextlm.evaluation.scores.table import SCORES, score_named
from pretextlm.metric import Metric

WORDS = ["the", "cat", "sat", "on", "mat", ".", "고양이가", "앉았다", "ein", "Mann,", ""]
TEXT = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
TEXTS = st.lists(st.tuples(TEXT, st.one_of(TEXT, st.lists(TEXT, min_size=1, max_size=3))), min_size=1, max_size=8).map(
    lambda rows: tuple(map(list, zip(*rows, strict=True)))
)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_bleu_and_chrf_are_those_of_sacrebleu(texts):
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    answers, wanted = texts
    versions = [[one] if isinstance(one, str) else one for one in wanted]
    references = [[one[n] if n < len(one) else None for one in versions] for n in range(max(map(len, versions)))]
    assert bleu(answers, wanted, resamples=0).value == pytest.approx(
        sacrebleu.corpus_bleu(answers, references, force=True).score
    )
    assert chrf(answers, wanted, resamples=0).value == pytest.approx(sacrebleu.corpus_chrf(answers, references).score)


def test_the_kind_of_words_and_chrf_plus_plus_can_be_chosen():
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    answers, wanted = ["고양이가 앉았다 그리고 잔다"], ["고양이는 앉았다 그리고 잔다"]
    expected = sacrebleu.corpus_bleu(answers, [wanted], tokenize="char").score
    assert bleu(answers, wanted, tokenize="char").value == pytest.approx(expected)
    expected = sacrebleu.corpus_chrf(answers, [wanted], word_order=2).score
    assert chrf(answers, wanted, word_order=2).value == pytest.approx(expected)


@pytest.mark.slow
def test_the_error_of_bleu_is_its_spread_over_resampled_texts():
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    rng = np.random.default_rng(0)
    wanted = [" ".join(rng.choice(WORDS[:6], 12)) for _ in range(60)]
    answers = [" ".join(w if rng.random() < 0.8 else "dog" for w in one.split()) for one in wanted]
    drawn = rng.integers(0, 60, (200, 60))
    for score in (bleu, chrf):
        values = [score([answers[i] for i in some], [wanted[i] for i in some], resamples=0).value for some in drawn]
        metric = score(answers, wanted)
        assert metric.stderr == pytest.approx(np.std(values, ddof=1), rel=0.2)
        assert metric.n == 60
        assert score(answers, wanted) == metric


def test_texts_of_nothing_score_nothing():
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    for score in (bleu, chrf):
        assert score(["", ""], ["a b c d e", "f"]).value == 0.0
        with pytest.raises(ValueError, match="a text has no reference"):
            score(["a"], [[]])


def test_without_sacrebleu_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sacrebleu"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"pretextlm\[scores\]"):
        bleu(["a"], ["a"])


def test_a_text_is_exact_but_for_spaces_around_it():
    metric = exact_match([" a b", "a  b", "c", ""], ["a b", "a b", ["b", "c "], ""])
    assert (metric.value, metric.n) == (0.75, 4)


TAKEN = {
    "labels": (["1", "0", "1"], ["1", "1", "0"]),
    "groups": (["1", "0", "1"], ["1", "1", "0"], ["a", "b", "c"]),
    "probabilities": ([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], [1, 0, 1]),
    "label_sets": ([["a"], ["a", "b"], []], [[], ["a", "b"], ["b"]]),
    "numbers": ([1.0, 2.5, 4.0], [1.0, 3.0, 2.0]),
    "tags": ([["B-X", "O"], ["O"], ["B-X"]], [["B-X", "I-X"], ["B-X"], ["B-X"]]),
    "answers": (["a", "b c", ""], [["a", "x"], ["c"], []]),
    "texts": (["a b c d", "e", "f"], ["a b c d", "e", "g"]),
}


@pytest.mark.parametrize("name", SCORES)
def test_every_score_of_the_table_takes_what_it_says(name):
    if name in ("bleu", "chrf"):
        pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    score = score_named(name)
    metric = score(*TAKEN[score.inputs])
    assert isinstance(metric, Metric)
    assert np.isfinite(metric.value)
    assert (metric.n, metric.stderr is None or metric.stderr >= 0) == (3, True)
    assert score.description.endswith(".")


def test_an_unknown_score_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        score_named("acuracy")
