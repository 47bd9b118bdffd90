"""The word structural objective: which trigrams are shuffled, how many, in what order, and what is predicted.

A test with a p-value would fail by chance once in ten thousand seeds; draws are fixed by their seed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, selected, text, vocabulary
from torch.nn import functional

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.token_selection import RandomOrder
from pretextlm.objectives.word_structure import HIDE, ORDERS, PLACES

V = vocabulary()
POSSIBLE = 1e-4
SHAPE = ModelConfig.parse(
    {
        "architecture": "encoder",
        "vocab_size": V.size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
)


def collate(rows, seed=1, **options):
    return build("word_structure", options).collate(rows, V, keyed(rows, seed))


def shuffled(batch):
    return batch.shuffled_labels != IGNORE


def trigrams(batch, row):
    """First columns of a row's shuffled trigrams: three labelled places each, from left to right."""
    places = np.flatnonzero(shuffled(batch)[row])
    assert len(places) % 3 == 0
    starts = places[::3]
    assert (places.reshape(-1, 3) == starts[:, None] + np.arange(3)).all()
    return starts


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_shuffled_places_are_visible_ordinary_tokens_and_their_labels_the_originals(share):
    rows = framed(200, 60, V)
    batch, tokens = collate(rows, share=share), rows.matrix(rows.tokens)
    where = shuffled(batch)
    assert where.any()
    assert (batch.shuffled_labels[where] == tokens[where]).all()
    assert not (where & selected(batch)).any()
    assert not V.is_special[tokens[where]].any()
    untouched = ~where & ~selected(batch)
    assert (batch.input_ids[untouched] == tokens[untouched]).all()


def test_every_trigram_holds_its_own_three_tokens_and_lies_in_one_document():
    segments = np.repeat([[0] * 13 + [1] * 17], 300, axis=0)  # no special token between the two
    rows = rows_of(text(300, 30, V), segments=segments)
    batch, tokens = collate(rows, share=0.6), rows.matrix(rows.tokens)
    for row in range(300):
        for start in trigrams(batch, row):
            assert sorted(batch.input_ids[row, start : start + 3]) == sorted(tokens[row, start : start + 3])
            assert segments[row, start] == segments[row, start + 2]


def test_the_source_can_be_recovered():
    rows = framed(50, 60, V)
    batch = collate(rows, share=0.5)
    text_again = np.where(selected(batch), batch.labels, batch.input_ids)
    text_again = np.where(shuffled(batch), batch.shuffled_labels, text_again)
    assert (text_again == rows.matrix(rows.tokens)).all()


def test_masks_are_those_of_the_inner_objective():
    rows = framed(50, 60, V)
    batch = collate(rows, inner={"name": "masked", "unit": "word", "rate": 0.3})
    alone = build("masked", {"unit": "word", "rate": 0.3}).collate(rows, V, keyed(rows).fork(HIDE))
    assert (batch.labels == alone.labels).all()
    assert (batch.input_ids[~shuffled(batch)] == alone.input_ids[~shuffled(batch)]).all()


def test_the_number_of_trigrams_is_the_share_rounded_up_or_down_and_exact_on_average():
    rows = rows_of(text(20_000, 80, V))  # 12 hidden, 68 visible: 0.05 · 68 / 3 = 1.1333
    batch = collate(rows)
    counts = shuffled(batch).sum(axis=1) // 3
    assert set(counts.tolist()) == {1, 2}
    assert stats.binomtest(int((counts == 2).sum()), 20_000, 0.05 * 68 / 3 - 1).pvalue > POSSIBLE


def test_where_hidden_tokens_leave_less_room_every_free_place_is_used_or_cut_off():
    rows = framed(100, 60, V)
    batch, tokens = collate(rows, share=1.0), rows.matrix(rows.tokens)
    free = ~selected(batch) & ~V.is_special[tokens] & ~shuffled(batch)
    segments = batch.segment_ids
    for row in range(100):
        for t in range(58):
            assert not (free[row, t : t + 3].all() and len(set(segments[row, t : t + 3])) == 1)


def by_loop(batch, rows, row, wanted, rng):
    """[(start, order)] of one row: windows of three visible tokens of a document, drawn in turns."""
    visible = ~selected(batch)[row] & ~V.is_special[rows.matrix(rows.tokens)[row]]
    segments = batch.segment_ids[row]
    starts = [
        t for t in range(rows.width - 2) if visible[t : t + 3].all() and len(set(segments[t : t + 3].tolist())) == 1
    ]
    order, taken, found = RandomOrder(rng, np.array([len(starts)])), set(), []
    for _ in starts:
        if len(found) == wanted:
            break
        (number,), (chance,) = order.next(np.array([0]))
        places = {starts[number] + i for i in range(3)}
        if not places & taken:
            taken |= places
            found.append((starts[number], int(chance) * 6 >> 32))
    return sorted(found)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_trigrams_in_turns_equal_the_loop_over_them(share):
    rows = framed(40, 50, V)
    batch, tokens, rng = collate(rows, share=share), rows.matrix(rows.tokens), keyed(rows)
    visible = (~selected(batch) & ~V.is_special[tokens]).sum(axis=1)
    wanted = np.floor(share * visible / 3 + rng.uniform(1, 1)[:, 0]).astype(int)
    for row in range(40):
        alone = CounterRNG(rng.keys[row : row + 1]).fork(PLACES)
        found = by_loop(batch, rows, row, wanted[row], alone)
        assert trigrams(batch, row).tolist() == [start for start, _ in found]
        for start, order in found:
            assert batch.input_ids[row, start : start + 3].tolist() == tokens[row, start + ORDERS[order]].tolist()


def test_all_six_orders_are_equally_likely():
    tokens = np.tile(np.arange(30, 90), (3000, 1))
    batch = collate(rows_of(tokens), share=0.3)
    row, place = np.nonzero(shuffled(batch))
    row, start = row[::3], place[::3]
    found = batch.input_ids[row[:, None], start[:, None] + np.arange(3)] - tokens[row, start][:, None]
    codes = {tuple(order): i for i, order in enumerate(ORDERS.tolist())}
    counts = np.bincount([codes[tuple(order)] for order in found.tolist()], minlength=6)
    assert len(codes) == 6
    assert stats.chisquare(counts).pvalue > POSSIBLE


def test_the_first_trigram_begins_anywhere_equally_often():
    rows = rows_of(text(30_000, 12, V))
    inner = {
        "name": "masked",
        "rate": 0.001,
        "mask_share": 0.0,
        "random_share": 0.0,
    }  # hides one token: the same for all
    batch = collate(rows, share=0.2, inner=inner)
    one = shuffled(batch).sum(axis=1) == 3
    kept = np.flatnonzero(one & selected(batch)[:, 0])
    counts = np.bincount(np.argmax(shuffled(batch)[kept], axis=1), minlength=10)
    assert counts[0] == 0  # the first token is the hidden one
    assert stats.chisquare(counts[1:10]).pvalue > POSSIBLE


def test_padding_has_no_part_in_it_and_short_rows_work():
    tokens = text(4, 20, V)
    segments = np.zeros((4, 20), np.int32)
    for row, kept in enumerate((20, 7, 2, 0)):
        tokens[row, kept:], segments[row, kept:] = V.pad, -1
    batch = collate(rows_of(tokens, segments=segments), share=1.0)
    assert not shuffled(batch)[segments < 0].any()
    assert (batch.input_ids[segments < 0] == V.pad).all()
    assert not shuffled(batch)[2:].any()
    for width in (1, 2, 3):
        assert collate(rows_of(text(2, width, V)), share=1.0).shuffled_labels.shape == (2, width)


def test_arrays_are_int32_and_contiguous():
    batch = collate(framed(5, 40, V))
    for array in (batch.input_ids, batch.labels, batch.shuffled_labels):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous


def test_terms_are_two_sums_each_over_its_own_targets():
    rows = framed(6, 50, V)
    objective = build("word_structure", {"share": 0.3, "weight": 0.5})
    batch = objective.collate(rows, V, keyed(rows))
    model = Transformer(SHAPE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    outputs = model(prepare(batch, SHAPE, torch.device("cpu"), torch.float32))
    terms = objective.terms(outputs, batch)
    assert {name: term.count for name, term in terms.items()} == objective.counts(batch)
    assert terms["order"].coefficient == 0.5
    for name, labels in (("lm", batch.labels), ("order", batch.shuffled_labels)):
        logits = outputs.hidden_BTD.flatten(0, 1) @ model.embed_tokens.weight.T
        target = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        expected = functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
        assert float(terms[name].total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_batch_without_trigrams_is_zero_of_zero():
    rows = rows_of(np.array([[V.cls, 30, V.sep]]))
    objective, model = build("word_structure"), Transformer(SHAPE)
    batch = objective.collate(rows, V, keyed(rows))
    terms = objective.terms(model(prepare(batch, SHAPE, torch.device("cpu"), torch.float32)), batch)
    assert (float(terms["order"].total.detach()), terms["order"].count) == (0.0, 0)
    (terms["lm"].total + terms["order"].total).backward()


def test_what_the_inner_objective_asks_for_is_asked_for():
    objective = build("word_structure", {"inner": {"name": "masked", "static_masks": 4, "final_rate": 0.3}})
    assert objective.noise_period == 4
    assert objective.scheduled_noise
    assert objective.variants(V, 32)[0].restart
    assert objective.frame(V) == build("masked").frame(V)


def test_the_cost_counts_the_head_at_both_kinds_of_targets():
    rows = framed(4, 50, V)
    objective = build("word_structure")
    batch = objective.collate(rows, V, keyed(rows))
    plain = build("masked").flops(SHAPE, batch)
    assert objective.flops(SHAPE, batch) == pytest.approx(plain + 6.0 * V.size * 32 * objective.counts(batch)["order"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"inner": {"name": "causal"}}, "masked"),
        ({"inner": {"name": "masked", "predict": "next"}}, "here"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"weight": 0.0}, "weight"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        build("word_structure", options)


def test_a_row_without_room_for_a_trigram_is_refused():
    with pytest.raises(UserError, match="no room"):
        build("word_structure").variants(V, 3)
