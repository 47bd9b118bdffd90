"""What else masked language modelling offers: static masks, a rate that changes, prediction from the place before, ...

A test with a p-value would fail by chance once in ten thousand seeds; draws are fixed by their seed.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from scipy import stats
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, selected, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.loader import Loader
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

V = vocabulary()
UNITS = ["token", "word", "ngram", "span"]
POSSIBLE = 1e-4


def collate(rows, vocab=V, **options):
    return build("masked", options).collate(rows, vocab, keyed(rows))


def pairs(count, width, vocab=V):
    """Rows as a reader of sentence pairs gives them: [CLS] A [SEP] B [SEP] and padding, one segment, two types."""
    tokens = text(count, width, vocab)
    tokens[:, 0] = vocab.cls
    segments, types = np.zeros_like(tokens), np.zeros_like(tokens)
    rng = np.random.default_rng(7)
    for row in range(count):
        middle, end = sorted(rng.choice(np.arange(2, width), 2, replace=False))
        tokens[row, [middle, end]] = vocab.sep
        types[row, middle + 1 : end + 1] = 1
        tokens[row, end + 1 :], segments[row, end + 1 :] = vocab.pad, -1
    rows = rows_of(tokens, rng.random(tokens.shape) < 0.6, segments)
    labels = rng.integers(0, 2, count).astype(np.int32)
    return dataclasses.replace(rows, token_type_ids=types.reshape(-1), row_labels=labels)


@pytest.mark.parametrize("predict", ["here", "next"])
@pytest.mark.parametrize("unit", UNITS)
def test_what_a_reader_of_pairs_says_goes_on_and_padding_is_never_selected(unit, predict):
    rows = pairs(60, 40)
    batch = collate(rows, unit=unit, predict=predict, rate=0.5)
    assert (batch.token_type_ids == rows.matrix(rows.token_type_ids)).all()
    assert (batch.row_labels == rows.row_labels).all()
    padding = rows.matrix(rows.segment_ids) < 0
    assert not selected(batch)[padding].any()
    assert (batch.input_ids[padding] == V.pad).all()
    assert selected(batch).any()
    for array in (batch.token_type_ids, batch.row_labels):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous


def test_rows_without_types_or_labels_have_none():
    batch = collate(framed(3, 20, V))
    assert batch.token_type_ids is None
    assert batch.row_labels is None


@pytest.mark.parametrize("unit", UNITS)
def test_the_place_before_a_hidden_token_predicts_it(unit):
    rows = framed(80, 60, V)
    tokens, batch = rows.matrix(rows.tokens), collate(rows, unit=unit, predict="next", rate=0.3, random_share=0.0)
    chosen, segments = selected(batch), rows.matrix(rows.segment_ids)
    assert not chosen[:, -1].any()
    row, column = np.nonzero(chosen)
    assert (batch.labels[row, column] == tokens[row, column + 1]).all()
    assert (segments[row, column] == segments[row, column + 1]).all()
    assert not V.is_special[tokens[row, column + 1]].any()
    hidden = np.zeros_like(chosen)
    hidden[row, column + 1] = True
    assert (batch.input_ids[~hidden] == tokens[~hidden]).all()
    assert set(np.unique(batch.input_ids[hidden])) - set(np.unique(tokens)) == {V.mask}


def test_a_token_that_opens_its_segment_is_never_hidden_where_the_place_before_would_predict_it():
    rows = rows_of(text(200, 20, V), segments=np.repeat([[0] * 8 + [1] * 12], 200, axis=0))
    for unit in UNITS:
        hidden = selected(collate(rows, unit=unit, predict="next", rate=1.0))
        assert (hidden == ([True] * 7 + [False] + [True] * 11 + [False])).all()


@pytest.mark.parametrize("unit", ["word", "ngram", "span"])
def test_a_word_that_opens_its_segment_is_spared_whole(unit):
    starts = np.zeros((100, 12), bool)
    starts[:, [3, 5, 8]] = True  # a word of three tokens opens the row
    batch = collate(rows_of(text(100, 12, V), starts), unit=unit, predict="next", rate=1.0)
    assert (selected(batch) == ([False] * 2 + [True] * 9 + [False])).all()


def test_exact_counts_hold_where_the_place_before_predicts():
    rows = rows_of(text(20_000, 51, V))  # 50 tokens that may be hidden: 7.5 of them
    counts = selected(collate(rows, predict="next")).sum(axis=1)
    assert set(counts.tolist()) == {7, 8}
    assert stats.binomtest(int((counts == 8).sum()), 20_000, 0.5).pvalue > POSSIBLE


def test_predicting_next_tokens_suits_a_decoder_too():
    assert build("masked").supported_architectures() == ("encoder",)
    assert build("masked", {"predict": "next"}).supported_architectures() == ("encoder", "decoder")
    assert collate(framed(2, 20, V), predict="next").attention == "bidirectional"


def outcomes(rows, batch, sizes, starts):
    """0 masked, 1 replaced, 2 kept, of every selected token; a list for each unit."""
    tokens = rows.tokens
    inputs = batch.input_ids.reshape(-1)
    kind = np.where(inputs == tokens, 2, np.where(inputs == V.mask, 0, 1))
    return [kind[first : first + size].tolist() for first, size in zip(starts, sizes, strict=True)]


@pytest.mark.parametrize("unit", ["word", "ngram", "span"])
def test_a_unit_is_masked_replaced_or_kept_as_a_whole(unit):
    vocab = vocabulary(size=40_000)
    rows = framed(300, 120, vocab)
    objective = build("masked", {"unit": unit, "replace": "unit", "rate": 0.3, "mask_share": 0.5, "random_share": 0.3})
    chosen = objective.select(rows, vocab.is_special[rows.matrix(rows.tokens)], keyed(rows))
    batch = objective.collate(rows, vocab, keyed(rows))
    starts = chosen.places[np.cumsum(chosen.units) - chosen.units]
    found = outcomes(rows, batch, chosen.units, starts)
    assert max(map(len, found)) > 2
    assert sum(len(set(unit)) > 1 for unit in found) <= 2  # a random token may by chance be the original
    counts = np.bincount([unit[0] for unit in found], minlength=3)
    assert stats.chisquare(counts, np.array([0.5, 0.3, 0.2]) * len(found)).pvalue > POSSIBLE


def test_random_tokens_of_a_unit_are_drawn_each_by_itself():
    rows = rows_of(text(500, 40, V), np.tile(np.arange(40) % 4 == 0, (500, 1)))
    batch = collate(rows, unit="word", replace="unit", rate=0.5, mask_share=0.0, random_share=1.0)
    words = batch.input_ids.reshape(-1, 4)[selected(batch).reshape(-1, 4)[:, 0]]
    assert len(np.unique(words[:, 0])) > 100
    assert (words[:, 0] == words[:, 1]).mean() < 0.02


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_tokens_of_words_are_replaced_each_by_itself_unless_asked_otherwise(count):
    rows = rows_of(text(4000, 20, V), np.tile(np.arange(20) % 2 == 0, (4000, 1)))
    for replace, shares in (("token", [1, 2, 1]), ("unit", [1, 0, 1])):
        options = {"mask_share": 0.5, "random_share": 0.0, "replace": replace, "count": count}
        batch = collate(rows, unit="word", rate=0.5, **options)
        masked = (batch.input_ids == V.mask).reshape(-1, 2)[selected(batch).reshape(-1, 2)[:, 0]].sum(axis=1)
        found = np.bincount(masked, minlength=3)
        assert (found > 0).tolist() == (np.array(shares) > 0).tolist()
        positive = np.array(shares) > 0
        expected = np.array(shares)[positive] / sum(shares) * len(masked)
        assert stats.chisquare(found[positive], expected).pvalue > POSSIBLE


def with_progress(rows, progress):
    return dataclasses.replace(rows, progress=np.broadcast_to(progress, len(rows)).astype(np.float64))


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 15.0), (0.5, 11.25), (1.0, 7.5), (None, 7.5)])
def test_the_rate_goes_in_a_straight_line_from_first_to_last(progress, expected):
    rows = rows_of(text(20_000, 50, V))
    if progress is not None:
        rows = with_progress(rows, progress)
    counts = selected(collate(rows, rate=0.3, final_rate=0.15)).sum(axis=1)
    low = int(expected)
    assert set(counts.tolist()) <= {low, low + 1}
    if expected == low:
        assert (counts == low).all()
    else:
        assert stats.binomtest(int((counts == low + 1).sum()), 20_000, expected - low).pvalue > POSSIBLE


@pytest.mark.parametrize("unit", UNITS)
def test_every_row_has_the_rate_of_its_own_time(unit):
    rows = with_progress(rows_of(text(11, 100, V)), np.arange(11) / 10)
    counts = selected(collate(rows, rate=1.0, final_rate=0.1, unit=unit)).sum(axis=1)
    assert counts.tolist() == [100, 91, 82, 73, 64, 55, 46, 37, 28, 19, 10]


def test_a_bernoulli_rate_changes_too():
    rows = with_progress(rows_of(text(2000, 100, V)), np.repeat([0.0, 1.0], 1000))
    for unit in ("token", "word"):
        chosen = selected(collate(rows, rate=0.5, final_rate=0.1, count="bernoulli", unit=unit))
        for half, rate in ((chosen[:1000], 0.5), (chosen[1000:], 0.1)):
            assert stats.binomtest(int(half.sum()), half.size, rate).pvalue > POSSIBLE


def test_a_rate_that_changes_is_announced_and_a_constant_one_needs_no_progress():
    assert build("masked", {"final_rate": 0.1}).scheduled_noise
    objective = build("masked")
    assert not objective.scheduled_noise
    rows = framed(10, 40, V)
    plain = objective.collate(rows, V, keyed(rows))
    assert (objective.collate(with_progress(rows, 0.3), V, keyed(rows)).input_ids == plain.input_ids).all()


@pytest.mark.parametrize("unit", UNITS)
def test_static_masks_come_again_after_as_many_epochs_as_there_are_of_them(unit):
    """Through the loader, as training reads: each row's masks have period k, and k of them differ."""
    k, rows_per_batch = 3, 4
    objective = build("masked", {"static_masks": k, "unit": unit, "rate": 0.3})
    assert objective.noise_period == k
    rng = np.random.default_rng(0)
    split = split_of([rng.choice(V.ordinary, 45).tolist() for _ in range(20)], (rng.random(900) < 0.6).tolist())
    reader = objective.reader(split, V, 32)
    loader = Loader(reader, lambda rows, rng: objective.collate(rows, V, rng), seed=5, copies=objective.noise_period)
    seen = defaultdict(list)
    for epoch in range(3 * k):
        here = {}
        first = epoch * reader.rows_per_pass
        for batch in loader.step(first, reader.rows_per_pass, rows_per_batch):
            for row, ids in enumerate(batch.example_ids.tolist()):
                here[ids] = (batch.input_ids[row].tobytes(), batch.labels[row].tobytes())
        assert sorted(here) == list(range(reader.rows_per_pass))
        for ids, mask in here.items():
            seen[ids].append(mask)
    for masks in seen.values():
        assert len(set(masks[:k])) == k
        assert masks == masks[:k] * 3


def test_dynamic_masks_never_come_again():
    objective = build("masked")
    assert objective.noise_period == 0
    assert not objective.variants(V, 32)[0].restart
    assert build("masked", {"static_masks": 2}).variants(V, 32)[0].restart
    rows = framed(4, 60, V)
    inputs = [
        objective.collate(rows, V, CounterRNG.of(1, epoch, rows.example_ids)).labels.tobytes() for epoch in range(20)
    ]
    assert len(set(inputs)) == 20


def test_the_place_of_a_label_is_the_only_difference_between_here_and_next():
    rows = rows_of(text(50, 40, V))
    tokens = rows.matrix(rows.tokens).copy()
    tokens[:, 0] = V.cls  # so that the same tokens may be hidden
    rows = rows_of(tokens)
    here, following = collate(rows), collate(rows, predict="next")
    assert (here.input_ids == following.input_ids).all()
    assert (here.labels[:, 1:] == following.labels[:, :-1]).all()
    assert (following.labels[:, -1] == IGNORE).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"longest_span": 4}, "ngram"),
        ({"longest_span": 4, "unit": "word"}, "ngram"),
        ({"unit": "span", "count": "bernoulli"}, "exact"),
        ({"unit": "ngram", "count": "bernoulli"}, "exact"),
        ({"unit": "span", "longest_span": 0}, "longest_span"),
        ({"final_rate": 0.0}, "final_rate"),
        ({"final_rate": 1.5}, "final_rate"),
        ({"static_masks": -1}, "static_masks"),
        ({"predict": "previous"}, "here"),
        ({"unit": "sentence"}, "span"),
        ({"mask_share": 0.8, "random_share": 0.3}, "exceed 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_could(options, says):
    with pytest.raises(UserError, match=says):
        build("masked", options)
