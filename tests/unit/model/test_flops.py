"""Counted operations: equal to a count by hand, and to what torch counts as a model runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.builders import make_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretextlm.batch import Batch
from pretextlm.model.config import ModelConfig
from pretextlm.model.flops import count, pairs, training_flops
from pretextlm.model.model_inputs import prepare

ROWS, LENGTH, TARGET = 2, 12, 8

SHAPES = {
    "plain": {},
    "gated feed-forward": {"feed_forward": {"gated": True, "activation": "silu"}, "intermediate_size": 40},
    "grouped queries": {"num_key_value_heads": 2},
    "heads wider than hidden_size": {"head_dim": 16},
    "narrow embedding": {"embedding_size": 16},
    "dense layer in the head": {"head": {"dense": True, "activation": "gelu"}},
    "shared layers": {"share_layers": True, "num_hidden_layers": 3},
    "relative positions": {"positions": {"kind": "relative"}},
    "disentangled positions": {"positions": {"kind": "disentangled", "num_buckets": 4, "max_distance": 16}},
    "untied head": {"tie_word_embeddings": False},
}


def batch_for(second: bool) -> Batch:
    """Every position has a label; all positions of the first row see each other."""
    ids = np.random.default_rng(0).integers(0, 128, (ROWS, LENGTH)).astype(np.int32)
    if not second:
        return Batch(input_ids=ids, labels=ids, attention="bidirectional")
    other = ids[:, :TARGET]
    return Batch(input_ids=ids, decoder_input_ids=other, decoder_labels=other, attention="bidirectional")


def counted_by_torch(batch: Batch, **shape: object) -> int:
    """Forward and backward, with attention as plain products and the logits written out."""
    model = make_model(**shape)
    inputs = prepare(batch, model.config, torch.device("cpu"), torch.float32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(inputs).logits_NV.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_the_count_is_what_torch_counts(architecture, name):
    shape = {"architecture": architecture, **SHAPES[name]}
    batch = batch_for(second=False)
    config = make_model(**shape).config
    assert training_flops(config, batch, ROWS * LENGTH) == counted_by_torch(batch, **shape)


@pytest.mark.parametrize("name", [name for name in (*SHAPES, "shallow decoder") if "disentangled" not in name])
def test_the_count_of_an_encoder_decoder_is_what_torch_counts_but_for_causal_pairs(name):
    shape = {"architecture": "encoder_decoder", **SHAPES.get(name, {"num_hidden_layers": 3, "num_decoder_layers": 1})}
    batch = batch_for(second=True)
    config = make_model(**shape).config
    hidden = 0.5 * TARGET * TARGET * ROWS * config.layers("decoder")
    unseen = 12 * config.num_attention_heads * config.head_dim * hidden  # products are made of them all the same
    assert training_flops(config, batch, ROWS * TARGET) + unseen == counted_by_torch(batch, **shape)


def test_the_count_of_a_gated_grouped_model_is_that_by_hand():
    config = ModelConfig.parse(
        {
            "vocab_size": 100,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "intermediate_size": 48,
            "feed_forward": {"gated": True},
        }
    )
    found = count(config, rows=3, length=10, labels=7, causal=True)
    assert found.matrices == 6 * 2 * (32 * 64 * 2 + 32 * 16 * 2 + 3 * 32 * 48) * 30
    assert found.attention == 12 * 64 * 2 * 3 * 50
    assert found.head == 6 * 100 * 32 * 7
    assert found.total == found.matrices + found.attention + found.head


@pytest.mark.parametrize(("causal", "window"), [(True, 0), (False, 0), (True, 16), (False, 16), (True, 400)])
def test_pairs_are_those_of_the_visibility_but_for_the_diagonal(causal, window):
    length = 200
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    seen = distance >= 0 if causal else np.ones_like(distance, bool)
    if window:
        seen &= distance < window if causal else np.abs(distance) <= window // 2
    assert abs(pairs(length, causal, window) - seen.sum()) <= length


def test_a_window_makes_long_rows_cheaper():
    narrow = ModelConfig.parse({"vocab_size": 64, "attention": {"sliding_windows": (0, 8)}})
    full = ModelConfig.parse({"vocab_size": 64})
    saved = count(full, 1, 512, 0, causal=True).attention - count(narrow, 1, 512, 0, causal=True).attention
    assert saved == 12 * 256 * 3 * (512 * 512 / 2 - (512 * 8 - 32))
