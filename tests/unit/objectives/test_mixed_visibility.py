"""Mixed visibility: exact quotas of kinds, each kind as its own objective, and who sees whom.

A test with a p-value would fail by chance once in ten thousand seeds; draws are fixed by their seed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from tests.unit.objectives.hand_rows import keyed, rows_of, take, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.causal import CausalLayout
from pretextlm.objectives.masked import MaskedLayout
from pretextlm.objectives.mixed_visibility import kinds_of, prefix_lengths
from pretextlm.objectives.registry import build

V = vocabulary()
KINDS = ["masked", "causal", "prefix", "right_to_left"]
POSSIBLE = 1e-4
EQUAL = dict.fromkeys(KINDS, 1.0)
SHAPE = {"vocab_size": V.size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def only(kind, **options):
    """The objective with rows of one kind."""
    return build("mixed_visibility", {**dict.fromkeys(KINDS, 0.0), kind: 1.0, **options})


def documents(count, width, seed=0, padded=0):
    """Rows of two documents, <s> … </s> <s> …, the last `padded` rows ending in padding and the very last all of it."""
    tokens = text(count, width, V, seed)
    middle = np.random.default_rng(seed).integers(2, width - 2, count)
    tokens[np.arange(count), middle], tokens[np.arange(count), middle + 1] = V.eos, V.bos
    tokens[:, 0] = V.bos
    segments = (np.arange(width) > middle[:, None]).astype(np.int32)
    for row in range(count - padded, count):
        kept = 0 if row == count - 1 else width * 2 // 3
        tokens[row, kept:], segments[row, kept:] = V.pad, -1
    return rows_of(tokens, segments=segments)


def collate(objective, rows):
    return objective.collate(rows, V, keyed(rows))


def sight(batch):
    """(B, T, T) who sees whom."""
    return may_attend(
        batch.segment_ids,
        batch.segment_ids,
        batch.position_ids,
        batch.position_ids,
        batch.prefix,
        batch.attention,
        batch.rank,
        batch.reach,
    )


@pytest.mark.parametrize(
    ("shares", "block"),
    [((15, 1, 0, 0), 16), ((1, 1, 0, 0), 2), ((2, 1, 2, 1), 6), ((1, 0, 0, 0), 1), ((0.45, 0.3, 0.25, 0), 20)],
)
def test_every_block_of_rows_holds_the_exact_quota_of_each_kind(shares, block):
    kinds = kinds_of(np.arange(block * 500), shares).reshape(500, block)
    expected = np.array(shares) / sum(shares) * block
    for kind in range(4):
        assert ((kinds == kind).sum(axis=1) == round(expected[kind])).all()
    assert block == 1 or len({tuple(row) for row in kinds.tolist()}) > 1  # no fixed pattern
    assert (kinds_of(np.arange(block * 500)[::-1].copy(), shares)[::-1] == kinds.reshape(-1)).all()


def test_kinds_stand_anywhere_in_a_block_equally_often():
    kinds = kinds_of(np.arange(16 * 8000), (15, 1, 0, 0)).reshape(8000, 16)
    assert stats.chisquare((kinds == 1).sum(axis=0)).pvalue > POSSIBLE


def test_a_batch_holds_rows_of_all_kinds_under_one_attention():
    rows = documents(64, 33)
    batch = collate(build("mixed_visibility"), rows)
    causal = (batch.prefix == 0).all(axis=1)
    assert batch.attention == "prefix"
    assert causal.sum() == 4
    assert (batch.prefix[~causal] >= 32).all()
    ranked = collate(build("mixed_visibility", EQUAL), rows)
    assert ranked.attention == "ranked"
    assert ranked.prefix is None
    assert ranked.rank.dtype == ranked.reach.dtype == np.int32


@pytest.mark.parametrize("others", [False, True])  # alone it is a prefix rule, beside right to left a ranked one
@pytest.mark.parametrize("predict", ["here", "next"])
def test_each_kind_sees_what_it_should(predict, others):
    rows = documents(40, 25, padded=3)
    kinds = np.zeros(40, int) if not others else None
    for kind, name in enumerate(KINDS):
        objective = build("mixed_visibility", {**EQUAL, "predict": predict}) if others else only(name, predict=predict)
        batch = collate(objective, rows)
        which = np.flatnonzero((kinds_of(rows.example_ids, (1, 1, 1, 1)) if others else kinds + kind) == kind)
        assert len(which) == (10 if others else 40)
        seen, position = sight(batch)[which], batch.position_ids[which]
        same = batch.segment_ids[which][:, :, None] == batch.segment_ids[which][:, None, :]
        earlier = position[:, None, :] <= position[:, :, None]
        if name == "masked":
            assert (seen == same).all()
        elif name == "causal":
            assert (seen == (same & earlier)).all()
        elif name == "right_to_left":
            assert (seen == (same & (position[:, None, :] >= position[:, :, None]))).all()
        else:
            length = prefix_lengths(batch.segment_ids[which], CounterRNG(keyed(rows).fork(1).keys[which]))
            assert (seen == (same & (earlier | (position < length)[:, None, :]))).all()


def test_a_prefix_is_at_least_one_token_and_leaves_at_least_one_and_is_uniform_between():
    segments = np.repeat([[0] * 6 + [1] * 11 + [2] + [-1] * 2], 20_000, axis=0).astype(np.int32)
    lengths = prefix_lengths(segments, CounterRNG.of(1, 0, np.arange(20_000)))
    assert (lengths[:, :6] == lengths[:, :1]).all()
    assert (lengths[:, 6:17] == lengths[:, 6:7]).all()
    assert (lengths[:, 17] == 1).all()
    assert (lengths[:, 18:] == 0).all()
    for column, longest in ((0, 5), (6, 10)):
        counts = np.bincount(lengths[:, column], minlength=longest + 1)
        assert counts[0] == 0
        assert len(counts) == longest + 1
        assert stats.chisquare(counts[1:]).pvalue > POSSIBLE
    assert stats.chi2_contingency(np.histogram2d(lengths[:, 0], lengths[:, 6], bins=(5, 10))[0]).pvalue > POSSIBLE


def test_masked_rows_are_those_of_masked_next_token_prediction():
    rows = documents(40, 31, padded=2)
    batch = collate(only("masked", rate=0.3), rows)
    shown = take(rows, np.arange(40))
    first = rows_of(
        shown.matrix(shown.tokens)[:, :-1],
        shown.matrix(shown.word_starts)[:, :-1],
        shown.matrix(shown.segment_ids)[:, :-1],
    )
    alone = build("masked", {"predict": "next", "rate": 0.3}).collate(first, V, keyed(rows).fork(0))
    assert (batch.input_ids == alone.input_ids).all()
    assert (batch.labels == alone.labels).all()


def test_causal_rows_are_those_of_causal_language_modelling():
    rows = documents(40, 31, padded=2)
    batch, alone = collate(only("causal"), rows), build("causal").collate(rows, V, keyed(rows))
    for field in ("input_ids", "labels", "segment_ids", "position_ids"):
        assert (getattr(batch, field) == getattr(alone, field)).all()


def test_prefix_rows_predict_from_the_last_token_of_the_prefix_on():
    rows = documents(60, 31, padded=2)
    batch, causal = collate(only("prefix"), rows), collate(only("causal"), rows)
    assert (batch.input_ids == causal.input_ids).all()
    after = batch.position_ids >= batch.prefix - 1
    assert (batch.labels[after] == causal.labels[after]).all()
    assert (batch.labels[~after] == IGNORE).all()
    assert ((batch.labels != IGNORE) & (batch.position_ids == batch.prefix - 1)).any()


def test_right_to_left_rows_predict_the_token_before():
    rows = documents(60, 31, padded=2)
    tokens, batch = rows.matrix(rows.tokens), collate(only("right_to_left"), rows)
    inside = np.zeros_like(batch.labels, bool)
    inside[:, 1:] = (batch.segment_ids[:, 1:] == batch.segment_ids[:, :-1]) & (batch.segment_ids[:, 1:] >= 0)
    assert (batch.labels[:, 1:][inside[:, 1:]] == tokens[:, :-2][inside[:, 1:]]).all()
    assert (batch.labels[~inside] == IGNORE).all()
    assert (batch.input_ids == tokens[:, :-1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_place_sees_the_token_it_predicts(kind):
    """But for masked rows, where the token is hidden: here all of it, so the text is nowhere in the input."""
    width = 24
    tokens = np.arange(30, 30 + 10 * width).reshape(10, width)  # every token is unique
    objective = only(kind, mask_share=1.0, random_share=0.0, rate=0.4)
    batch = objective.collate(rows_of(tokens), V, keyed(rows_of(tokens)))
    seen = sight(batch)
    for row, place in zip(*np.nonzero(batch.labels != IGNORE), strict=True):
        assert batch.labels[row, place] not in batch.input_ids[row][seen[row, place]]


def test_in_the_style_of_unilm_all_kinds_hide_the_same_tokens_and_predict_them_in_place():
    rows = documents(60, 40, padded=2)
    alone = build("masked", {"rate": 0.3}).collate(rows, V, keyed(rows).fork(0))
    options = {"masked": 2.0, "prefix": 2.0, "causal": 1.0, "right_to_left": 1.0}
    batch = collate(build("mixed_visibility", {**options, "predict": "here", "rate": 0.3}), rows)
    assert (batch.labels == alone.labels).all()
    assert (batch.input_ids == alone.input_ids).all()
    assert batch.attention == "ranked"
    prefix = kinds_of(rows.example_ids, (2, 1, 2, 1)) == 2
    inside = (batch.rank == -1)[prefix]
    hidden = (batch.labels != IGNORE)[prefix]
    assert (hidden & inside).any()  # tokens of both parts are hidden, as in the paper
    assert (hidden & ~inside).any()


def test_rows_read_one_token_more_where_next_ones_are_predicted():
    (variant,) = build("mixed_visibility").variants(V, 32)
    assert (variant.raw, variant.length, variant.overlap, variant.restart) == (33, 32, 1, False)
    (variant,) = build("mixed_visibility", {"predict": "here", "static_masks": 2}).variants(V, 32)
    assert (variant.raw, variant.length, variant.overlap, variant.restart) == (31, 32, 0, True)
    assert build("mixed_visibility", {"static_masks": 2}).noise_period == 2
    assert build("mixed_visibility", {"rate": 0.3, "final_rate": 0.15}).scheduled_noise


def test_frames_are_those_of_the_two_styles():
    frame = build("mixed_visibility").frame(V)
    assert (frame.begin, frame.end, frame.lead) == (V.bos, V.eos, None)
    frame = build("mixed_visibility", {"predict": "here"}).frame(V)
    assert (frame.begin, frame.end, frame.lead) == (None, V.sep, V.cls)


def test_how_blanks_are_filled_depends_on_what_the_rows_taught():
    assert isinstance(build("mixed_visibility").blank_layout(V, "decoder"), MaskedLayout)
    assert isinstance(only("masked").blank_layout(V, "decoder"), MaskedLayout)
    assert isinstance(build("mixed_visibility", {"masked": 1, "causal": 2}).blank_layout(V, "decoder"), CausalLayout)
    assert isinstance(only("prefix").blank_layout(V, "decoder"), CausalLayout)
    assert only("right_to_left").blank_layout(V, "decoder") is None
    assert isinstance(build("mixed_visibility", {"predict": "here"}).blank_layout(V, "decoder"), MaskedLayout)


@pytest.mark.parametrize("predict", ["here", "next"])
def test_a_row_comes_out_the_same_alone_or_in_any_batch(predict):
    rows = documents(30, 30)
    objective = build("mixed_visibility", {**EQUAL, "predict": predict})
    whole = collate(objective, rows)
    for which in (np.array([5]), np.arange(30)[::-1].copy(), np.array([3, 17, 4])):
        some = collate(objective, take(rows, which))
        for field in ("input_ids", "labels", "rank", "reach"):
            assert (getattr(some, field) == getattr(whole, field)[which]).all()


def test_no_input_is_changed():
    rows = documents(20, 30)
    before = {f.name: np.copy(getattr(rows, f.name)) for f in dataclasses.fields(rows) if f.name.endswith("s")}
    for array in vars(rows).values():
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    collate(build("mixed_visibility", EQUAL), rows)
    assert (rows.tokens == before["tokens"]).all()


@pytest.mark.parametrize("architecture", ["decoder", "encoder"])
def test_the_loss_is_one_sum_over_the_targets_of_all_kinds(architecture):
    """Rows of all kinds together cost what each costs with rows of its kind alone."""
    rows = documents(16, 25, padded=2)
    objective = build("mixed_visibility", EQUAL)
    torch.manual_seed(0)
    config = ModelConfig.parse({**SHAPE, "architecture": architecture})
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)

    def total(batch):
        outputs = model(prepare(batch, config, torch.device("cpu"), torch.float32))
        (term,) = objective.terms(outputs, batch).values()
        assert term.count == objective.counts(batch)["lm"]
        return float(term.total.detach()), term.count

    whole = collate(objective, rows)
    kinds = kinds_of(rows.example_ids, (1, 1, 1, 1))
    sums = []
    for kind in range(4):
        which = np.flatnonzero(kinds == kind)
        sums.append(total(whole.map(lambda array, which=which: array[which])))
    together = total(whole)
    assert together[1] == sum(count for _, count in sums)
    assert together[0] == pytest.approx(sum(value for value, _ in sums), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict.fromkeys(KINDS, 0.0), "must be above 0"),
        ({"causal": -1.0}, "causal"),
        ({"rate": 0.0}, "rate"),
        ({"predict": "before"}, "here"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        build("mixed_visibility", options)


def test_a_row_too_short_is_refused():
    with pytest.raises(UserError, match="have no token to hide"):
        build("mixed_visibility").variants(V, 1)
