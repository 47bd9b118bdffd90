"""The span-boundary objective: the neighbours of each span, the head, and a loss that reads nothing but them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, selected, text, vocabulary
from torch import nn
from torch.nn import functional

from pretextlm.batch import IGNORE
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.heads import SpanBoundaryHead
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import build
from pretextlm.objectives.span_boundary import LONGEST_TARGET, POSITION_SIZE, boundaries

V = vocabulary()
SHAPE = ModelConfig.parse(
    {
        "architecture": "encoder",
        "vocab_size": V.size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
)


def collate(rows, **options):
    return build("span_boundary", options).collate(rows, V, keyed(rows))


def by_loop(hidden, special, segments):
    """left and right of one row, position by position."""
    width = len(hidden)
    left, right = np.full(width, IGNORE), np.full(width, IGNORE)
    t = 0
    while t < width:
        if not hidden[t]:
            t += 1
            continue
        stop = t
        while stop < width and hidden[stop] and segments[stop] == segments[t]:
            stop += 1
        beside = [p for p in (t - 1, stop) if 0 <= p < width and not special[p] and segments[p] == segments[t]]
        if len(beside) == 2:
            for place in range(t, min(stop, t + LONGEST_TARGET)):
                left[place], right[place] = beside
        t = stop
    return left, right


def model_of(seed=0):
    """Every matrix random, so that no zero hides a path."""
    model = Transformer(SHAPE, build("span_boundary").heads(SHAPE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def outputs_of(model, batch):
    return model(prepare(batch, SHAPE, torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("unit", ["span", "ngram", "word"])
def test_neighbours_equal_the_loop_over_positions(unit, rate):
    rows = framed(60, 90, V)
    batch = collate(rows, unit=unit, rate=rate)
    special, hidden = V.is_special[rows.matrix(rows.tokens)], selected(batch)
    for row in range(60):
        left, right = by_loop(hidden[row], special[row], batch.segment_ids[row])
        assert batch.left[row].tolist() == left.tolist()
        assert batch.right[row].tolist() == right.tolist()


def test_neighbours_are_visible_ordinary_tokens_of_the_same_document():
    rows = framed(200, 60, V)
    batch = collate(rows, rate=0.4)
    hidden, tokens = selected(batch), rows.matrix(rows.tokens)
    row, place = np.nonzero(batch.left != IGNORE)
    for beside in (batch.left[row, place], batch.right[row, place]):
        assert not hidden[row, beside].any()
        assert not V.is_special[tokens[row, beside]].any()
        assert (batch.segment_ids[row, beside] == batch.segment_ids[row, place]).all()
        assert (batch.input_ids[row, beside] == tokens[row, beside]).all()
    assert hidden[row, place].all()
    assert ((batch.left == IGNORE) == (batch.right == IGNORE)).all()


def test_the_example_of_the_docstring():
    tokens = np.array([[V.cls, 31, 32, 33, 34, 35, 36, V.sep]])
    left, right = boundaries(np.array([3, 4]), V.is_special[tokens.reshape(-1)], rows_of(tokens))
    assert left.tolist() == [IGNORE] * 3 + [2, 2] + [IGNORE] * 3
    assert right.tolist() == [IGNORE] * 3 + [5, 5] + [IGNORE] * 3


@pytest.mark.parametrize(
    ("hidden", "why"),
    [
        ([1, 2], "begins beside [CLS]"),
        ([5, 6], "ends beside [SEP]"),
        ([8], "begins its document"),
        ([10, 11], "ends the row"),
        ([1, 2, 3, 4, 5, 6], "fills its document"),
    ],
)
def test_a_span_at_the_edge_of_its_document_or_row_has_no_such_targets(hidden, why):
    tokens = np.array([[V.cls, *range(30, 36), V.sep, *range(40, 44)]])
    segments = np.array([[0] * 8 + [1] * 4])
    left, right = boundaries(np.array(hidden), V.is_special[tokens.reshape(-1)], rows_of(tokens, segments=segments))
    assert (left == IGNORE).all(), why
    assert (right == IGNORE).all(), why


def test_a_span_at_the_edge_of_a_row_finds_no_neighbour_in_the_next():
    rows = rows_of(text(2, 6, V))
    left, right = boundaries(np.array([4, 5, 6, 7, 9]), np.zeros(12, bool), rows)
    assert left.tolist() == [IGNORE] * 9 + [2] + [IGNORE] * 2
    assert right.tolist() == [IGNORE] * 9 + [4] + [IGNORE] * 2


def test_spans_that_touch_are_one_and_only_the_first_twenty_tokens_of_it_are_predicted_so():
    rows = rows_of(text(1, 40, V))
    left, right = boundaries(np.arange(5, 33), np.zeros(40, bool), rows)
    assert np.flatnonzero(left == 4).tolist() == list(range(5, 25))
    assert np.flatnonzero(right == 33).tolist() == list(range(5, 25))
    assert LONGEST_TARGET == 20


def test_masks_are_those_of_masked_language_modelling_with_spans_replaced_alike():
    rows = framed(50, 60, V)
    batch, plain = collate(rows), build("masked", {"unit": "span", "replace": "unit"}).collate(rows, V, keyed(rows))
    assert (batch.input_ids == plain.input_ids).all()
    assert (batch.labels == plain.labels).all()


def test_padding_has_no_part_in_it():
    rows = framed(3, 40, V)
    tokens, segments = rows.matrix(rows.tokens).copy(), rows.matrix(rows.segment_ids).copy()
    tokens[1, 15:], segments[1, 15:] = V.pad, -1
    tokens[2], segments[2] = V.pad, -1
    rows = rows_of(tokens, segments=segments)
    batch = collate(rows, rate=0.5)
    for array in (batch.labels, batch.left, batch.right):
        assert (array[segments < 0] == IGNORE).all()
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
    assert (batch.right[1] < 15).all()


def test_counts_are_those_of_the_terms():
    rows = framed(10, 60, V)
    batch = collate(rows)
    counts = build("span_boundary").counts(batch)
    assert counts == {"lm": int(selected(batch).sum()), "span_boundary": int((batch.left != IGNORE).sum())}
    assert 0 < counts["span_boundary"] < counts["lm"]
    terms = build("span_boundary", {"weight": 0.5}).terms(outputs_of(model_of(), batch), batch)
    assert {name: term.count for name, term in terms.items()} == counts
    assert {name: term.coefficient for name, term in terms.items()} == {"lm": 1.0, "span_boundary": 0.5}


def test_the_loss_is_the_cross_entropy_of_a_state_made_of_two_neighbours_and_a_place():
    rows, model = framed(6, 50, V), model_of()
    batch = collate(rows, rate=0.3)
    outputs = outputs_of(model, batch)
    head = model.heads["span_boundary"]
    total = 0.0
    for row, place in zip(*np.nonzero(batch.left != IGNORE), strict=True):
        before, after = batch.left[row, place], batch.right[row, place]
        x = torch.cat(
            [
                outputs.hidden_BTD[row, before],
                outputs.hidden_BTD[row, after],
                head.embed_place.weight[place - before - 1],
            ]
        )
        for layer in (head.first, head.second):
            x = functional.gelu(layer.linear.weight @ x + layer.linear.bias)
            x = functional.layer_norm(x, x.shape, layer.norm.weight, layer.norm.bias, SHAPE.norm.eps)
        logits = model.embed_tokens.weight @ x
        total += float(functional.cross_entropy(logits[None], torch.tensor([int(batch.labels[row, place])])).detach())
    term = build("span_boundary").terms(outputs, batch)["span_boundary"]
    assert float(term.total.detach()) == pytest.approx(total, rel=1e-4)


def test_its_gradient_reaches_the_neighbours_states_only_and_the_head_and_the_matrix():
    rows, model = framed(4, 50, V), model_of()
    batch = collate(rows, rate=0.3)
    outputs = outputs_of(model, batch)
    outputs.hidden_BTD.retain_grad()
    build("span_boundary").terms(outputs, batch)["span_boundary"].total.backward()
    moved = outputs.hidden_BTD.grad.abs().sum(dim=2).numpy() > 0
    expected = np.zeros_like(moved)
    row, place = np.nonzero(batch.left != IGNORE)
    expected[row, batch.left[row, place]] = expected[row, batch.right[row, place]] = True
    assert (moved == expected).all()
    assert all(p.grad is not None for p in model.heads.parameters())
    assert model.embed_tokens.weight.grad is not None


def test_a_batch_without_such_targets_is_zero_of_zero_and_can_be_differentiated():
    rows, model = rows_of(np.array([[V.cls, 30, V.sep]] * 2)), model_of()
    batch = collate(rows, rate=1.0)
    term = build("span_boundary").terms(outputs_of(model, batch), batch)["span_boundary"]
    assert (float(term.total.detach()), term.count) == (0.0, 0)
    term.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_head_is_as_published_and_draws_its_weights_from_the_generator():
    head = SpanBoundaryHead(SHAPE, LONGEST_TARGET, POSITION_SIZE)
    assert head.embed_place.weight.shape == (20, 200)
    assert [layer.linear.in_features for layer in (head.first, head.second)] == [2 * 32 + 200, 32]
    assert all(isinstance(layer.norm, nn.LayerNorm) for layer in (head.first, head.second))
    drawn = []
    for seed in (1, 1, 2):
        head.reset_parameters(torch.Generator().manual_seed(seed))
        drawn.append(torch.cat([p.detach().flatten() for p in head.parameters()]).clone())
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


def test_the_head_works_in_the_type_of_the_states():
    head = SpanBoundaryHead(SHAPE, LONGEST_TARGET, POSITION_SIZE)
    head.reset_parameters(torch.Generator().manual_seed(0))
    states = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    exact = head(states[0], states[1], np.arange(5))
    rounded = head(states[0].bfloat16(), states[1].bfloat16(), np.arange(5))
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(exact, rounded.float(), atol=0.1)


def test_the_cost_counts_both_heads():
    rows = framed(4, 50, V)
    objective, batch = build("span_boundary"), collate(rows)
    counts = objective.counts(batch)
    plain = build("masked").flops(SHAPE, batch)
    extra = counts["span_boundary"] * 6.0 * (V.size * 32 + (64 + 200) * 32 + 32 * 32)
    assert objective.flops(SHAPE, batch) == pytest.approx(plain + extra)


@pytest.mark.parametrize(
    ("options", "says"), [({"unit": "token"}, "span"), ({"predict": "next"}, "here"), ({"weight": 0.0}, "weight")]
)
def test_settings_that_cannot_be_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        build("span_boundary", options)
