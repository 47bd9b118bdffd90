"""Permutation language modelling: exact counts, an even chance for every token, and XLNet's two streams as a layout."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.builders import make_model
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, take, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.model.attention import AttentionMask, attend
from pretextlm.model.model_inputs import prepare
from pretextlm.model.norm import rms_norm
from pretextlm.model.rotary import RotaryAngles, apply_rotary
from pretextlm.objectives.registry import build

V = vocabulary()
CPU = torch.device("cpu")
POSSIBLE = 1e-4
"""A test of chance fails by chance in one of ten thousand seeds; the seeds are fixed."""


def collate(rows, epoch=0, **options):
    return build("permutation", options).collate(rows, V, keyed(rows, epoch=epoch))


def one_document(rows, width, seed=0):
    tokens = text(rows, width, V, seed)
    tokens[:, 0] = V.cls
    return rows_of(tokens)


def targets_of(batch, width):
    """(B, width) True for the tokens of the content part that are predicted."""
    return batch.rank[:, :width] > 0


def sights(batch):
    """(B, T, T) who sees whom."""
    return may_attend(
        batch.segment_ids, batch.segment_ids, attention="ranked", key_ranks=batch.rank, query_reach=batch.reach
    )


@pytest.mark.parametrize(("length", "tokens", "targets"), [(512, 439, 73), (128, 110, 18), (64, 55, 9), (3, 2, 1)])
def test_a_row_is_filled_by_tokens_and_a_query_for_a_sixth_of_them(length, tokens, targets):
    (variant,) = build("permutation").variants(V, length)
    assert (variant.raw, variant.length, variant.decoder_length) == (tokens - 1, length, 0)
    rows = one_document(4, tokens)
    batch = collate(rows)
    assert batch.input_ids.shape == (4, length)
    assert ((batch.labels != IGNORE).sum(axis=1) == targets).all()
    assert not (batch.input_ids == V.pad).any()
    assert (batch.segment_ids >= 0).all()


@given(st.integers(3, 700), st.floats(0.001, 0.5))
def test_no_longer_row_would_fit(length, rate):
    objective = build("permutation", {"rate": rate})
    (variant,) = objective.variants(V, length)
    tokens = variant.raw + 1
    assert tokens + int(objective.num_targets(tokens)) == variant.length <= length
    assert tokens + 1 + int(objective.num_targets(tokens + 1)) > length


def test_a_row_is_as_the_docstring_shows():
    tokens = np.array([[V.cls, 107, 108, 109, 104, 105, 106]] * 400)
    batch = collate(rows_of(tokens), rate=2 / 7)
    assert batch.attention == "ranked"
    found = [i for i in range(400) if batch.rank[i, :7].tolist() == [0, 0, 2, 0, 0, 1, 0]]
    assert found
    for i in found:
        assert batch.input_ids[i].tolist() == [*tokens[0], V.mask, V.mask]
        assert batch.position_ids[i].tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 5]
        assert batch.reach[i].tolist() == [0, 0, 2, 0, 0, 1, 0, 1, 0]
        assert batch.labels[i].tolist() == [IGNORE] * 7 + [108, 105]
        assert (batch.rank[i, 7:] > batch.reach[i].max()).all()


@given(st.integers(5, 60), st.floats(0.01, 0.5), st.integers(1, 8), st.integers(0, 50))
def test_input_and_labels_hold_the_text_and_queries_stand_where_their_tokens_do(width, rate, longest, seed):
    rows = framed(6, width, V, seed)
    batch = collate(rows, rate=rate, longest_span=longest)
    tokens, segments, positions = (rows.matrix(a) for a in (rows.tokens, rows.segment_ids, rows.position_ids))
    assert (batch.input_ids[:, :width] == tokens).all()
    assert (batch.segment_ids[:, :width] == segments).all()
    assert (batch.position_ids[:, :width] == positions).all()
    assert (batch.labels[:, :width] == IGNORE).all()
    for row in range(6):
        columns = np.flatnonzero(batch.rank[row, :width])
        queries = slice(width, width + len(columns))
        assert batch.labels[row, queries].tolist() == tokens[row, columns].tolist()
        assert batch.position_ids[row, queries].tolist() == positions[row, columns].tolist()
        assert batch.segment_ids[row, queries].tolist() == segments[row, columns].tolist()
        assert (batch.input_ids[row, queries] == V.mask).all()
        ranks = batch.rank[row, columns]
        assert sorted(ranks) == list(range(1, len(columns) + 1))
        assert batch.reach[row, queries].tolist() == (ranks - 1).tolist()
        rest = slice(width + len(columns), None)
        assert (batch.segment_ids[row, rest] == -1).all()
        assert (batch.labels[row, rest] == IGNORE).all()


@given(st.integers(5, 60), st.floats(0.01, 0.5), st.integers(1, 8), st.integers(0, 50))
def test_the_number_of_targets_is_the_rule_and_none_is_special_or_the_first_of_its_document(width, rate, longest, seed):
    rows = framed(6, width, V, seed)
    chosen = targets_of(collate(rows, rate=rate, longest_span=longest), width)
    free = ~V.is_special[rows.matrix(rows.tokens)] & (rows.matrix(rows.position_ids) > 0)
    assert not (chosen & ~free).any()
    assert (chosen.sum(axis=1) == np.minimum(max(1, round(rate * width)), free.sum(axis=1))).all()


def slow_targets(free, count, longest, draws, turn):
    """The same choice for one row, one span after another."""
    places = np.flatnonzero(free)
    weights = 1 / np.arange(1, longest + 1)
    limits = [int(part * 2**32) for part in np.cumsum(weights)[:-1] / weights.sum()]
    chosen, taken = set(), 0
    for draw in draws:
        if taken == count:
            break
        length = min(1 + sum(int(draw) >> 32 >= limit for limit in limits), count - taken)
        begin, end = taken * len(places) // count, (taken + length) * len(places) // count
        start = begin + ((int(draw) & 0xFFFFFFFF) * (end - begin - length + 1) >> 32)
        shift = (int(turn) >> 32) * len(places) >> 32
        chosen |= {int(places[(start + i + shift) % len(places)]) for i in range(length)}
        taken += length
    return chosen


@pytest.mark.parametrize(("rate", "longest"), [(1 / 6, 5), (0.5, 3), (0.3, 12)])
def test_the_choice_equals_a_loop_over_spans(rate, longest):
    rows = framed(50, 44, V, 3)
    objective = build("permutation", {"rate": rate, "longest_span": longest})
    chosen = targets_of(objective.collate(rows, V, keyed(rows)), 44)
    free = ~V.is_special[rows.matrix(rows.tokens)] & (rows.matrix(rows.position_ids) > 0)
    draws, turns = keyed(rows).bits(0, int(objective.num_targets(44))), keyed(rows).bits(1, 1)[:, 0]
    for row in range(50):
        count = int(chosen[row].sum())
        assert slow_targets(free[row], count, longest, draws[row], turns[row]) == set(np.flatnonzero(chosen[row]))


def test_every_token_has_the_same_chance():
    width = 40
    rows = one_document(24_000, width)
    chosen = targets_of(collate(rows), width)[:, 1:]
    # Positions of a row depend on each other, so the spread is judged on single positions, each a binomial count.
    p = 7 / 39
    z = (chosen.sum(axis=0) - 24_000 * p) / np.sqrt(24_000 * p * (1 - p))
    assert np.abs(z).max() < stats.norm.isf(POSSIBLE / 2 / 39)


def spans(count, size, targets):
    """Starts and lengths in rows of `size` free tokens, before they are turned round the ring."""
    sizes, counts = np.full(count, size), np.full(count, targets)
    return build("permutation")._spans(sizes, counts, targets, CounterRNG.of(1, 0, np.arange(count)))


def test_span_lengths_have_chances_in_proportion_to_one_over_n():
    _, lengths = spans(20_000, 120, 20)
    assert (lengths.sum(axis=1) == 20).all()
    for nth in (0, 1, 2):  # never cut: three spans cover fifteen tokens at most
        seen = np.bincount(lengths[:, nth], minlength=6)
        assert seen[0] == 0
        assert stats.chisquare(seen[1:], 20_000 * np.array([60, 30, 20, 15, 12]) / 137).pvalue > POSSIBLE


def test_a_span_stands_anywhere_in_a_context_of_six_times_its_length():
    starts, lengths = spans(20_000, 120, 20)
    for length in (1, 3, 5):
        first = starts[lengths[:, 0] == length, 0]
        seen = np.bincount(first)
        assert len(seen) == 5 * length + 1
        assert stats.chisquare(seen).pvalue > POSSIBLE
    ends = np.cumsum(lengths, axis=1)
    used = lengths > 0
    assert (starts >= 6 * (ends - lengths))[used].all()
    assert (starts + lengths <= 6 * ends)[used].all()


def test_the_order_is_uniform_over_all_orders():
    rows = one_document(24_000, 25)
    batch = collate(rows)  # four targets a row
    ranks = batch.rank[:, :25][targets_of(batch, 25)].reshape(-1, 4)
    seen = Counter(map(tuple, ranks.tolist()))
    assert set(seen) == set(permutations((1, 2, 3, 4)))
    assert stats.chisquare(list(seen.values())).pvalue > POSSIBLE


def test_what_is_only_read_sees_no_target_and_targets_see_those_before_them():
    width = 44
    batch = collate(framed(30, width, V, 5), rate=0.3)
    seen = sights(batch)
    rank, segments = batch.rank[:, :width], batch.segment_ids
    same = segments[:, :, None] == segments[:, None, :]
    assert not seen[:, :, width:][
        segments[:, :, None].repeat(seen.shape[2] - width, 2) >= 0
    ].any()  # nobody sees a query
    content = seen[:, :width, :width]
    assert (content == same[:, :width, :width] & (rank[:, None, :] <= rank[:, :, None])).all()
    for row in range(30):
        for column in np.flatnonzero(batch.labels[row] != IGNORE):
            own = np.flatnonzero(batch.position_ids[row, :width] == batch.position_ids[row, column])
            (place,) = own[segments[row, own] == segments[row, column]]
            assert (
                seen[row, column, :width].tolist()
                == (same[row, column, :width] & (rank[row] < rank[row, place])).tolist()
            )


def test_every_position_sees_something_even_in_documents_of_one_token():
    tokens = text(4, 30, V)
    segments = np.tile(np.arange(30) // 2, (4, 1))
    segments[1] = np.arange(30)  # nothing can be predicted
    segments[2] = 0
    tokens[3] = V.pad
    segments[3] = -1
    batch = collate(rows_of(tokens, segments=segments), rate=0.5)
    assert sights(batch).any(axis=2).all()
    assert (batch.labels != IGNORE).sum(axis=1).tolist() == [15, 0, 15, 0]


def test_padding_is_never_seen_predicted_or_counted():
    width = 36
    tokens, lengths = text(6, width, V), np.array([36, 20, 7, 2, 1, 0])
    tokens[:, 0] = V.cls
    padding = np.arange(width) >= lengths[:, None]
    tokens[padding] = V.pad
    batch = collate(rows_of(tokens, segments=np.where(padding, -1, 0)))
    assert (batch.labels != IGNORE).sum(axis=1).tolist() == [6, 3, 1, 1, 0, 0]
    seen = sights(batch)
    real = batch.segment_ids >= 0
    assert not (seen & real[:, :, None] & ~real[:, None, :]).any()
    assert seen.any(axis=2).all()
    assert build("permutation").counts(batch) == {"lm": 11}


def test_a_row_is_the_same_alone_and_in_any_batch():
    rows = framed(20, 44, V)
    whole = collate(rows)
    for which in (np.array([7]), np.arange(20)[::-1].copy()):
        part = collate(take(rows, which))
        for field in ("input_ids", "labels", "segment_ids", "position_ids", "rank", "reach"):
            assert (getattr(part, field) == getattr(whole, field)[which]).all(), field
            assert getattr(part, field).dtype == np.int32
            assert getattr(part, field).flags.c_contiguous


def model_and_batch():
    rows = framed(3, 26, V, 9)
    batch = collate(rows, rate=0.25)
    return make_model(architecture="encoder", vocab_size=V.size), batch


def logits(model, batch):
    """(B, T, V) of all positions."""
    everything = np.zeros_like(batch.input_ids)
    with torch.no_grad():
        outputs = model(prepare(replace(batch, labels=everything), model.config, CPU, torch.float32))
        return model.logits(outputs.hidden_BTD)


def test_changing_a_target_changes_only_what_comes_after_it():
    model, batch = model_and_batch()
    width, before = 26, logits(model, batch)
    for place in np.flatnonzero(batch.rank[0, :width]):
        ids = batch.input_ids.copy()
        ids[0, place] = V.ordinary[(np.searchsorted(V.ordinary, ids[0, place]) + 7) % len(V.ordinary)]
        after = logits(model, replace(batch, input_ids=ids))
        rank, segment = batch.rank[0, place], batch.segment_ids[0, place]
        may = (batch.reach[0] >= rank) & (batch.segment_ids[0] == segment)
        changed = (after[0] - before[0]).abs().amax(dim=1).numpy() > 1e-7
        assert (changed == may).all()
        assert torch.equal(after[1:], before[1:])


def test_changing_a_query_changes_nothing_but_itself():
    model, batch = model_and_batch()
    before = logits(model, batch)
    for column in np.flatnonzero(batch.labels[0] != IGNORE):
        ids = batch.input_ids.copy()
        ids[0, column] = V.unk
        changed = (logits(model, replace(batch, input_ids=ids))[0] - before[0]).abs().amax(dim=1).numpy() > 1e-7
        assert np.flatnonzero(changed).tolist() == [column]


def test_a_query_answers_as_if_it_stood_alone_in_a_row_of_what_it_may_see():
    """One run per target: later targets are taken out of the row, and so are all other queries."""
    model, batch = model_and_batch()
    together, width = logits(model, batch), 26
    for column in np.flatnonzero(batch.labels[1] != IGNORE):
        keep = (batch.segment_ids[1] == batch.segment_ids[1, column]) & (batch.rank[1] <= batch.reach[1, column])
        assert not keep[width:].any()
        keep[column] = True
        names = ("input_ids", "segment_ids", "position_ids", "rank", "reach")
        alone = replace(batch, **{name: getattr(batch, name)[1:2, keep] for name in names}, labels=None)
        torch.testing.assert_close(logits(model, alone)[0, -1], together[1, column], atol=1e-5, rtol=1e-5)


def test_what_is_only_read_is_encoded_as_a_bidirectional_row_without_the_targets():
    model, _ = model_and_batch()
    batch = collate(one_document(1, 12), rate=0.25)
    keep = batch.rank[0] == 0
    names = ("input_ids", "segment_ids", "position_ids")
    read = replace(batch, **{name: getattr(batch, name)[:, keep] for name in names}, attention="bidirectional")
    torch.testing.assert_close(logits(model, batch)[0, keep], logits(model, read)[0], atol=1e-5, rtol=1e-5)


def test_the_layout_equals_two_streams_of_attention():
    """XLNet's own form: every layer updates content from content and queries from content, by the same weights."""
    model, batch = model_and_batch()
    width, eps = 26, model.config.norm.eps
    inputs = prepare(batch, model.config, CPU, torch.float32)
    used = torch.tensor(batch.labels[:, width:] != IGNORE)

    def angles(part):
        return RotaryAngles(inputs.tokens.angles.cos[:, part], inputs.tokens.angles.sin[:, part])

    def mask(seen):
        return AttentionMask(torch.where(seen, 0.0, float("-inf"))[:, None])

    segments, rank = torch.tensor(batch.segment_ids), torch.tensor(batch.rank[:, :width])
    same = segments[:, :, None] == segments[:, None, :width]
    place = torch.zeros(used.shape, dtype=torch.long)
    place[used] = (rank > 0).nonzero()[:, 1]
    order = rank.gather(1, place)
    content, queries = slice(None, width), slice(width, None)
    of_content = mask(same[:, content] & (rank[:, None, :] <= rank[:, :, None]))
    of_queries = mask(same[:, queries] & (rank[:, None, :] < order[:, :, None]))
    h = model.embed(dataclasses.replace(inputs.tokens, input_ids=inputs.tokens.input_ids[:, content]), torch.float32)
    g = model.embed(dataclasses.replace(inputs.tokens, input_ids=torch.full(used.shape, V.mask)), torch.float32)
    with torch.no_grad():
        for block in model.encoder:
            attention, read = block.self_attn, rms_norm(h, eps)
            keys = apply_rotary(rms_norm(attention.split_heads(attention.k_proj(read)), eps), angles(content))
            values = attention.split_heads(attention.v_proj(read))
            streams = []
            for x, part, seen in ((h, content, of_content), (g, queries, of_queries)):
                asked = apply_rotary(
                    rms_norm(attention.split_heads(attention.q_proj(rms_norm(x, eps))), eps), angles(part)
                )
                x = x + attention.o_proj(attend(asked, keys, values, seen).flatten(2))
                streams.append(x + block.mlp(rms_norm(x, eps)))
            h, g = streams
        two = model.logits(rms_norm(g, eps))
    torch.testing.assert_close(two[used], logits(model, batch)[:, queries][used], atol=1e-4, rtol=1e-4)


def test_the_loss_of_rows_without_a_target_is_zero_and_gradients_are_numbers():
    model = make_model(architecture="encoder", vocab_size=V.size)
    tokens = text(2, 20, V)
    segments = np.stack([np.arange(20), np.full(20, -1)])
    batch = collate(rows_of(tokens, segments=segments))
    (term,) = build("permutation").terms(model(prepare(batch, model.config, CPU, torch.float32)), batch).values()
    assert (term.total.item(), term.count) == (0.0, 0)
    term.total.backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_rows_and_rates_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="no room for"):
        build("permutation").variants(V, 2)
    for options in ({"rate": 0.0}, {"rate": 0.6}, {"longest_span": 0}, {"spans": 3}):
        with pytest.raises(UserError):
            build("permutation", options)


def test_rows_begin_with_cls_and_documents_end_with_sep():
    frame = build("permutation").frame(V)
    assert (frame.begin, frame.end, frame.lead) == (None, V.sep, V.cls)
