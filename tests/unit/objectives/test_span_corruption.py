"""Span corruption: T5's numbers, T5's distribution, and nothing lost between source and target."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln
from tests.unit.objectives.hand_rows import keyed, rows_of, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.bounded_lengths import between
from pretextlm.objectives.shared.span_noise import Spans, counts_in_range, hidden_lengths, span_counts

V = vocabulary(size=1000, sentinels=12)
MANY = tuple(range(900, 1000))
POSSIBLE = 1e-4


def collate(rows, vocab=V, **options):
    return build("span_corruption", options).collate(rows, vocab, keyed(rows))


def merge(source, target, vocab, final_sentinel=False):
    """The text that a source and a target came from; asserts their form on the way."""
    order = {s: i for i, s in enumerate(vocab.sentinels)}
    source, target = source.tolist(), target.tolist()
    assert source.count(vocab.eos) == target.count(vocab.eos) == 1
    assert source.pop() == target.pop() == vocab.eos
    if final_sentinel and target:
        assert order[target.pop()] == sum(t in order for t in source)
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
    assert objective.supported_architectures() == ("decoder",)


def test_source_and_target_are_as_the_docstring_shows():
    """The example of the module's docstring, found among the draws."""
    tokens = np.array([[107, 108, 105, 103, 109, 104, 106]] * 300)
    batch = collate(rows_of(tokens), rate=0.4, mean_span_length=1.5)
    s0, s1 = V.sentinels[:2]
    found = [row for row in range(300) if batch.input_ids[row].tolist() == [107, s0, 103, 109, 104, s1, V.eos]]
    assert found
    for row in found:
        assert batch.decoder_labels[row].tolist() == [s0, 108, 105, s1, 106, V.eos]
        assert batch.decoder_input_ids[row].tolist() == [V.pad, s0, 108, 105, s1, 106]


@given(
    st.integers(1, 90),
    st.floats(0.01, 0.9),
    st.floats(1, 10),
    st.integers(0, 99),
    st.sampled_from(["t5", "free"]),
    st.booleans(),
)
def test_source_and_target_together_are_the_text(length, rate, mean, seed, edges, final):
    vocab = replace(V, sentinels=MANY, special=V.special | set(MANY))
    rows = rows_of(text(5, length, vocab, seed))
    batch = collate(rows, vocab, rate=rate, mean_span_length=mean, edges=edges, final_sentinel=final)
    for row in range(5):
        merged = merge(batch.input_ids[row], batch.decoder_labels[row], vocab, final)
        assert merged == rows.matrix(rows.tokens)[row].tolist()
    noise, spans = span_counts(length, rate, mean)
    assert batch.input_ids.shape[1] == length - noise + spans + 1
    assert batch.decoder_labels.shape[1] == noise + spans + 1 + (final and spans > 0)


@given(st.integers(3, 700), st.floats(0.01, 0.9), st.floats(1, 70), st.sampled_from(["encoder_decoder", "prefix"]))
def test_the_row_is_the_longest_that_fits(length, rate, mean, layout):
    objective = build("span_corruption", {"rate": rate, "mean_span_length": mean, "layout": layout})
    noise = Spans(objective.rate, objective.mean_span_length, objective.edges, objective.final_sentinel)

    def row_length(tokens):
        return noise.occupied(tokens, layout == "prefix")

    raw = objective.raw_length(length)
    if raw < 2:
        assert row_length(2) > length
        return
    assert row_length(raw) <= length < row_length(raw + (2 if rate == 0.5 else 1))
    hidden, spans = span_counts(raw, rate, mean)
    if layout == "encoder_decoder" and spans < raw - hidden:  # spans with text to spare between them
        assert row_length(raw) in ([length - 1, length] if rate == 0.5 else [length])


def test_hidden_spans_are_uniform_over_every_way_to_place_them():
    length, noise, spans = 9, 4, 2
    lengths = hidden_lengths(CounterRNG.of(1, 0, np.arange(24_000)), (0, 1), length, noise, spans).reshape(-1, 4)
    every = {(a, c, (length - noise) - a, noise - c) for a in range(1, length - noise) for c in range(1, noise)}
    seen = Counter(map(tuple, lengths.tolist()))
    assert set(seen) == every
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_masks_of_three_spans_are_uniform_over_all_masks_that_begin_with_text_and_end_hidden():
    length, rate, mean = 12, 0.5, 2.0
    assert span_counts(length, rate, mean) == (6, 3)
    tokens = np.arange(100, 100 + length)
    batch = collate(rows_of(np.tile(tokens, (40_000, 1))), rate=rate, mean_span_length=mean)
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


def masks(length, noise, spans):
    """Every mask with so many hidden tokens in so many runs."""
    for hidden in combinations(range(length), noise):
        mask = np.isin(np.arange(length), hidden)
        if np.count_nonzero(mask[1:] & ~mask[:-1]) + mask[0] == spans:
            yield tuple(mask.tolist())


@pytest.mark.parametrize(
    ("length", "rate", "mean", "count"), [(8, 0.4, 1.5, 30), (10, 0.5, 2.0, 60), (8, 0.5, 4.0, 5), (6, 0.5, 1.0, 4)]
)
def test_with_free_edges_masks_are_uniform_over_all_masks_with_so_many_spans(length, rate, mean, count):
    noise, spans = span_counts(length, rate, mean)
    tokens = np.arange(100, 100 + length)
    batch = collate(rows_of(np.tile(tokens, (30_000, 1))), rate=rate, mean_span_length=mean, edges="free")
    present = (batch.input_ids[:, :, None] == tokens).any(axis=1)
    seen = Counter(map(tuple, (~present).tolist()))
    every = set(masks(length, noise, spans))
    assert set(seen) == every
    assert len(every) == count
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_free_edges_hide_the_first_and_the_last_token_as_often_as_any_other_nearly():
    tokens = np.arange(200, 768)
    vocab = replace(vocabulary(size=1000), sentinels=MANY)
    for edges, first, last in (("t5", 0.0, 1.0), ("free", 0.058, 0.058)):
        batch = collate(rows_of(np.tile(tokens, (4_000, 1))), vocab, edges=edges)
        assert abs(np.mean(~(batch.input_ids == 200).any(axis=1)) - first) < 0.02  # five deviations are 0.018
        assert abs(np.mean(~(batch.input_ids == 767).any(axis=1)) - last) < 0.02


def test_cutting_equals_the_slow_loop():
    """The same lengths, cut token by token."""
    for edges in ("t5", "free"):
        rng = CounterRNG.of(3, 0, np.arange(40))
        tokens = text(40, 30, V)
        lengths = hidden_lengths(rng, (0, 1), 30, 9, 4, edges)
        source, target = Spans(0.3, 2.25, edges, final_sentinel=True, lead=True).split(tokens, V, rng, lead=77)
        for row in range(40):
            expected, spans, place = [77], [], 0
            for number, (visible, hidden) in enumerate(lengths[row].tolist()):
                expected += [*tokens[row, place : place + visible].tolist(), V.sentinels[number]]
                spans += [V.sentinels[number], *tokens[row, place + visible : place + visible + hidden].tolist()]
                place += visible + hidden
            assert source[row].tolist() == [*expected, *tokens[row, place:].tolist(), V.eos]
            assert target[row].tolist() == [*spans, V.sentinels[4], V.eos]


def test_with_a_final_sentinel_every_target_ends_with_the_next_one():
    for edges in ("t5", "free"):
        batch = collate(rows_of(text(50, 30, V)), edges=edges, final_sentinel=True, rate=0.3)
        assert (batch.decoder_labels[:, -2] == V.sentinels[3]).all()
        assert (batch.input_ids != V.sentinels[3]).all()
        ends_with_text = ~np.isin(batch.input_ids[:, -2], V.sentinels)
        assert ends_with_text.any() == (edges == "free")
        assert not ends_with_text.all()


def test_a_final_sentinel_takes_a_place_of_the_target_and_one_more_sentinel():
    vocab = replace(V, sentinels=MANY[:29])
    for layout in ("encoder_decoder", "prefix"):
        plain, closed = (
            build("span_corruption", {"layout": layout, "final_sentinel": final}).variants(vocab, 512)[0]
            for final in (False, True)
        )
        assert closed.length <= 512
        if layout == "encoder_decoder":
            assert (closed.raw, closed.length, closed.decoder_length) == (plain.raw, 512, plain.decoder_length + 1)
        else:
            assert closed.raw in (plain.raw, plain.raw - 1)
    with pytest.raises(UserError, match="needs 29 sentinels"):
        build("span_corruption", {"final_sentinel": True}).variants(replace(V, sentinels=MANY[:28]), 512)


def test_too_few_sentinels_are_told_with_the_rows_that_would_do():
    hundred = replace(V, sentinels=MANY)
    with pytest.raises(UserError) as fault:
        build("span_corruption", {"rate": 0.5}).variants(hundred, 512)
    assert "--sentinels 128" in fault.value.hint
    longest = int(fault.value.hint.split("at most ")[1].split()[0])
    build("span_corruption", {"rate": 0.5}).variants(hundred, longest)
    with pytest.raises(UserError):
        build("span_corruption", {"rate": 0.5}).variants(hundred, longest + 1)


@given(st.integers(2, 300), st.floats(0.01, 0.9), st.integers(1, 30), st.integers(0, 40), st.integers(0, 99))
def test_spans_of_a_range_keep_to_it_and_to_one_width(length, rate, shortest, more, seed):
    longest = shortest + more
    noise, spans = counts_in_range(length, rate, shortest, longest)
    assert 1 <= noise < length
    assert spans <= length - noise
    vocab = replace(V, sentinels=tuple(range(500, 700)), special=V.special | set(range(500, 700)))
    tokens = text(20, length, vocab, seed)
    kind = Spans(rate, (shortest, longest))
    source, target = kind.split(tokens, vocab, CounterRNG.of(seed, 0, np.arange(20)))
    assert (source.shape[1], target.shape[1]) == kind.widths(length) == (length - noise + spans + 1, noise + spans + 1)
    for row in range(20):
        assert merge(source[row], target[row], vocab) == tokens[row].tolist()
        places = np.flatnonzero(np.isin(target[row], vocab.sentinels))
        lengths = np.diff(places, append=target.shape[1] - 1) - 1
        assert lengths.max() <= longest
        assert lengths.min() >= min(shortest, noise)
    wanted = span_counts(length, rate, 1.0)[0]
    if wanted >= shortest and spans * shortest <= wanted <= min(spans * longest, length - spans):
        assert noise == wanted


@pytest.mark.parametrize(
    ("length", "rate", "low", "high", "shape", "ways"),
    [
        (20, 0.5, 2, 3, (10, 4), 6),
        (30, 0.4, 1, 4, (12, 5), 155),
        (29, 0.5, 2, 6, (14, 4), 68),
        (24, 0.5, 3, 9, (12, 2), 7),
    ],
)
def test_spans_of_a_range_are_uniform_over_every_way_to_cut_them(length, rate, low, high, shape, ways):
    assert counts_in_range(length, rate, low, high) == shape
    noise, spans = shape
    every = {cut for cut in product(range(low, high + 1), repeat=spans) if sum(cut) == noise}
    assert len(every) == ways
    _, target = Spans(rate, (low, high)).split(text(40_000, length, V), V, CounterRNG.of(5, 0, np.arange(40_000)))
    places = np.nonzero(np.isin(target, V.sentinels))[1].reshape(-1, spans)
    seen = Counter(map(tuple, (np.diff(places, axis=1, append=target.shape[1] - 1) - 1).tolist()))
    assert set(seen) == every
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_many_spans_of_a_range_follow_the_exact_law():
    """The share of a length among all spans is that of the ways to cut the rest, counted without rounding."""
    length, rate, low, high = 995, 0.5, 12, 64
    noise, spans = counts_in_range(length, rate, low, high)
    assert (noise, spans) == (498, 13)

    def ways(parts):
        counts = [1]
        for _ in range(parts):
            counts = [sum(counts[max(0, s - high + low) : s + 1]) for s in range(len(counts) + high - low)]
        return counts

    excess = noise - spans * low
    rest = ways(spans - 1)
    law = np.array([rest[excess - more] / ways(spans)[excess] for more in range(high - low + 1)])
    vocab = replace(V, sentinels=MANY, special=V.special | set(MANY))
    _, target = Spans(rate, (low, high)).split(text(6_000, length, vocab), vocab, CounterRNG.of(6, 0, np.arange(6_000)))
    places = np.nonzero(np.isin(target, MANY))[1].reshape(-1, spans)
    lengths = np.diff(places, axis=1, append=target.shape[1] - 1) - 1
    for place in (0, 6, 12):
        counts = np.bincount(lengths[:, place] - low, minlength=len(law))
        assert stats.chisquare(counts, law * 6_000).pvalue > POSSIBLE


def test_between_is_uniform_and_reaches_both_ends():
    words = CounterRNG.of(1, 0, np.arange(70_000)).bits(0, 1)
    drawn = between(words, 3, 9)[:, 0]
    assert stats.chisquare(np.bincount(drawn - 3, minlength=7)).pvalue > POSSIBLE
    assert (between(words[:2], np.array([4, 7]), np.array([4, 7])) == [4, 7]).all()


def test_span_lengths_at_full_size_follow_the_exact_law():
    """A part of a uniform composition of n in k parts is j with chance C(n-j-1, k-2) / C(n-1, k-1)."""
    lengths = hidden_lengths(CounterRNG.of(2, 0, np.arange(20_000)), (0, 1), 568, 85, 28)
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
    batch = collate(rows, vocab)
    assert not (batch.input_ids == V.pad).any()
    assert (batch.decoder_input_ids == V.pad).sum(axis=0).tolist() == [8] + [0] * 113
    assert not (batch.decoder_labels == IGNORE).any()
    assert objective.counts(batch) == {"lm": 8 * 114}
    assert batch.segment_ids is None


def test_the_decoder_reads_the_target_one_place_later():
    batch = collate(rows_of(text(10, 60, V)))
    assert (batch.decoder_input_ids[:, 1:] == batch.decoder_labels[:, :-1]).all()
    assert (batch.decoder_input_ids[:, 0] == V.pad).all()


def test_sentinels_come_from_the_list_whatever_their_ids():
    odd = replace(V, sentinels=(500, 7, 900))
    batch = collate(rows_of(text(4, 30, vocabulary(size=400))), odd, rate=0.3, mean_span_length=3.0)
    for row in batch.input_ids:
        assert [t for t in row.tolist() if t in (500, 7, 900)] == [500, 7, 900]


def test_a_row_of_padding_alone_stays_padding():
    tokens = text(3, 20, V)
    tokens[1] = V.pad
    segments = np.zeros((3, 20), int)
    segments[1] = -1
    for layout in ("encoder_decoder", "prefix"):
        batch = collate(rows_of(tokens, segments=segments), layout=layout)
        assert (batch.input_ids[1] == V.pad).all()
        assert (batch.segment_ids[1] == -1).all()
        assert (batch.targets[1] == IGNORE).all()
        assert (batch.targets[[0, 2]] != IGNORE).any(axis=1).all()


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_a_row_that_ends_in_padding_is_corrupted_as_the_shorter_text_it_is(layout):
    tokens, lengths = text(5, 30, V), np.array([30, 17, 30, 1, 17])
    padding = np.arange(30) >= lengths[:, None]
    tokens[padding] = V.pad
    rows = rows_of(tokens, segments=np.where(padding, -1, 0))
    batch = collate(rows, layout=layout)
    whole = collate(rows_of(text(5, 30, V)), layout=layout)
    assert batch.input_ids.shape == whole.input_ids.shape
    for row, length in enumerate(lengths):
        alone = build("span_corruption", {"layout": layout}).collate(
            rows_of(tokens[row : row + 1, :length], first_id=row), V, CounterRNG.of(1, 0, row)
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
