"""Masked sequence to sequence: one stretch a row, hidden from the encoder and written by the decoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.unit.objectives.hand_rows import keyed, rows_of, take, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

V = vocabulary()
POSSIBLE = 1e-4


def collate(rows, vocab=V, **options):
    return build("masked_sequence", options).collate(rows, vocab, keyed(rows))


def test_rows_are_as_the_docstring_shows():
    tokens = np.tile([107, 108, 105, 103, 109, 104, 106, 102], (60, 1))
    batch = collate(rows_of(tokens), mask_share=1.0, random_share=0.0)
    row = np.flatnonzero(batch.decoder_position_ids[:, 0] == 2)[0]
    assert batch.input_ids[row].tolist() == [107, 108, *[V.mask] * 4, 106, 102]
    assert batch.decoder_input_ids[row].tolist() == [V.pad, 105, 103, 109]
    assert batch.decoder_labels[row].tolist() == [105, 103, 109, 104]
    assert batch.decoder_position_ids[row].tolist() == [2, 3, 4, 5]


@given(st.integers(1, 70), st.floats(0.01, 1.0), st.sampled_from(["uniform", "ends"]), st.integers(0, 99))
def test_the_text_comes_back_from_encoder_and_decoder(length, rate, start, seed):
    rows = rows_of(text(6, length, V, seed))
    batch = collate(rows, rate=rate, start=start)
    count = max(1, round(rate * length))
    assert batch.input_ids.shape == (6, length)
    assert batch.decoder_labels.shape == batch.decoder_input_ids.shape == (6, count)
    for row in range(6):
        tokens = rows.matrix(rows.tokens)[row]
        first = batch.decoder_position_ids[row, 0]
        assert batch.decoder_position_ids[row].tolist() == list(range(first, first + count))
        assert batch.decoder_labels[row].tolist() == tokens[first : first + count].tolist()
        assert batch.decoder_input_ids[row].tolist() == [V.pad, *tokens[first : first + count - 1].tolist()]
        outside = np.ones(length, bool)
        outside[first : first + count] = False
        assert (batch.input_ids[row][outside] == tokens[outside]).all()


def test_the_stretch_begins_anywhere_with_equal_chance():
    batch = collate(rows_of(text(20_000, 20, V)))
    counts = np.bincount(batch.decoder_position_ids[:, 0], minlength=11)
    assert len(counts) == 11
    assert stats.chisquare(counts).pvalue > POSSIBLE


def test_with_ends_a_fifth_begins_with_the_text_and_a_fifth_ends_with_it():
    batch = collate(rows_of(text(20_000, 20, V)), start="ends")
    counts = np.bincount(batch.decoder_position_ids[:, 0], minlength=11)
    shares = np.full(11, 0.6 / 11)
    shares[[0, -1]] += 0.2
    assert stats.chisquare(counts, shares * 20_000).pvalue > POSSIBLE


def test_of_the_stretch_80_in_100_are_masked_10_random_and_10_stay():
    tokens = np.full((2_000, 40), 30)
    batch = collate(rows_of(tokens))
    hidden = np.take_along_axis(batch.input_ids, batch.decoder_position_ids.astype(np.int64), axis=1)
    masked, same = np.mean(hidden == V.mask), np.mean(hidden == 30)
    n = hidden.size
    chance = 0.1 / len(V.ordinary)
    assert stats.binomtest(int(masked * n), n, 0.8).pvalue > POSSIBLE
    assert stats.binomtest(int(same * n), n, 0.1 + chance).pvalue > POSSIBLE
    random = hidden[(hidden != V.mask) & (hidden != 30)]
    assert np.isin(random, V.ordinary).all()
    others = np.bincount(random, minlength=V.size)[V.ordinary[V.ordinary != 30]]
    assert stats.chisquare(others).pvalue > POSSIBLE


def test_rows_that_end_in_padding_are_shorter_texts():
    tokens, lengths = text(5, 24, V), (24, 13, 2, 1, 0)
    segments = np.where(np.arange(24) < np.array(lengths)[:, None], 0, -1)
    tokens[segments < 0] = V.pad
    batch = collate(rows_of(tokens, segments=segments))
    for row, length in enumerate(lengths):
        assert (batch.segment_ids[row] == np.where(np.arange(24) < length, 0, -1)).all()
        assert (batch.input_ids[row, length:] == V.pad).all()
        count = round(length / 2) or min(length, 1)
        assert (batch.decoder_labels[row, count:] == IGNORE).all()
        assert (batch.decoder_segment_ids[row] == np.where(np.arange(12) < count, 0, -1)).all()
        if length:
            alone = collate(rows_of(tokens[row : row + 1, :length], first_id=row))
            for name in ("decoder_labels", "decoder_input_ids", "decoder_position_ids"):
                assert (getattr(batch, name)[row, :count] == getattr(alone, name)[0]).all()
            assert (batch.input_ids[row, :length] == alone.input_ids[0]).all()


def test_a_row_comes_out_the_same_alone_and_in_the_declared_shape():
    objective = build("masked_sequence", {"rate": 0.3})
    (variant,) = objective.variants(V, 50)
    assert (variant.raw, variant.length, variant.decoder_length) == (50, 50, 15)
    rows = rows_of(text(12, 50, V))
    whole = objective.collate(rows, V, keyed(rows))
    some = take(rows, np.array([11, 3]))
    part = objective.collate(some, V, keyed(some))
    for name in ("input_ids", "decoder_input_ids", "decoder_labels", "decoder_position_ids"):
        array = getattr(part, name)
        assert (array == getattr(whole, name)[[11, 3]]).all()
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
    assert objective.counts(whole) == {"lm": 12 * 15}


@pytest.mark.parametrize(
    ("options", "part"),
    [({"rate": 0.0}, "rate"), ({"mask_share": 0.8, "random_share": 0.3}, "exceed 1"), ({"start": "middle"}, "start")],
)
def test_wrong_options_are_named(options, part):
    with pytest.raises(UserError, match=part):
        build("masked_sequence", options)


def test_what_cannot_work_is_refused_at_the_start():
    with pytest.raises(UserError, match="at least 2"):
        build("masked_sequence").variants(V, 1)
    wordless = replace(V, special=frozenset(range(V.size)))
    with pytest.raises(UserError, match="random_share=0"):
        build("masked_sequence").variants(wordless, 8)
    build("masked_sequence", {"random_share": 0.0}).variants(wordless, 8)
