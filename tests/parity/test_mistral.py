"""Mistral: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.parity.decoders import DecoderParity
from tests.parity.test_llama import SHAPE


class TestMistralWithAWindow(DecoderParity):
    kind = "MistralForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "sliding_window": 4,
        "head_dim": 12,
        "rope_parameters": {"rope_theta": 300.0},
    }


class TestMistralWithoutAWindow(DecoderParity):
    kind = "MistralForCausalLM"
    values: ClassVar[dict[str, Any]] = {**SHAPE, "sliding_window": None, "tie_word_embeddings": True}
