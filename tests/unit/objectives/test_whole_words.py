"""Whole-word masking: all of a word or none, within the count, and equal to the loop it replaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, selected, text, vocabulary

from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.whole_words import Words, expand, take_words

V = vocabulary()
POSSIBLE = 1e-4


def collate(rows, **options):
    return build("masked", {"unit": "word", **options}).collate(rows, V, keyed(rows))


def by_loop(lengths, budget):
    """BERT's rule for one row: words in order, passing over one that would exceed the budget; one at least."""
    taken, total = [], 0
    for length in lengths:
        fits = total + length <= budget
        taken.append(fits)
        total += length * fits
    if budget and not any(taken) and taken:
        taken[0] = True
    return taken


def words_of_row(tokens, starts, row):
    """(first, stop) of the words of one row, by a loop."""
    words, special = [], V.is_special[tokens[row]]
    for t in range(tokens.shape[1]):
        if special[t]:
            continue
        if starts[row, t] or t == 0 or special[t - 1]:
            words.append([t, t])
        words[-1][1] = t + 1
    return [tuple(w) for w in words]


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 25)), min_size=1, max_size=6
    )
)
def test_taking_words_in_rounds_equals_taking_them_one_by_one(rows):
    width = max(len(lengths) for lengths, _ in rows)
    none = 1000
    matrix = np.array([lengths + [none] * (width - len(lengths)) for lengths, _ in rows], dtype=np.int32)
    budget = np.array([b for _, b in rows])
    got = take_words(matrix, budget)
    for row, (lengths, b) in enumerate(rows):
        assert got[row, : len(lengths)].tolist() == by_loop(lengths, b)
        assert not got[row, len(lengths) :].any()


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
@pytest.mark.parametrize("rate", [0.15, 0.5, 1.0])
def test_a_word_is_selected_whole_or_not_at_all(count, rate):
    rows = framed(60, 50, V)
    chosen = selected(collate(rows, count=count, rate=rate))
    tokens, starts = rows.matrix(rows.tokens), rows.matrix(rows.word_starts)
    for row in range(60):
        for first, stop in words_of_row(tokens, starts, row):
            assert chosen[row, first:stop].all() or not chosen[row, first:stop].any()
    assert not chosen[V.is_special[tokens]].any()
    assert chosen.any()
    if rate == 1.0:
        assert (chosen == ~V.is_special[tokens]).all()


def test_words_end_at_special_tokens_documents_and_rows():
    tokens = np.array([[V.cls, 30, 31, V.sep, 32, 33], [34, 35, 36, 37, 38, 39]])
    starts = np.array([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]], bool)
    segments = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]])
    rows = rows_of(tokens, starts, segments)
    words = Words.of(rows, V.is_special[tokens])
    assert words.begins.astype(int).tolist() == [[0, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0]]
    assert words.lengths.tolist() == [[7, 2, 7, 7, 2, 7], [2, 7, 2, 7, 2, 7]]


def test_expanding_words_gives_their_tokens_row_by_row():
    places, counts = expand(np.array([4, 1, 12]), np.array([2, 1, 3], np.int32), rows=3, width=8)
    assert places.tolist() == [4, 5, 1, 12, 13, 14]
    assert counts.tolist() == [3, 3, 0]


def test_the_count_is_never_exceeded_unless_no_word_fits():
    starts = np.zeros((300, 40), bool)
    starts[:, ::4] = True  # ten words of four tokens, and 15 % of forty is six: one word
    chosen = selected(collate(rows_of(text(300, 40, V), starts)))
    assert (chosen.sum(axis=1) == 4).all()
    starts[:, 4:] = False
    starts[:, 20] = True  # words of 4, 16 and 20... only the first fits
    starts[:, 4] = True
    chosen = selected(collate(rows_of(text(300, 40, V), starts)))
    assert (chosen == (np.arange(40) < 4)).all()
    starts[:, 4] = False  # two words of twenty: neither fits, and one is taken all the same
    chosen = selected(collate(rows_of(text(300, 40, V), starts)))
    assert (chosen.sum(axis=1) == 20).all()
    assert stats.binomtest(int(chosen[:, 0].sum()), 300, 0.5).pvalue > POSSIBLE


def test_words_of_one_token_reach_the_exact_count_of_the_token_unit():
    rows = rows_of(text(500, 50, V))
    by_word = selected(collate(rows)).sum(axis=1)
    by_token = selected(build("masked").collate(rows, V, keyed(rows))).sum(axis=1)
    assert (by_word == by_token).all()


def test_words_of_equal_length_are_selected_equally_often():
    starts = np.zeros((20_000, 24), bool)
    starts[:, ::2] = True
    chosen = selected(collate(rows_of(text(20_000, 24, V), starts), rate=1 / 6))
    assert (chosen.sum(axis=1) == 4).all()
    codes = chosen[:, ::2] @ (1 << np.arange(12))
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 66  # pairs of twelve words
    assert stats.chisquare(counts).pvalue > POSSIBLE


def test_pieces_of_a_word_are_replaced_each_by_itself():
    starts = np.zeros((3000, 20), bool)
    starts[:, ::2] = True
    batch = collate(rows_of(text(3000, 20, V), starts), rate=0.5, random_share=0.0, mask_share=0.5)
    chosen = selected(batch)[:, ::2]
    masked = (batch.input_ids == V.mask).reshape(3000, 10, 2)[chosen]
    table = np.bincount(masked @ np.array([2, 1]), minlength=4)
    assert stats.chisquare(table).pvalue > POSSIBLE


def test_a_korean_eojeol_is_hidden_with_its_particle():
    # 나는 | 오늘 | 라면 ##을 | 먹 ##었 ##다 | .
    words = [[100], [101], [102, 103], [104, 105, 106], [107]]
    tokens = np.array([[V.cls, *[t for w in words for t in w], V.sep]] * 500)
    starts = np.array([[True, *[i == 0 for w in words for i in range(len(w))], True]] * 500)
    batch = collate(rows_of(tokens, starts), rate=0.5, mask_share=1.0, random_share=0.0)
    hidden = {tuple(row) for row in (batch.input_ids == V.mask).tolist()}
    noodles, ate = {(row[3], row[4]) for row in hidden}, {(row[5], row[6], row[7]) for row in hidden}
    assert noodles == {(True, True), (False, False)}
    assert ate == {(True, True, True), (False, False, False)}
