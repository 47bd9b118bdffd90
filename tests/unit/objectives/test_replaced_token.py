"""Replaced-token detection: honest labels, proposals from the generator's distribution, gradients where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.unit.objectives.hand_rows import framed, keyed, vocabulary
from tests.waits import Waits

from pretextlm.batch import IGNORE, Batch
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.model_inputs import prepare
from pretextlm.model.replaced_token_head import generator_config, sample_tokens
from pretextlm.model.transformer import EMBED_DELTA, Transformer
from pretextlm.objectives.registry import build
from pretextlm.objectives.replaced_token import propose
from pretextlm.training.forward import Forward

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


def model_of(objective, seed: int = 0) -> Transformer:
    """Every matrix random, so that no zero hides a path."""
    model = Transformer(SHAPE, objective.heads(SHAPE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def batch_of(objective, rows: int = 8, padded: int = 0):
    read = framed(rows, 40, V)
    if padded:
        read.segment_ids.reshape(rows, 40)[:, -padded:] = -1
        read.tokens.reshape(rows, 40)[:, -padded:] = V.pad
    return objective.collate(read, V, keyed(read)), read


def forward_of(objective, model: Transformer) -> Forward:
    return Forward(model, objective, torch.device("cpu"), torch.float32)


def test_the_text_is_the_original_but_for_proposals_and_only_those_that_differ_are_replaced():
    objective = build("replaced_token")
    batch, read = batch_of(objective)
    forward = forward_of(objective, model_of(objective))
    ids, replaced = propose(forward(batch, "generator"), batch)
    originals = read.matrix(read.tokens)
    hidden = batch.labels != IGNORE
    assert (ids.numpy()[~hidden] == originals[~hidden]).all()
    assert (replaced.numpy() == (ids.numpy() != originals)).all()
    assert replaced.numpy()[hidden].any()


def test_a_step_waits_for_nothing_that_the_device_computes():
    objective = build("replaced_token")
    batch, _ = batch_of(objective, padded=4)
    forward = forward_of(objective, model_of(objective))
    with Waits() as waits:
        terms = objective.step(forward, batch)
        sum(term.total for term in terms.values()).backward()
    assert waits.found == []


def test_a_proposal_that_is_right_is_no_replacement():
    """A generator certain of the originals proposes nothing else, and so no label is 1."""
    objective = build("replaced_token")
    batch, _ = batch_of(objective)

    class Certain:
        hidden_ND = torch.eye(V.size)[torch.from_numpy(batch.labels[batch.labels != IGNORE]).long()]

        class model:
            config = SHAPE

            @staticmethod
            def logits(hidden):
                return hidden * 1e4

    _, replaced = propose(Certain(), batch)
    assert not replaced.any()


def test_proposals_follow_the_generators_distribution():
    """Chi-squared over 20 tokens, 50,000 draws; false alarm 1 in 1,000."""
    logits = torch.linspace(-3, 2, 20)

    class Fixed:
        config = ModelConfig.parse({"vocab_size": 20})

        @staticmethod
        def logits(hidden):
            return logits.expand(len(hidden), -1)

    draws = torch.from_numpy(np.random.default_rng(1).integers(0, 2**31, 50_000).astype(np.int32))
    found = torch.bincount(sample_tokens(Fixed(), torch.zeros(50_000, 1), draws), minlength=20)
    expected = logits.double().softmax(0).numpy() * 50_000
    assert stats.chisquare(found.numpy(), expected).pvalue > 1e-3
    extremes = torch.tensor([0, 2**31 - 1], dtype=torch.int32)
    assert sample_tokens(Fixed(), torch.zeros(2, 1), extremes).tolist() == [0, 19]


@pytest.mark.parametrize("sharing", ["tied", "gradient_disentangled", "none"])
def test_the_judges_gradient_reaches_the_generator_through_a_tied_embedding_only(sharing):
    objective = build("replaced_token", {"sharing": sharing})
    model = model_of(objective)
    batch, _ = batch_of(objective)
    objective.step(forward_of(objective, model), batch)["replaced"].total.backward()
    generator = model.heads["generator"]
    assert all(p.grad is None for p in generator.parameters())
    table = model.embed_tokens.weight.grad
    if sharing == "gradient_disentangled":
        assert table is None
        assert model.heads[EMBED_DELTA].weight.grad.abs().sum() > 0
    else:
        assert table.abs().sum() > 0


@pytest.mark.parametrize("sharing", ["tied", "gradient_disentangled", "none"])
def test_the_generators_gradient_moves_no_layer_of_the_model(sharing):
    objective = build("replaced_token", {"sharing": sharing})
    model = model_of(objective)
    batch, _ = batch_of(objective)
    objective.step(forward_of(objective, model), batch)["lm"].total.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.heads["generator"].encoder.parameters())
    assert (model.embed_tokens.weight.grad is None) == (sharing == "none")


def test_a_disentangled_model_begins_with_the_generators_embedding_and_then_adds_its_own():
    objective = build("replaced_token", {"sharing": "gradient_disentangled"})
    model = Transformer(SHAPE, objective.heads(SHAPE))
    row = prepare(Batch(input_ids=np.array([[1, 2, 3]], np.int32)), SHAPE, torch.device("cpu"), torch.float32).tokens
    plain = Transformer(SHAPE)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("heads.")})
    assert torch.equal(model.embed(row, torch.float32), plain.embed(row, torch.float32))
    with torch.no_grad():
        model.heads[EMBED_DELTA].weight[2] = 1.0
    assert not torch.equal(model.embed(row, torch.float32), plain.embed(row, torch.float32))


def test_the_generator_is_a_quarter_as_wide_with_heads_of_the_same_width_and_no_table_of_its_own():
    small = generator_config(SHAPE, 0.25)
    assert (small.hidden_size, small.num_attention_heads, small.intermediate_size) == (8, 1, 32)
    assert (small.head_dim, small.num_hidden_layers, small.embedding_size) == (8, 2, 32)
    model = model_of(build("replaced_token"))
    assert model.heads["generator"].embed_tokens is model.embed_tokens
    assert not [name for name in model.state_dict() if name.startswith("heads.generator.embed_tokens")]
    apart = model_of(build("replaced_token", {"sharing": "none"}))
    assert apart.heads["generator"].embed_tokens is not apart.embed_tokens


def test_every_token_but_padding_is_judged_and_the_count_is_known_beforehand():
    objective = build("replaced_token")
    batch, _ = batch_of(objective, padded=7)
    terms = objective.step(forward_of(objective, model_of(objective)), batch)
    assert {name: term.count for name, term in terms.items()} == objective.counts(batch)
    assert terms["replaced"].count == 8 * 33
    assert terms["replaced"].coefficient == 50
    assert 0 <= int(terms["replaced"].correct) <= 8 * 33


def test_the_loss_of_rows_together_is_the_sum_of_the_rows_alone():
    """The proposals, too, depend on nothing but the row."""
    objective = build("replaced_token")
    model = model_of(objective)
    forward = forward_of(objective, model)
    batch, _ = batch_of(objective)
    whole = objective.step(forward, batch)
    alone = [objective.step(forward, batch.map(lambda array, row=row: array[row : row + 1].copy())) for row in range(8)]
    for name, term in whole.items():
        assert term.total.item() == pytest.approx(sum(part[name].total.item() for part in alone), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": {"name": "causal"}}, "cannot learn 'causal'"),
        ({"inner": {"rate": 0.3}}, "needs its name"),
        ({"generator_size": 0.0}, "generator_size"),
        ({"weight": -1.0}, "weight"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        build("replaced_token", options)
