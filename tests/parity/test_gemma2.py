"""Gemma 2: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from tests.parity.decoders import DecoderParity
from tests.parity.families import cached_logits, our_logits, their_logits
from tests.parity.test_llama import SHAPE


class TestGemma2(DecoderParity):
    kind = "Gemma2ForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "head_dim": 12,
        "sliding_window": 4,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 2.5,
        "attention_bias": True,
        "rope_parameters": {"rope_theta": 300.0},
    }

    def test_a_row_of_many_windows_has_the_same_logits(self, both):
        ids = np.random.default_rng(1).integers(5, 90, (2, 50))
        found = our_logits(both[1], input_ids=ids, attention="causal")
        torch.testing.assert_close(found, their_logits(both[0], input_ids=ids), atol=1e-4, rtol=1e-4)
        cached = cached_logits(both[1], ids[0].tolist(), [20, 21])
        torch.testing.assert_close(cached, found[0], atol=1e-4, rtol=1e-4)


class TestGemma2WithoutBoundsAndWindowsElsewhere(DecoderParity):
    kind = "Gemma2ForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "head_dim": 12,
        "sliding_window": 4,
        "query_pre_attn_scalar": 12,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "layer_types": ["full_attention", "full_attention", "sliding_attention"],
    }
