"""Span corruption: T5's numbers, T5's distribution, and nothing lost between source and target."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln
from tests.unit.objectives.hand_rows import keyed, rows_of, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.keyed import Keyed
from pretextlm.objectives.base import build
from pretextlm.objectives.spans import hidden_lengths, span_counts

V = vocabulary(size=1000, sentinels=12)
MANY = tuple(range(900, 1000))
POSSIBLE = 1e-4


def corrupt(rows, vocab=V, **options):
    return build("span_corruption", options).corrupt(rows, vocab, keyed(rows))


def merge(source, target, vocab):
    """The text that a source and a target came from; asserts their form on the way."""
    order = {s: i for i, s in enumerate(vocab.sentinels)}
    source, target = source.tolist(), target.tolist()
    assert source.count(vocab.eos) == target.count(vocab.eos) == 1
    assert source.pop() == target.pop() == vocab.eos
    spans: list[list[int]] = []
    for token in target:
        if token in order:
            assert order[token] == len(spans)  # in order of use, each once
            spans.append([])
        else:
            spans[-1].append(token)
    assert all(spans)
    assert [order[t] for t in source if t in order] == list(range(len(spans)))
    pieces = [spans[order[t]] if t in order else [t] for t in source]
    return [t for piece in pieces for t in piece]


@pytest.mark.parametrize(
    ("length", "rate", "mean", "raw", "target", "spans"),
    [
        (512, 0.15, 3.0, 568, 114, 28),
        (1024, 0.15, 3.0, 1137, 229, 57),
        (2048, 0.15, 3.0, 2274, 456, 114),
        (64, 0.2, 2.0, 70, 22, 7),
        (64, 0.2, 1.0, 63, 27, 13),
        (512, 0.15, 8.0, 588, 100, 11),
        (512, 0.5, 3.0, 766, 512, 128),
        (512, 0.5, 8.0, 908, 512, 57),
        (512, 0.15, 64.0, 600, 92, 1),
        (512, 0.5, 64.0, 1006, 512, 8),
    ],
)
def test_row_sizes_are_those_of_t5_and_ul2(length, rate, mean, raw, target, spans):
    vocab = replace(V, sentinels=tuple(range(500, 700)))
    objective = build("span_corruption", {"rate": rate, "mean_span_length": mean})
    (variant,) = objective.variants(vocab, length)
    assert (variant.raw, variant.length, variant.decoder_length) == (raw, length, target)
    assert span_counts(raw, rate, mean)[1] == spans


@pytest.mark.parametrize(("length", "rate", "source", "target"), [(2048, 0.15, 1676, 373), (2048, 0.5, 1024, 1025)])
def test_prefix_rows_hold_source_and_target_up_to_the_last_token_which_is_only_predicted(length, rate, source, target):
    vocab = replace(V, sentinels=tuple(range(500, 900)))
    objective = build("span_corruption", {"rate": rate, "layout": "prefix"})
    (variant,) = objective.variants(vocab, length)
    noise, spans = span_counts(variant.raw, rate, 3.0)
    assert (variant.raw - noise + spans + 1, noise + spans + 1) == (source, target)
    assert (variant.length, variant.decoder_length) == (length, 0)
    assert objective.suits() == ("decoder",)


def test_source_and_target_are_as_the_docstring_shows():
    """The example of the module's docstring, found among the draws."""
    tokens = np.array([[107, 108, 105, 103, 109, 104, 106]] * 300)
    batch = corrupt(rows_of(tokens), rate=0.4, mean_span_length=1.5)
    s0, s1 = V.sentinels[:2]
    found = [row for row in range(300) if batch.input_ids[row].tolist() == [107, s0, 103, 109, 104, s1, V.eos]]
    assert found
    for row in found:
        assert batch.decoder_labels[row].tolist() == [s0, 108, 105, s1, 106, V.eos]
        assert batch.decoder_input_ids[row].tolist() == [V.pad, s0, 108, 105, s1, 106]


@given(st.integers(2, 90), st.floats(0.01, 0.9), st.floats(1, 10), st.integers(0, 99))
def test_source_and_target_together_are_the_text(length, rate, mean, seed):
    vocab = replace(V, sentinels=MANY, special=V.special | set(MANY))
    rows = rows_of(text(5, length, vocab, seed))
    batch = corrupt(rows, vocab, rate=rate, mean_span_length=mean)
    for row in range(5):
        assert merge(batch.input_ids[row], batch.decoder_labels[row], vocab) == rows.matrix(rows.tokens)[row].tolist()
    noise, spans = span_counts(length, rate, mean)
    assert batch.input_ids.shape[1] == length - noise + spans + 1
    assert batch.decoder_labels.shape[1] == noise + spans + 1


@given(st.integers(3, 700), st.floats(0.01, 0.9), st.floats(1, 70), st.sampled_from(["encoder_decoder", "prefix"]))
def test_the_row_is_the_longest_that_fits(length, rate, mean, layout):
    objective = build("span_corruption", {"rate": rate, "mean_span_length": mean, "layout": layout})
    raw = objective.raw_length(length)
    if raw < 2:
        assert objective._occupied(2) > length
        return
    assert objective._occupied(raw) <= length < objective._occupied(raw + (2 if rate == 0.5 else 1))
    noise, spans = span_counts(raw, rate, mean)
    if layout == "encoder_decoder" and spans < raw - noise:  # spans with text to spare between them
        assert objective._occupied(raw) == length


def test_hidden_spans_are_uniform_over_every_way_to_place_them():
    length, noise, spans = 9, 4, 2
    lengths = hidden_lengths(Keyed.of(1, 0, np.arange(24_000)), (0, 1), length, noise, spans).reshape(-1, 4)
    every = {(a, c, (length - noise) - a, noise - c) for a in range(1, length - noise) for c in range(1, noise)}
    seen = Counter(map(tuple, lengths.tolist()))
    assert set(seen) == every
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_masks_of_three_spans_are_uniform_over_all_masks_that_begin_with_text_and_end_hidden():
    length, rate, mean = 12, 0.5, 2.0
    assert span_counts(length, rate, mean) == (6, 3)
    tokens = np.arange(100, 100 + length)
    batch = corrupt(rows_of(np.tile(tokens, (40_000, 1))), rate=rate, mean_span_length=mean)
    present = (batch.input_ids[:, :, None] == tokens).any(axis=1)
    seen = Counter(map(tuple, (~present).tolist()))
    every = set()
    for hidden in combinations(range(length), 6):
        mask = np.isin(np.arange(length), hidden)
        runs = np.count_nonzero(mask[1:] & ~mask[:-1])
        if not mask[0] and mask[-1] and runs == 3:
            every.add(tuple(mask.tolist()))
    assert set(seen) == every
    assert len(every) == 100
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_span_lengths_at_full_size_follow_the_exact_law():
    """A part of a uniform composition of n in k parts is j with chance C(n-j-1, k-2) / C(n-1, k-1)."""
    lengths = hidden_lengths(Keyed.of(2, 0, np.arange(20_000)), (0, 1), 568, 85, 28)
    assert (lengths.sum(axis=1) == [483, 85]).all()
    assert lengths.min() >= 1
    j = np.arange(1, 12)

    def log_choose(n, k):
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    law = np.exp(log_choose(85 - j - 1, 26) - log_choose(84, 27))
    for span in (0, 13, 27):  # the parts are exchangeable: first, middle and last obey the same law
        counts = np.bincount(lengths[:, span, 1], minlength=12)
        observed = np.append(counts[1:12], counts[12:].sum())
        assert stats.chisquare(observed, np.append(law, 1 - law.sum()) * 20_000).pvalue > POSSIBLE


def test_nothing_is_padded_and_every_target_counts():
    objective = build("span_corruption")
    vocab = replace(V, sentinels=MANY)
    (variant,) = objective.variants(vocab, 512)
    rows = rows_of(text(8, variant.raw, V))
    batch = corrupt(rows, vocab)
    assert not (batch.input_ids == V.pad).any()
    assert (batch.decoder_input_ids == V.pad).sum(axis=0).tolist() == [8] + [0] * 113
    assert not (batch.decoder_labels == IGNORE).any()
    assert objective.counts(batch) == {"lm": 8 * 114}
    assert batch.segment_ids is None


def test_the_decoder_reads_the_target_one_place_later():
    batch = corrupt(rows_of(text(10, 60, V)))
    assert (batch.decoder_input_ids[:, 1:] == batch.decoder_labels[:, :-1]).all()
    assert (batch.decoder_input_ids[:, 0] == V.pad).all()


def test_sentinels_come_from_the_list_whatever_their_ids():
    odd = replace(V, sentinels=(500, 7, 900))
    batch = corrupt(rows_of(text(4, 30, vocabulary(size=400))), odd, rate=0.3, mean_span_length=3.0)
    for row in batch.input_ids:
        assert [t for t in row.tolist() if t in (500, 7, 900)] == [500, 7, 900]


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_a_row_that_ends_in_padding_is_corrupted_as_the_shorter_text_it_is(layout):
    tokens, lengths = text(5, 30, V), np.array([30, 17, 30, 1, 17])
    padding = np.arange(30) >= lengths[:, None]
    tokens[padding] = V.pad
    rows = rows_of(tokens, segments=np.where(padding, -1, 0))
    batch = corrupt(rows, layout=layout)
    whole = corrupt(rows_of(text(5, 30, V)), layout=layout)
    assert batch.input_ids.shape == whole.input_ids.shape
    for row, length in enumerate(lengths):
        alone = build("span_corruption", {"layout": layout}).corrupt(
            rows_of(tokens[row : row + 1, :length], first_id=row), V, Keyed.of(1, 0, row)
        )
        width = alone.input_ids.shape[1]
        assert (batch.input_ids[row, :width] == alone.input_ids[0]).all()
        assert (batch.input_ids[row, width:] == V.pad).all()
        assert (batch.segment_ids[row] == np.where(np.arange(batch.input_ids.shape[1]) < width, 0, -1)).all()
        reach = alone.targets.shape[1]
        assert (batch.targets[row, :reach] == alone.targets[0]).all()
        assert (batch.targets[row, reach:] == IGNORE).all()


def test_documents_follow_each_other_without_a_token_between():
    frame = build("span_corruption").frame(V)
    assert (frame.begin, frame.end, frame.lead) == (None, None, None)
