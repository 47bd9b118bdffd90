"""Spans and their F1 are seqeval's on any sequence of tags, however malformed, and KLUE's are those it publishes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pretextlm.errors import UserError
from pretextlm.evaluation.scores.span_f1 import character_f1, entity_f1, span_f1, span_f1_macro
from pretextlm.evaluation.scores.spans import spans_of

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-a-b", "I-a-b"]
IOBES = [*BIO, "E-PER", "S-PER", "E-LOC", "S-LOC"]


def tagged(tags):
    """Answers and wanted tags of several sentences, equally long, some of them empty; what is wanted is often right."""
    tag = st.sampled_from(tags)
    word = st.one_of(st.tuples(tag, tag), tag.map(lambda one: (one, one)))
    sentence = st.lists(word, max_size=8)
    return st.lists(sentence, min_size=1, max_size=6).map(
        lambda rows: tuple([[pair[side] for pair in row] for row in rows] for side in (0, 1))
    )


@settings(max_examples=150, deadline=None)
@given(tagged(IOBES))
def test_spans_are_those_of_seqeval(sides):
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="needs seqeval")
    tags = sides[0]
    found = spans_of(tags)
    expected = [[(kind, start, end + 1) for kind, start, end in labeling.get_entities(one)] for one in tags]
    assert found == expected


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(tagged(BIO))
def test_span_f1_is_that_of_seqeval(sides):
    seqeval = pytest.importorskip("seqeval.metrics", reason="needs seqeval")
    answers, wanted = sides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert span_f1(answers, wanted, resamples=0).value == pytest.approx(seqeval.f1_score(wanted, answers))
        if any(spans_of([*answers, *wanted])):
            assert span_f1_macro(answers, wanted, resamples=0).value == pytest.approx(
                seqeval.f1_score(wanted, answers, average="macro")
            )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(tagged(BIO[:5]))
def test_klues_f1_of_entities_and_characters_are_those_of_its_own_evaluation(sides):
    """Strict IOB2 in seqeval, macro; and scikit-learn's macro F1 over the tags of all characters."""
    seqeval = pytest.importorskip("seqeval.metrics", reason="needs seqeval")
    from seqeval.scheme import IOB2

    answers, wanted = sides
    flat = [[tag for one in side for tag in [*one, "O"]] for side in sides]  # as KLUE joins sentences
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if any(tag.startswith("B") for side in flat for tag in side):
            expected = seqeval.f1_score([flat[1]], [flat[0]], average="macro", mode="strict", scheme=IOB2)
            assert entity_f1(answers, wanted, resamples=0).value == pytest.approx(expected)
        characters = [[tag for one in side for tag in one] for side in sides]
        if characters[0]:
            expected = sklearn.f1_score(characters[1], characters[0], average="macro", zero_division=1)
            assert character_f1(answers, wanted, resamples=0).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-X I-X O", [("X", 0, 2)]),
        ("I-X I-X O", [("X", 0, 2)]),  # begins after O as well
        ("B-X I-Y", [("X", 0, 1), ("Y", 1, 2)]),  # another type begins another span
        ("B-X B-X", [("X", 0, 1), ("X", 1, 2)]),
        ("O I-X I-Y O", [("X", 1, 2), ("Y", 2, 3)]),
        ("B-X O I-X", [("X", 0, 1), ("X", 2, 3)]),
        ("B I O", [("", 0, 2)]),
        ("S-X B-X E-X I-X", [("X", 0, 1), ("X", 1, 3), ("X", 3, 4)]),
        ("O O", []),
    ],
)
def test_malformed_sequences_are_read_as_conlleval_reads_them(tags, spans):
    assert spans_of([tags.split()]) == [spans]


def test_strict_iob2_knows_spans_that_begin_with_b_alone():
    tags = [["I-X", "I-X", "B-X", "I-X", "I-Y", "B-Y", "O", "I-Y"]]
    assert spans_of(tags, "iob2") == [[("X", 2, 4), ("Y", 5, 6)]]


def test_no_span_reaches_over_the_end_of_a_sentence():
    assert spans_of([["B-X"], ["I-X"], [], ["O"], ["I-X", "I-X"]]) == [
        [("X", 0, 1)],
        [("X", 0, 1)],
        [],
        [],
        [("X", 0, 2)],
    ]


def test_nothing_found_where_nothing_is_wanted_scores_nothing():
    for score in (span_f1, span_f1_macro, entity_f1):
        metric = score([["O", "O"], []], [["O", "O"], []])
        assert (metric.value, metric.n, metric.stderr) == (0.0, 2, None)
    assert character_f1([["O", "O"]], [["O", "O"]]).value == 1.0


@pytest.mark.slow
def test_the_standard_error_is_over_sentences():
    rng = np.random.default_rng(0)
    wanted = [["B-X" if rng.random() < 0.3 else "O" for _ in range(rng.integers(1, 12))] for _ in range(200)]
    answers = [[tag if rng.random() < 0.8 else "B-X" for tag in one] for one in wanted]
    metric = span_f1(answers, wanted, resamples=1000)
    values = []
    for _ in range(400):
        drawn = rng.integers(0, 200, 200)
        values.append(span_f1([answers[i] for i in drawn], [wanted[i] for i in drawn], resamples=0).value)
    assert metric.n == 200
    assert metric.stderr == pytest.approx(np.std(values, ddof=1), rel=0.15)


def test_tags_that_are_none_or_not_as_many_as_wanted_are_refused():
    for tag in ("X-PER", "PER", "", "O-PER"):
        with pytest.raises(UserError, match=f"'{tag}' is not a valid tag"):
            span_f1([[tag]], [["O"]])
    for score in (span_f1, entity_f1, character_f1):
        with pytest.raises(ValueError, match="sentence 1: 1 tags for 2 references"):
            score([["O"], ["O"]], [["O"], ["O", "O"]])
        with pytest.raises(ValueError, match="1 predictions for 2"):
            score([["O"]], [["O"], ["O"]])
