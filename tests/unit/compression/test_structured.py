"""Heads, channels and layers: what could not change the output goes first, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.builders import make_model

from pretextlm.batch import Batch
from pretextlm.compression.importance import by_gradient, by_weights
from pretextlm.compression.structured import (
    ATTENTION,
    FEED_FORWARD,
    Heads,
    check_heads,
    count_to_remove,
    cut_channels,
    cut_heads,
    keep_layers,
    kept_channels,
    kept_units,
)
from pretextlm.errors import UserError
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import build

CPU = torch.device("cpu")
GATED = {"feed_forward": {"activation": "silu", "gated": True, "bias": True}}
BIASED = {"attention": {"bias": True, "output_bias": True, "qk_norm": False}}
SHAPES = {
    "decoder": {},
    "grouped": {"num_attention_heads": 8, "num_key_value_heads": 4, **BIASED},
    "one_key_value_head": {"num_key_value_heads": 1},
    "gated": GATED,
    "encoder": {"architecture": "encoder", **BIASED},
    "share_layers": {"architecture": "encoder", "share_layers": True},
    "disentangled": {"architecture": "encoder", "positions": {"kind": "disentangled", "num_buckets": 4}, **BIASED},
    "global_projections": {
        "architecture": "encoder",
        "attention": {"global_projections": True, "global_tokens": 1, "sliding_windows": (4,), "qk_norm": False},
    },
    "encoder_decoder": {"architecture": "encoder_decoder", **GATED},
    "relative": {"architecture": "encoder_decoder", "positions": {"kind": "relative", "num_buckets": 8}},
}
OBJECTIVES = {"decoder": "causal", "encoder": "masked", "encoder_decoder": "span_corruption"}


def row(config, seed=0):
    """Two rows with a label everywhere, of a kind that suits the architecture."""
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, (2, 12)).astype(np.int32)
    if config.architecture == "encoder_decoder":
        return Batch(input_ids=ids, decoder_input_ids=ids[:, :7], decoder_labels=ids[:, 1:8])
    kind = "causal" if config.architecture == "decoder" else "bidirectional"
    return Batch(input_ids=ids, labels=np.roll(ids, -1, 1), attention=kind)


def logits(config, weights):
    model = Transformer(config)
    model.load_state_dict(dict(weights))
    with torch.inference_mode():
        return model.eval()(prepare(row(config), config, CPU, torch.float32)).logits_NV


def dead(model, heads=(), channels=()):
    """Silence some units of each layer, others in each layer where they may differ."""
    config, unit = model.config, Heads.of(model.config)
    width = unit.queries * config.head_dim
    with torch.no_grad():
        for name, module in model.named_modules():
            nth = 0 if config.positions.kind == "relative" else len(name) + sum(map(int, filter(str.isdigit, name)))
            if ATTENTION.fullmatch(name):
                for head in ((h + nth) % unit.units for h in heads):
                    module.o_proj.weight[:, head * width : (head + 1) * width] = 0
            elif FEED_FORWARD.fullmatch(name):
                for channel in ((c + nth) % config.intermediate_size for c in channels):
                    module.down_proj.weight[:, channel] = 0
    return model


def scores_of(model, how):
    if how == "weights":
        return by_weights(model.state_dict(), model.config)
    return by_gradient(model, build(OBJECTIVES[model.config.architecture]), [row(model.config), row(model.config, 1)])


@pytest.mark.parametrize("how", ["weights", "gradient"])
@pytest.mark.parametrize("shape", SHAPES)
def test_heads_and_channels_that_nothing_reads_go_first_and_leave_the_logits_as_they_were(shape, how):
    model = dead(make_model(**SHAPES[shape]), heads=(1,), channels=(0, 2, 5))
    scores = scores_of(model, how)
    weights, config = cut_heads(model.state_dict(), model.config, kept_units(scores, 1, model.config))
    weights, config = cut_channels(weights, config, kept_channels(scores, 3))
    unit = Heads.of(model.config)
    assert config.num_attention_heads == model.config.num_attention_heads - unit.queries
    assert config.intermediate_size == model.config.intermediate_size - 3
    assert config.head_dim == model.config.head_dim
    expected = logits(model.config, model.state_dict())
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits(config, weights), expected, atol=1e-6, rtol=1e-6)


def test_groups_keep_the_queries_of_their_keys():
    model = make_model(num_attention_heads=6, num_key_value_heads=3, hidden_size=36)
    kept = dict.fromkeys(["decoder.0.self_attn", "decoder.1.self_attn"], torch.tensor([0, 2]))
    weights, config = cut_heads(model.state_dict(), model.config, kept)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    whole, width = model.state_dict(), model.config.head_dim
    heads = whole["decoder.0.self_attn.q_proj.weight"].view(6, width, 36)
    assert torch.equal(weights["decoder.0.self_attn.q_proj.weight"], heads[[0, 1, 4, 5]].reshape(-1, 36))
    keys = whole["decoder.0.self_attn.k_proj.weight"].view(3, width, 36)
    assert torch.equal(weights["decoder.0.self_attn.k_proj.weight"], keys[[0, 2]].reshape(-1, 36))


def test_the_gradient_score_is_what_the_loss_feels_of_a_mask_on_the_unit():
    model = make_model(hidden_size=16, num_attention_heads=2, intermediate_size=4)
    objective, batch = build("causal"), row(model.config)
    scores = by_gradient(model, objective, [batch])

    def loss(factor, part, places):
        changed = {name: weight.clone() for name, weight in model.state_dict().items()}
        changed[part][:, places] *= factor
        other = Transformer(model.config)
        other.load_state_dict(changed)
        with torch.inference_mode():
            outputs = other.double()(prepare(one, model.config, CPU, torch.float64))
            return float(outputs.cross_entropy()) / batch.input_ids.size

    for name, part, width in (("decoder.0.self_attn", "o_proj", 8), ("decoder.1.mlp", "down_proj", 1)):
        for unit in range(2):
            felt = 0.0
            for nth in range(2):
                one = Batch(
                    input_ids=batch.input_ids[nth : nth + 1], labels=batch.labels[nth : nth + 1], attention="causal"
                )
                places = slice(unit * width, (unit + 1) * width)
                above, below = (loss(1 + step, f"{name}.{part}.weight", places) for step in (1e-2, -1e-2))
                felt += abs(above - below) / 2e-2
            assert float(scores[name][unit]) == pytest.approx(felt, rel=1e-2, abs=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_that_stay_are_those_named_with_their_windows():
    model = make_model(num_hidden_layers=5, attention={"sliding_windows": (0, 4)})
    weights, config = keep_layers(model.state_dict(), model.config, (4, 0, 1))
    assert config.num_hidden_layers == 3
    assert config.attention.sliding_windows == (0, 4, 0)
    assert torch.equal(weights["decoder.2.mlp.up_proj.weight"], model.state_dict()["decoder.4.mlp.up_proj.weight"])
    assert set(weights) == set(Transformer(config).state_dict())
    assert len(keep_layers(model.state_dict(), model.config, (0, 2))[1].attention.sliding_windows) == 1


@pytest.mark.parametrize("layers", [(), (0, 0), (5,), (-1,), (0, 1, 2, 3, 4)])
def test_layers_that_are_not_there_or_all_of_them_are_refused(layers):
    model = make_model(num_hidden_layers=5)
    with pytest.raises(UserError):
        keep_layers(model.state_dict(), model.config, layers)


@pytest.mark.parametrize("shape", ["encoder_decoder", "share_layers"])
def test_layers_that_are_not_one_row_are_refused(shape):
    model = make_model(**SHAPES[shape])
    with pytest.raises(UserError, match="cannot be chosen"):
        keep_layers(model.state_dict(), model.config, (0,))


def test_a_first_layer_that_reads_the_embedding_as_it_is_stays():
    model = make_model(norm={"first_layer": False})
    with pytest.raises(UserError, match="must stay"):
        keep_layers(model.state_dict(), model.config, (1,))


@pytest.mark.parametrize(
    ("share", "units", "reason"),
    [
        (0, 8, "not between"),
        (1, 8, "not between"),
        (-1, 8, "not between"),
        (0.01, 8, "less than one"),
        (0.9, 4, "all 4"),
    ],
)
def test_a_share_that_takes_nothing_or_everything_is_refused(share, units, reason):
    with pytest.raises(UserError, match=reason):
        count_to_remove(share, units, "heads")


def test_heads_whose_slopes_depend_on_their_number_are_refused():
    with pytest.raises(UserError, match="ALiBi"):
        check_heads(make_model(positions={"kind": "alibi"}).config)
