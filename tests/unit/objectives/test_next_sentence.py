"""Next-sentence prediction: rows of pairs, their labels, and the terms beside the inner objective's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import keyed, vocabulary

from pretextlm.batch import IGNORE, Rows
from pretextlm.errors import UserError
from pretextlm.objectives.masked import Masked, MaskedLayout
from pretextlm.objectives.registry import build
from pretextlm.training.recipe import Recipe

V = vocabulary()
FIRST = 30


def split(documents=12, sentences=7, words=4):
    """Documents of equal sentences; a token is FIRST + 20 · document + sentence, modulo the vocabulary."""
    tokens = [[FIRST + (20 * d + s) % 360 for s in range(sentences) for _ in range(words)] for d in range(documents)]
    starts = np.arange(documents * sentences) * words
    return dataclasses.replace(split_of(tokens), sentences=starts.astype(np.uint64))


def rows_and_batch(name="next_sentence", length=24, count=None, **options):
    objective = build(name, options)
    reader = objective.reader(split(), V, length)
    numbers = np.arange(count or len(reader.pairs(1, 0)))
    rows = reader.read(numbers, np.zeros_like(numbers), 1)
    return objective, rows, objective.collate(rows, V, keyed(rows))


def tiny_model(objective, vocab=V.size):
    torch = pytest.importorskip("torch")
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer

    config = ModelConfig(
        architecture="encoder",
        vocab_size=vocab,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        type_vocab_size=objective.token_types,
    )
    torch.manual_seed(0)
    model = Transformer(config, objective.heads(config))
    model.reset_parameters(torch.Generator().manual_seed(1))
    return config, model


def forward(objective, batch, model, config):
    import torch

    from pretextlm.model.model_inputs import prepare

    return model(prepare(batch, config, torch.device("cpu"), torch.float32))


def test_the_batch_is_the_inner_objectives_with_types_and_labels_of_the_rows():
    _, rows, batch = rows_and_batch()
    alone = Masked().collate(rows, V, keyed(rows))
    for name in ("input_ids", "labels", "segment_ids", "position_ids"):
        assert np.array_equal(getattr(batch, name), getattr(alone, name)), name
    assert batch.attention == "bidirectional"
    assert np.array_equal(batch.token_type_ids, rows.matrix(rows.token_type_ids))
    assert np.array_equal(batch.row_labels, rows.row_labels)
    assert set(batch.row_labels.tolist()) == {0, 1}
    for array in (batch.input_ids, batch.labels, batch.token_type_ids, batch.row_labels):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous


def test_no_label_and_no_mask_falls_on_cls_sep_or_padding():
    for inner in ({}, {"rate": 1.0}, {"unit": "word", "rate": 0.9}, {"count": "bernoulli", "rate": 0.9}):
        _, rows, batch = rows_and_batch(inner=inner)
        special = V.is_special[rows.matrix(rows.tokens)]
        assert (batch.labels[special] == IGNORE).all()
        assert (batch.input_ids[special] == rows.matrix(rows.tokens)[special]).all()
        assert (batch.labels != IGNORE).any(axis=1).mean() > 0.9
    ordinary = np.count_nonzero(~special, axis=1)
    _, rows, batch = rows_and_batch()
    share = np.count_nonzero(batch.labels != IGNORE, axis=1)
    assert (share <= np.maximum(np.ceil(0.15 * ordinary), 1)).all()


def test_label_zero_is_the_next_sentence_and_one_another_document():
    _, rows, batch = rows_and_batch(length=200)
    tokens, types = rows.matrix(rows.tokens), rows.matrix(rows.token_type_ids)
    for row, kind, label in zip(tokens, types, batch.row_labels.tolist(), strict=True):
        a, b = (row[(row >= FIRST) & (kind == part)] - FIRST for part in (0, 1))
        assert (a[0] // 20 == b[0] // 20) == (label == 0)
        if label == 0:
            assert b[0] == a[-1] + 1


def test_with_three_classes_label_one_is_the_text_before_and_two_another_document():
    _, rows, batch = rows_and_batch(length=200, classes=3)
    tokens, types = rows.matrix(rows.tokens), rows.matrix(rows.token_type_ids)
    seen = set()
    for row, kind, label in zip(tokens, types, batch.row_labels.tolist(), strict=True):
        a, b = (row[(row >= FIRST) & (kind == part)] - FIRST for part in (0, 1))
        assert (a[0] // 20 == b[0] // 20) == (label != 2)
        if label != 2:
            assert (b[0] == a[-1] + 1, a[0] == b[-1] + 1) == (label == 0, label == 1)
        seen.add(label)
    assert seen == {0, 1, 2}


def test_reversed_labels_say_one_for_the_text_as_it_stood():
    for name in ("next_sentence", "sentence_order"):
        _, rows, plain = rows_and_batch(name)
        before = rows.row_labels.copy()
        _, _, other = rows_and_batch(name, reverse_labels=True)
        assert np.array_equal(other.row_labels, 1 - plain.row_labels)
        assert np.array_equal(rows.row_labels, before)
    with pytest.raises(UserError, match="reverse_labels"):
        build("next_sentence", {"classes": 3, "reverse_labels": True})


def test_counts_are_the_targets_of_each_term():
    objective, _, batch = rows_and_batch()
    assert objective.counts(batch) == {"lm": int((batch.labels != IGNORE).sum()), "pair": len(batch.row_labels)}
    objective, _, batch = rows_and_batch(inner="off")
    assert objective.counts(batch) == {"pair": len(batch.row_labels)}
    assert (batch.labels == IGNORE).all()


TERMS = [
    {},
    {"classes": 3},
    {"inner": "off"},
    {"inner": {"rate": 0.3, "unit": "word"}},
    {"inner": "word_structure", "classes": 3},
    {"inner": "span_boundary"},
]


@pytest.mark.parametrize("options", TERMS)
def test_terms_are_sums_that_agree_with_the_counts(options):
    torch = pytest.importorskip("torch")
    objective, _, batch = rows_and_batch(**options)
    config, model = tiny_model(objective)
    outputs = forward(objective, batch, model, config)
    terms = objective.terms(outputs, batch)
    assert {name: term.count for name, term in terms.items()} == objective.counts(batch)
    logits = outputs.heads["pair"](outputs.hidden_BTD[:, 0])
    labels = torch.from_numpy(batch.row_labels.astype(np.int64))
    assert logits.shape == (len(labels), len(objective.kinds))
    picked = logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    assert terms["pair"].total.item() == pytest.approx(-picked.sum().item(), rel=1e-5)
    assert int(terms["pair"].correct) == int((logits.argmax(dim=1) == labels).sum())
    assert terms["pair"].coefficient == 1.0
    sum(term.total for term in terms.values()).backward()
    assert model.heads["pair"].pooler.weight.grad.abs().sum() > 0
    if objective.inner != "off":  # at the start no position sees another, so that only B's own labels tell of its type
        assert model.embedding.types.weight.grad.abs().sum(dim=1).gt(0).all()
    assert objective.flops(config, batch) > 0


def test_a_batch_without_labels_has_terms_of_nothing():
    pytest.importorskip("torch")
    objective = build("next_sentence")
    reader = objective.reader(split(), V, 24)
    count = len(reader.pairs(0, 0))
    rows = reader.read(np.array([count, count + 1]), np.zeros(2, np.int64), 0, pad=V.pad)
    batch = objective.collate(rows, V, keyed(rows))
    assert objective.counts(batch) == {"lm": 0, "pair": 0}
    config, model = tiny_model(objective)
    terms = objective.terms(forward(objective, batch, model, config), batch)
    assert {(term.count, term.total.item()) for term in terms.values()} == {(0, 0.0)}
    assert int(terms["pair"].correct) == 0
    terms["pair"].total.backward()


def test_rows_without_token_types_and_labels_are_shown_without_them():
    tokens = np.array([[V.cls, 30, 31, 32, V.sep]], np.int32)
    rows = Rows(
        tokens.reshape(-1),
        np.array([0, 5]),
        np.zeros(5, np.int32),
        np.arange(5, dtype=np.int32),
        np.ones(5, bool),
        np.zeros(1, np.int64),
    )
    batch = build("next_sentence").collate(rows, V, keyed(rows))
    assert batch.token_type_ids is None
    assert batch.row_labels.tolist() == [IGNORE]


def test_two_short_documents_make_a_row():
    tokens = [[40, 41, 42, 43, 44], [50, 51, 52]]
    text = dataclasses.replace(split_of(tokens), sentences=np.array([0, 2, 5], np.uint64))
    for name in ("next_sentence", "sentence_order"):
        objective = build(name)
        rows = objective.reader(text, V, 20).read(np.array([0]), np.array([0]), 0)
        batch = objective.collate(rows, V, keyed(rows))
        assert batch.row_labels[0] in (0, 1)
        assert set(batch.token_type_ids[0].tolist()) == {0, 1}


def test_the_inner_objective_is_given_by_name_by_table_or_by_its_options_alone():
    assert build("next_sentence").inner == Masked()
    assert build("next_sentence", {"inner": "masked"}) == build("next_sentence", {"inner": {"name": "masked"}})
    assert build("next_sentence", {"inner": {"rate": 0.3}}).inner == Masked(rate=0.3)
    assert build("next_sentence", {"inner": "off"}).inner == "off"


def test_copies_schedule_and_blanks_are_the_inner_objectives():
    assert build("next_sentence", {"inner": {"static_masks": 3}}).noise_period == 3
    assert build("next_sentence", {"inner": {"final_rate": 0.3}}).scheduled_noise
    assert isinstance(build("sentence_order").blank_layout(V, "encoder"), MaskedLayout)
    off = build("next_sentence", {"inner": "off"})
    assert (off.noise_period, off.scheduled_noise, off.blank_layout(V, "encoder")) == (0, False, None)


@pytest.mark.parametrize("name", ["next_sentence", "sentence_order"])
@pytest.mark.parametrize("inner", ["off", "masked", "word_structure", {"rate": 0.4, "unit": "word"}])
def test_a_recipe_with_a_inner_objective_is_read_back_as_it_was_written(name, inner):
    recipe = Recipe.load(
        {
            "data": {"store": "somewhere"},
            "objective": {"name": name, "inner": inner, "short": 0.2},
            "training": {"budget_steps": 1},
        }
    )
    assert Recipe.load(recipe.dump()) == recipe
    assert recipe.model.type_vocab_size == 2


def test_options_that_cannot_be_are_refused_by_name():
    with pytest.raises(UserError, match="joined with 'causal'"):
        build("next_sentence", {"inner": "causal"})
    with pytest.raises(UserError, match="predict"):
        build("next_sentence", {"inner": {"predict": "next"}})
    with pytest.raises(UserError, match="rate"):
        build("next_sentence", {"inner": {"rate": 2.0}})
    with pytest.raises(UserError, match="ratio"):
        build("next_sentence", {"inner": {"ratio": 0.1}})
    with pytest.raises(UserError, match="inner"):
        build("next_sentence", {"inner": 5})
    with pytest.raises(UserError, match="classes"):
        build("next_sentence", {"classes": 4})
    with pytest.raises(UserError, match="short"):
        build("next_sentence", {"short": 1.5})
    with pytest.raises(UserError, match="4 tokens"):
        build("next_sentence").variants(V, 4)
    with pytest.raises(UserError, match="two documents"):
        build("next_sentence").reader(split(documents=1), V, 24)


def test_rows_are_of_the_length_asked_for_and_three_of_it_special():
    objective = build("next_sentence")
    (variant,) = objective.variants(V, 128)
    assert (variant.raw, variant.length, variant.overlap) == (125, 128, 0)
    assert (objective.frame(V).lead, objective.frame(V).end) == (V.cls, V.sep)
    assert objective.token_types == 2
    assert (objective.noise_period, objective.scheduled_noise) == (0, False)
