"""Qwen 2: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.parity.decoders import DecoderParity
from tests.parity.test_llama import SHAPE


class TestQwen2(DecoderParity):
    kind = "Qwen2ForCausalLM"
    values: ClassVar[dict[str, Any]] = {**SHAPE, "rope_parameters": {"rope_theta": 300.0}, "tie_word_embeddings": True}


class TestQwen2WithWindowsInItsLaterLayers(DecoderParity):
    kind = "Qwen2ForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    }
