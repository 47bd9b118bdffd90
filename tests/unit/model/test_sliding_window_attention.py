"""Attention in blocks equals attention by the definition, window, global tokens, documents and padding included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.builders import make_model

from pretextlm.attention_mask import may_attend
from pretextlm.batch import Batch
from pretextlm.model import sliding_window_attention as sliding_window_module
from pretextlm.model.model_inputs import prepare
from pretextlm.model.sliding_window_attention import attend_sliding_window, sliding_window_mask


def row(width: int, lengths: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments and positions of rows of documents with these lengths, the rest padding."""
    segments, positions = torch.full((len(lengths), width), -1), torch.zeros(len(lengths), width, dtype=torch.long)
    for b, documents in enumerate(lengths):
        at = 0
        for number, length in enumerate(documents):
            segments[b, at : at + length] = number
            positions[b, at : at + length] = torch.arange(length)
            at += length
    return segments, positions


def by_definition(q, k, v, segments, positions, window, global_tokens, causal, scale, softcap=0.0):
    seen = may_attend(segments, segments, positions, positions, attention="causal" if causal else "bidirectional")
    distance = positions[:, :, None] - positions[:, None, :]
    near = distance < window if causal else distance.abs() <= window // 2
    first = positions < global_tokens
    seen = seen & (near | first[:, :, None] | first[:, None, :])
    seen |= (segments < 0)[:, :, None] & (segments < 0)[:, None, :]
    groups = q.size(2) // k.size(2)
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bthe,bshe->bhts", q, k) * scale
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshe->bthe", weights, v)


ROWS = [(37, [[37], [20, 17]]), (40, [[9, 11, 15], [40]]), (64, [[50], [3, 1, 30, 20]])]


@pytest.mark.parametrize(("width", "lengths"), ROWS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 7, 8])
@pytest.mark.parametrize("global_tokens", [0, 1, 3])
@pytest.mark.parametrize("softcap", [0.0, 0.8])
def test_blocks_equal_the_definition(width, lengths, causal, window, global_tokens, softcap):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, width, 4, 6, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(2, width, 2, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    segments, positions = row(width, lengths)
    mask = sliding_window_mask(segments, positions, window, global_tokens, causal, torch.float64)
    real = segments >= 0
    expected = by_definition(q, k, v, segments, positions, window, global_tokens, causal, 0.4, softcap)
    torch.testing.assert_close(attend_sliding_window(q, k, v, mask, 0.4, softcap=softcap)[real], expected[real])


@pytest.mark.parametrize("softcap", [0.0, 0.8])
def test_gradients_equal_those_of_the_definition_and_padding_has_none(softcap):
    segments, positions = row(40, [[9, 11, 15], [40]])
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, 40, 2, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    mask = sliding_window_mask(segments, positions, 6, 1, False, torch.float64)
    real = segments >= 0
    found = torch.autograd.grad(attend_sliding_window(*inputs, mask, 0.5, softcap=softcap)[real].square().sum(), inputs)
    expected = torch.autograd.grad(
        by_definition(*inputs, segments, positions, 6, 1, False, 0.5, softcap)[real].square().sum(), inputs
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert not mine[~real].any()


def test_nothing_as_long_as_the_row_squared_is_made():
    segments, positions = row(4096, [[4096]])
    mask = sliding_window_mask(segments, positions, 64, 2, False, torch.float32)
    assert mask.bias.numel() == 4096 * (3 * 32 + 2)
    assert mask.global_bias.numel() == 2 * 4096


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
@pytest.mark.parametrize("softcap", [0.0, 0.3])
def test_a_model_has_the_same_states_with_windows_in_blocks_and_as_a_mask(architecture, softcap, monkeypatch):
    attention = {"sliding_windows": (6, 0), "global_tokens": 1, "softcap": softcap}
    model = make_model(
        architecture=architecture, attention=attention, positions={"kind": "learned", "max_position_embeddings": 64}
    )
    ids = np.random.default_rng(0).integers(0, 128, (2, 50)).astype(np.int32)
    segments, positions = (array.numpy().astype(np.int32) for array in row(50, [[20, 30], [44]]))
    kind = "causal" if architecture == "decoder" else "bidirectional"
    batch = Batch(input_ids=ids, segment_ids=segments, position_ids=positions, attention=kind)

    def states():
        inputs = prepare(batch, model.config, torch.device("cpu"), torch.float32)
        with torch.inference_mode():
            return model(inputs).hidden_BTD, inputs.tokens.attention_masks[6].sliding_window is not None

    dense, blocks = states()
    assert not blocks
    monkeypatch.setattr(sliding_window_module, "MIN_ROW_IN_BLOCKS", 0)
    in_blocks, blocks = states()
    assert blocks
    torch.testing.assert_close(in_blocks[segments >= 0], dense[segments >= 0], atol=1e-5, rtol=1e-5)
