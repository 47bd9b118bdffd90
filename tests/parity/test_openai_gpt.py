"""GPT: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.parity.decoders import DecoderParity

SHAPE = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 20}


class TestOpenAIGpt(DecoderParity):
    kind = "OpenAIGPTLMHeadModel"
    values: ClassVar[dict[str, Any]] = {**SHAPE, "layer_norm_epsilon": 1e-3}


class TestOpenAIGptWithAnotherActivation(DecoderParity):
    kind = "OpenAIGPTLMHeadModel"
    values: ClassVar[dict[str, Any]] = {**SHAPE, "afn": "silu", "tie_word_embeddings": False}
