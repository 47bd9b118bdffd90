"""Gemma: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.parity.decoders import DecoderParity
from tests.parity.test_llama import SHAPE

from pretextlm.model.families.gemma import Gemma


class TestGemma(DecoderParity):
    kind = "GemmaForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "rope_parameters": {"rope_theta": 300.0},
    }


class TestGemmaWithBiasesAndAnotherActivation(DecoderParity):
    kind = "GemmaForCausalLM"
    values: ClassVar[dict[str, Any]] = {**SHAPE, "head_dim": 12, "attention_bias": True, "hidden_act": "silu"}


def test_gelu_in_its_older_files_means_the_one_with_tanh():
    assert (
        Gemma().config_from_hf({**SHAPE, "vocab_size": 90, "hidden_act": "gelu"}).feed_forward.activation == "gelu_tanh"
    )
