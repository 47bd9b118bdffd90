"""Attention with a soft cap, and rotary angles scaled for longer texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pretextlm.batch import Batch
from pretextlm.errors import UserError
from pretextlm.model.attention import AttentionMask, attend, cross_attention_mask, self_attention_mask
from pretextlm.model.config import ModelConfig, RopeScaling
from pretextlm.model.model_inputs import prepare
from pretextlm.model.rotary import compute_angles, scaled_frequencies
from pretextlm.model.sliding_window_attention import MIN_ROW_IN_BLOCKS

CPU = torch.device("cpu")


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) * shape[1]))


def test_soft_capped_attention_equals_its_formula_for_grouped_queries():
    q, k, v = _draw(2, 6, 4, 8), _draw(2, 7, 2, 8), _draw(2, 7, 2, 8)
    bias = torch.zeros(2, 1, 6, 7).masked_fill(torch.ones(6, 7).triu(2) > 0, float("-inf"))
    found = attend(q, k, v, AttentionMask(bias), scale=0.7, softcap=1.3)
    for head in range(4):
        scores = 1.3 * torch.tanh(0.7 * q[:, :, head] @ k[:, :, head // 2].transpose(1, 2) / 1.3) + bias[:, 0]
        torch.testing.assert_close(found[:, :, head], scores.softmax(-1) @ v[:, :, head // 2])


def test_a_bound_far_above_all_scores_changes_nothing():
    q, k, v = _draw(1, 5, 4, 8), _draw(1, 5, 4, 8), _draw(1, 5, 4, 8)
    mask = self_attention_mask(None, None, None, "causal", (1, 5), CPU, torch.float32, needs_bias=True)
    torch.testing.assert_close(attend(q, k, v, mask, softcap=1e4), attend(q, k, v, mask), atol=1e-5, rtol=1e-4)


def test_with_a_softcap_every_mask_is_a_tensor_or_in_blocks():
    config = ModelConfig.parse({"vocab_size": 16, "attention": {"softcap": 2.0, "sliding_windows": [0, 4]}})
    ids = np.zeros((1, MIN_ROW_IN_BLOCKS), np.int32)
    row = prepare(Batch(input_ids=ids, attention="causal"), config, CPU, torch.float32).tokens
    assert row.attention_masks[0].bias is not None
    assert row.attention_masks[4].sliding_window is not None
    segments = torch.zeros(1, 3, dtype=torch.int32)
    across = cross_attention_mask(segments, segments, (1, 3), (1, 3), CPU, torch.float32, needs_bias=True)
    assert across.bias is not None


def test_linear_scaling_reads_a_position_as_one_so_many_times_nearer():
    scaling = RopeScaling(rope_type="linear", factor=4.0)
    near, far = torch.arange(5)[None], 4 * torch.arange(5)[None]
    found, expected = (
        compute_angles(far, 8, 100.0, torch.float32, scaling),
        compute_angles(near, 8, 100.0, torch.float32),
    )
    torch.testing.assert_close(found.cos, expected.cos)
    torch.testing.assert_close(found.sin, expected.sin)


def test_llama3_scaling_keeps_high_frequencies_divides_low_ones_and_fades_between():
    scaling = RopeScaling(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=100
    )
    turns = torch.tensor([400.0, 4.0, 2.5, 1.0, 0.1])
    frequencies = turns * 2 * math.pi / 100
    shares = scaled_frequencies(frequencies, scaling) / frequencies
    torch.testing.assert_close(shares, torch.tensor([1.0, 1.0, (1 + 1 / 8) / 2, 1 / 8, 1 / 8]))


def test_without_scaling_frequencies_are_the_very_same():
    frequencies = torch.rand(4)
    assert scaled_frequencies(frequencies, RopeScaling()) is frequencies


def test_low_frequencies_must_lie_below_high_ones():
    with pytest.raises(UserError, match="low_freq_factor < high_freq_factor"):
        RopeScaling.parse({"rope_type": "llama3", "low_freq_factor": 4.0, "high_freq_factor": 4.0})
