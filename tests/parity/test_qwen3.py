"""Qwen 3: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.parity.decoders import DecoderParity
from tests.parity.test_llama import SHAPE


class TestQwen3(DecoderParity):
    kind = "Qwen3ForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "head_dim": 12,
        "rope_parameters": {"rope_theta": 300.0},
        "tie_word_embeddings": True,
    }


class TestQwen3WithBiasesAndWindows(DecoderParity):
    kind = "Qwen3ForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "head_dim": 8,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 2,
    }
