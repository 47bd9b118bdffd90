"""Layers with a sliding window may have another rope_theta, and the first block may have no norm of its own."""

from __future__ import annotations

import pytest
import torch
from tests.parity.families import cached_logits, our_logits

from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def model(**changes):
    """A decoder whose every second layer has a window, with weights that are the same whatever the changes."""
    positions = {"rope_theta": 100.0, **changes.pop("positions", {})}
    config = ModelConfig.parse(
        {
            "vocab_size": 16,
            "hidden_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "positions": positions,
            "attention": {"sliding_windows": [0, 3]},
            **changes,
        }
    )
    made = Transformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made


def logits(of):
    return our_logits(of, input_ids=[IDS], attention="causal")[0]


def test_the_same_base_said_twice_changes_nothing():
    assert torch.equal(logits(model(positions={"local_rope_theta": 100.0})), logits(model()))


def test_another_base_is_that_of_the_layers_with_a_window_alone():
    local = model(positions={"rope_theta": 7.0, "local_rope_theta": 100.0}, attention={"sliding_windows": [3]})
    assert torch.equal(logits(local), logits(model(attention={"sliding_windows": [3]})))
    nowhere = model(positions={"local_rope_theta": 7.0}, attention={"sliding_windows": [0]})
    assert torch.equal(logits(nowhere), logits(model(attention={"sliding_windows": [0]})))
    assert not torch.allclose(logits(model(positions={"local_rope_theta": 7.0})), logits(model()))


@pytest.mark.parametrize("cuts", [[1], [3, 4], list(range(1, 8))])
def test_a_row_read_piece_by_piece_is_turned_by_the_same_angles(cuts):
    one = model(positions={"local_rope_theta": 7.0})
    torch.testing.assert_close(cached_logits(one, IDS, cuts), logits(one), atol=1e-5, rtol=1e-5)


def test_the_first_block_alone_has_no_norm_before_its_attention():
    names = {
        name for name, _ in model(norm={"weight": True, "first_layer": False}).named_parameters() if "_norm.b" in name
    }
    assert names == {
        *(f"decoder.{i}.self_attn_norm.before.weight" for i in (1, 2, 3)),
        *(f"decoder.{i}.mlp_norm.before.weight" for i in range(4)),
    }


def test_the_dense_layer_of_the_head_may_do_without_a_bias():
    assert model(head={"dense": True, "dense_bias": False}).head_layers.dense.bias is None
    assert model(head={"dense": True}).head_layers.dense.bias is not None
