"""Gemma 2: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.parity.decoders import DecoderParity
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
