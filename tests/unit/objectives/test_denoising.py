"""Denoising: exact counts, Poisson's lengths, uniform places and orders, and a target that is the text itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.unit.objectives.hand_rows import keyed, rows_of, take, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

V = vocabulary()
WORDLESS = {"permute_sentences": False, "random_share": 0.0}
POSSIBLE = 1e-4
"""A test of chance fails by chance in one of ten thousand seeds; the seeds are fixed."""


def collate(rows, epoch=0, **options):
    return build("denoising", options).collate(rows, V, keyed(rows, epoch=epoch))


def with_sentences(rows, starts):
    return replace(rows, sentence_starts=np.asarray(starts, bool).reshape(-1))


def sample(rows, width, seed=0):
    """Rows with documents, words and sentences."""
    rng = np.random.default_rng(seed)
    segments = np.cumsum(rng.random((rows, width)) < 0.05, axis=1)
    segments -= segments[:, :1]
    made = rows_of(text(rows, width, V, seed), rng.random((rows, width)) < 0.6, segments)
    return with_sentences(made, rng.random((rows, width)) < 0.15)


def inside(batch):
    """Texts between <s> and </s> of each source; asserts the form on the way."""
    texts = []
    for row, ids in enumerate(batch.input_ids):
        read = slice(None) if batch.segment_ids is None else batch.segment_ids[row] >= 0
        assert (ids[~read] == V.pad).all() if batch.segment_ids is not None else True
        source = ids[read].tolist()
        assert (source[0], source[-1]) == (V.bos, V.eos)
        texts.append(source[1:-1])
    return texts


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({}, 512 - 153 + 44),  # 153 of 510 tokens hidden, in 44 spans
        ({"rate": 0.15, "mean_span_length": 3.0}, 512 - 76 + 25),
        ({"noise": "masking"}, 512),
        ({"noise": "deletion"}, 512 - 153),
        ({"unit": "word"}, 512),
    ],
)
def test_decoder_rows_are_as_long_as_asked_and_sources_as_wide_as_what_is_left(options, source):
    (variant,) = build("denoising", options).variants(V, 512)
    assert (variant.raw, variant.length, variant.decoder_length) == (510, source, 512)
    batch = collate(sample(3, 510), **options)
    assert batch.input_ids.shape == (3, source)
    assert batch.decoder_labels.shape == batch.decoder_input_ids.shape == (3, 512)


@pytest.mark.parametrize("options", [{}, {"noise": "masking"}, {"noise": "deletion"}, {"rotate": 0.5}])
def test_full_rows_have_no_padding_and_every_token_is_a_target(options):
    batch = collate(sample(8, 60), **options)
    assert batch.segment_ids is None
    assert batch.decoder_segment_ids is None
    assert not (batch.input_ids == V.pad).any()
    assert build("denoising", options).counts(batch) == {"lm": 8 * 62}


@given(
    st.integers(1, 50),
    st.sampled_from(["infilling", "masking", "deletion"]),
    st.sampled_from(["token", "word"]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.floats(0.01, 0.9),
    st.integers(0, 50),
)
def test_the_target_is_the_text_whatever_the_noise(width, noise, unit, permute, rotate, rate, seed):
    rows = sample(5, width, seed)
    options = {"noise": noise, "unit": unit, "permute_sentences": permute, "rotate": rotate, "rate": rate}
    batch = collate(rows, **options)
    target = batch.decoder_labels
    assert (target[:, 0] == V.bos).all()
    assert (target[:, 1:-1] == rows.matrix(rows.tokens)).all()
    assert (target[:, -1] == V.eos).all()
    assert (batch.decoder_input_ids[:, 0] == V.pad).all()
    assert (batch.decoder_input_ids[:, 1:] == target[:, :-1]).all()
    for array in (batch.input_ids, batch.decoder_input_ids, batch.decoder_labels):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
    assert len(inside(batch)) == 5
    assert batch.input_ids.shape[1] == build("denoising", options).variants(V, width + 2)[0].length


def test_source_and_target_are_as_the_docstring_shows():
    """The example of the module's docstring, found among the draws."""
    tokens = np.array([[107, 108, 105, 103, 109, 104, 106]] * 4000)
    starts = np.zeros(tokens.shape, bool)
    starts[:, [0, 3]] = True
    batch = collate(with_sentences(rows_of(tokens), starts), mean_span_length=1.0, random_share=0.0)
    wanted = [V.bos, 103, V.mask, 106, 107, V.mask, 108, 105, V.eos]
    found = [row for row in range(len(tokens)) if batch.input_ids[row].tolist() == wanted]
    assert found
    assert batch.decoder_labels[found[0]].tolist() == [V.bos, 107, 108, 105, 103, 109, 104, 106, V.eos]


def holes(source, tokens):
    """(start, length) of the text behind each mask of a source whose tokens are all different and in order."""
    places = {token: i for i, token in enumerate(tokens)}
    gaps, at, waiting = [], 0, 0
    for token in [*source, None]:
        if token == V.mask:
            waiting += 1
            continue
        place = len(tokens) if token is None else places[token]
        gaps.append((at, place - at, waiting))
        at, waiting = place + 1, 0
    return [gap for gap in gaps if gap[1] or gap[2]]


@given(st.integers(1, 60), st.floats(0.01, 0.9), st.floats(1, 8), st.integers(0, 99))
def test_hidden_tokens_and_masks_are_counted_exactly_and_every_hole_has_its_mask(width, rate, mean, seed):
    tokens = np.stack([np.random.default_rng(seed + i).permutation(V.ordinary)[:width] for i in range(6)])
    batch = collate(rows_of(tokens), **WORDLESS, rate=rate, mean_span_length=mean)
    hidden = min(max(round(rate * width), 1), width)
    spans = min(max(round(hidden / mean), 1), hidden)
    for row, source in enumerate(inside(batch)):
        assert source.count(V.mask) == spans
        found = holes(source, tokens[row].tolist())
        assert sum(length for _, length, _ in found) == hidden
        assert all(masks for _, _, masks in found)  # nothing is hidden without a mask, and no mask is swallowed
        assert len(source) == width - hidden + spans


def test_visible_tokens_and_spans_stand_in_every_order_alike():
    """Five tokens, two hidden in two spans: ten ways to place two spans among three tokens, four ways to fill them."""
    tokens = np.array([[101, 102, 103, 104, 105]] * 40_000)
    batch = collate(rows_of(tokens), **WORDLESS, rate=0.4, mean_span_length=1.0)
    seen = Counter(map(tuple, inside(batch)))
    law = Counter()
    for places in combinations(range(5), 2):
        for first in range(3):
            sizes, at, source = [first, 2 - first], 0, []
            for slot in range(5):
                if slot in places:
                    at += sizes.pop(0)
                    source.append(V.mask)
                else:
                    source.append(101 + at)
                    at += 1
            law[tuple(source)] += comb(2, first) / 4 / 10
    assert set(seen) <= set(law)
    keys = sorted(law)
    assert stats.chisquare([seen[k] for k in keys], [40_000 * law[k] for k in keys]).pvalue > POSSIBLE


def test_span_lengths_at_full_size_are_poisson_given_their_sum():
    objective = build("denoising")
    count, units = 4000, 510
    hidden, begin = objective.place_spans(np.full(count, units), units, CounterRNG.of(3, 0, np.arange(count)))
    assert (hidden.reshape(count, units).sum(axis=1) == 153).all()
    assert begin.shape == (count * 44,)
    begin = begin.reshape(count, 44) - np.arange(count)[:, None] * units
    assert (np.diff(begin, axis=1) >= 0).all()
    share = CounterRNG.of(3, 0, np.arange(count)).bits(2, 153) >> np.uint64(32)
    lengths = np.stack([np.bincount(row, minlength=44) for row in (share * np.uint64(44) >> np.uint64(32)).astype(int)])
    assert (np.diff(begin, axis=1) >= lengths[:, :-1]).all()  # spans do not overlap
    for span in (0, 20, 43):
        observed = np.bincount(np.minimum(lengths[:, span], 11), minlength=12)
        law = stats.binom.pmf(np.arange(11), 153, 1 / 44)
        assert stats.chisquare(observed, count * np.append(law, 1 - law.sum())).pvalue > POSSIBLE
    poisson = stats.poisson.pmf(np.arange(11), 3.5)
    assert np.abs(stats.binom.pmf(np.arange(11), 153, 1 / 44) - poisson).max() < 0.005


def slow_infilling(tokens, columns, shares, spans, masks):
    """The same for one row, slot by slot."""
    lengths = [shares.count(i) for i in range(spans)]
    source, at, slots = [], 0, sorted(columns)
    for slot in range(len(tokens) - len(shares) + spans):
        if slot in slots:
            at += lengths.pop(0)
            source.append(masks.pop(0))
        else:
            source.append(tokens[at])
            at += 1
    return source


@pytest.mark.parametrize(("rate", "mean"), [(0.3, 3.5), (0.7, 1.0), (0.1, 9.0)])
def test_infilling_equals_a_loop_over_the_source(rate, mean):
    rows = rows_of(text(40, 33, V, 4))
    objective = build("denoising", {"permute_sentences": False, "rate": rate, "mean_span_length": mean})
    batch = objective.collate(rows, V, keyed(rows))
    hidden, spans = (int(n) for n in objective.hidden_counts(33))
    rng = keyed(rows)
    columns = rng.order(1, 33 - hidden + spans, spans)
    shares = ((rng.bits(2, hidden) >> np.uint64(32)) * np.uint64(spans) >> np.uint64(32)).astype(int)
    masks = objective.replacements(np.full(40, spans), V, rng).reshape(40, spans)
    for row, source in enumerate(inside(batch)):
        tokens = rows.matrix(rows.tokens)[row].tolist()
        assert source == slow_infilling(tokens, columns[row], shares[row].tolist(), spans, masks[row].tolist())


@pytest.mark.parametrize("noise", ["masking", "deletion"])
def test_masked_or_deleted_tokens_are_any_set_alike(noise):
    tokens = np.arange(101, 107)
    batch = collate(rows_of(np.tile(tokens, (20_000, 1))), **WORDLESS, noise=noise, rate=0.5)
    seen = Counter(tuple(t for t in source if t != V.mask) for source in inside(batch))
    assert set(seen) == set(combinations(tokens.tolist(), 3))
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE
    if noise == "masking":
        assert all(t in (tokens[i], V.mask) for source in inside(batch) for i, t in enumerate(source))
        assert all(source.count(V.mask) == 3 for source in inside(batch))


@pytest.mark.parametrize("noise", ["infilling", "masking"])
def test_one_mask_in_ten_is_a_random_ordinary_token(noise):
    tokens = np.tile(V.ordinary[:40], (3000, 1))
    batch = collate(rows_of(tokens), permute_sentences=False, noise=noise)
    hidden, spans = build("denoising").hidden_counts(40)
    masks = 3000 * int(spans if noise == "infilling" else hidden)
    replaced = masks - np.count_nonzero(batch.input_ids == V.mask)
    assert abs(replaced - 0.1 * masks) < stats.norm.isf(POSSIBLE / 2) * np.sqrt(0.09 * masks)
    values = collate(rows_of(np.full((3000, 40), V.unk)), permute_sentences=False, noise=noise, random_share=1.0)
    drawn = values.input_ids[:, 1:-1]
    counts = np.bincount(drawn[drawn != V.unk], minlength=V.size)
    assert not counts[V.is_special].any()
    assert stats.chisquare(counts[V.ordinary[V.ordinary != V.unk]]).pvalue > POSSIBLE


def test_sentences_stand_in_every_order_alike_and_stay_whole():
    tokens = np.arange(101, 110)
    starts = np.zeros((24_000, 9), bool)
    starts[:, [0, 2, 3, 7]] = True
    rows = with_sentences(rows_of(np.tile(tokens, (24_000, 1))), starts)
    objective = build("denoising")
    order = objective.sentence_order(rows, np.ones(rows.tokens.shape, bool), np.full(24_000, 9), keyed(rows))
    permuted = rows.tokens[order].reshape(-1, 9)
    sentences = ((101, 102), (103,), (104, 105, 106, 107), (108, 109))
    every = {tuple(t for s in some for t in s): 0 for some in permutations(sentences)}
    seen = Counter(map(tuple, permuted.tolist()))
    assert set(seen) == set(every)
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_sentences_stay_in_their_document_and_the_rows_edges_cut_them():
    """One token hidden in one span leaves the rest of the permuted row to be read."""
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]] * 500)
    starts = np.zeros(segments.shape, bool)
    starts[:, [2, 4, 5, 9]] = True  # the row begins inside a sentence
    rows = with_sentences(rows_of(np.tile(np.arange(101, 112), (500, 1)), segments=segments), starts)
    sources = inside(collate(rows, rate=0.01, random_share=0.0))
    wanted = [[(101, 102), (103, 104)], [(105,), (106, 107)], [(108, 109), (110, 111)]]
    orders = set()
    for source in sources:
        assert source.count(V.mask) == 1
        orders.add(tuple(t for t in source if t != V.mask))
    possible = set()
    for first in permutations(wanted[0]):
        for second in permutations(wanted[1]):
            for third in permutations(wanted[2]):
                row = [t for s in (*first, *second, *third) for t in s]
                possible |= {tuple(row[:i] + row[i + 1 :]) for i in range(11)}
    assert orders == possible


def test_a_rotated_text_begins_at_any_token_alike():
    tokens = np.arange(101, 109)
    batch = collate(rows_of(np.tile(tokens, (16_000, 1))), **WORDLESS, noise="deletion", rate=0.01, rotate=1.0)
    first = Counter()
    for source in inside(batch):
        start = next(i for i in range(7) if source[i - 1] > source[i])
        assert sorted(source) == source[start:] + source[:start]
        first[(7 - start) % 7] += 1
    assert len(first) == 7
    assert stats.chisquare(list(first.values())).pvalue > POSSIBLE
    half = collate(rows_of(np.tile(tokens, (16_000, 1))), **WORDLESS, noise="deletion", rate=0.01, rotate=0.5)
    turned = sum(source != sorted(source) for source in inside(half))
    assert abs(turned - 8000 * 6 / 7) < 4 * np.sqrt(16_000 / 4)


def test_with_words_spans_are_of_whole_words_and_sources_end_in_padding():
    rng = np.random.default_rng(7)
    starts = rng.random((30, 60)) < 0.5
    starts[:, 0] = True
    tokens = np.stack([rng.permutation(V.ordinary)[:60] for _ in range(30)])
    batch = collate(rows_of(tokens, starts), **WORDLESS, unit="word")
    assert batch.input_ids.shape == (30, 62)
    assert batch.segment_ids.dtype == np.int32
    for row, source in enumerate(inside(batch)):
        words = int(starts[row].sum())
        hidden = max(1, round(0.3 * words))
        assert source.count(V.mask) == max(1, round(hidden / 3.5))
        gone = 0
        for start, length, masks in holes(source, tokens[row].tolist()):
            assert masks
            assert start + length == 60 or starts[row, start + length]
            assert starts[row, start] if start < 60 else True
            gone += int(starts[row, start : start + length].sum())
        assert gone == hidden
    assert (batch.decoder_segment_ids == 0).all()


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("noise", ["infilling", "masking", "deletion"])
def test_a_row_that_ends_in_padding_is_noised_as_the_shorter_text_it_is(noise, unit):
    rows, lengths = sample(6, 30, 3), np.array([30, 17, 30, 1, 0, 17])
    padding = np.arange(30) >= lengths[:, None]
    tokens, segments = rows.matrix(rows.tokens).copy(), rows.matrix(rows.segment_ids).copy()
    positions, sentences = rows.matrix(rows.position_ids).copy(), rows.matrix(rows.sentence_starts).copy()
    starts = rows.matrix(rows.word_starts) & ~padding
    tokens[padding], segments[padding], positions[padding], sentences[padding] = V.pad, -1, 0, False
    short = replace(
        rows,
        tokens=tokens.reshape(-1),
        segment_ids=segments.reshape(-1),
        position_ids=positions.reshape(-1),
        word_starts=starts.reshape(-1),
        sentence_starts=sentences.reshape(-1),
    )
    batch = collate(short, noise=noise, unit=unit, rotate=0.5)
    objective = build("denoising", {"noise": noise})
    for row, length in enumerate(lengths):
        wrote = batch.decoder_segment_ids[row] >= 0
        assert wrote.sum() == (length + 2 if length else 0)
        assert (batch.decoder_labels[row, ~wrote] == IGNORE).all()
        assert (batch.decoder_input_ids[row, ~wrote] == V.pad).all()
        assert (batch.input_ids[row, batch.segment_ids[row] < 0] == V.pad).all()
        if length:
            assert batch.decoder_labels[row, wrote].tolist() == [V.bos, *tokens[row, :length].tolist(), V.eos]
            assert batch.decoder_input_ids[row, wrote].tolist() == [V.pad, *batch.decoder_labels[row, wrote][:-1]]
        read = int((batch.segment_ids[row] >= 0).sum())
        if length and unit == "token":
            hidden, spans = (int(n) for n in objective.hidden_counts(length))
            gone = {"infilling": hidden - spans, "masking": 0, "deletion": hidden}[noise]
            assert read == length + 2 - gone
        elif not length:
            assert read == 0
    full = collate(rows, noise=noise, unit=unit, rotate=0.5)
    assert (batch.input_ids[lengths == 30] == full.input_ids[lengths == 30]).all()


@pytest.mark.parametrize("options", [{}, {"unit": "word"}, {"noise": "masking", "unit": "word"}, {"rotate": 0.5}])
def test_a_row_is_the_same_alone_and_in_any_batch(options):
    rows = sample(24, 40)
    whole = collate(rows, **options)
    for which in (np.array([5]), np.arange(24)[::-1].copy(), np.array([3, 17, 4])):
        sentences = rows.matrix(rows.sentence_starts)[which]
        part = collate(with_sentences(take(rows, which), sentences), **options)
        for field in ("input_ids", "decoder_input_ids", "decoder_labels", "segment_ids"):
            if getattr(whole, field) is not None:
                assert (getattr(part, field) == getattr(whole, field)[which]).all(), field
    again = collate(rows, epoch=1, **options)
    assert (again.input_ids != whole.input_ids).any(axis=1).all()


def test_the_frame_is_plain_text_and_asks_for_sentences_where_they_are_permuted():
    frame = build("denoising").frame(V)
    assert (frame.begin, frame.end, frame.lead, frame.sentences) == (None, None, None, True)
    assert not build("denoising", {"permute_sentences": False}).frame(V).sentences


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="into 2 tokens"):
        build("denoising").variants(V, 2)
    bare = replace(V, size=20, special=frozenset(range(20)), unk=0)
    object.__setattr__(bare, "ordinary", np.zeros(0, np.int32))
    with pytest.raises(UserError, match="no ordinary token"):
        build("denoising").variants(bare, 32)
    build("denoising", {"random_share": 0.0}).variants(bare, 32)
    for options in ({"rate": 0.0}, {"rate": 0.95}, {"mean_span_length": 0.5}, {"noise": "swap"}, {"rotate": 1.5}):
        with pytest.raises(UserError):
            build("denoising", options)
