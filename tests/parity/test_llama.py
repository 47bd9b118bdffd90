"""Llama: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from tests.parity.decoders import DecoderParity

from pretextlm.errors import UserError
from pretextlm.model.families.llama import Llama

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 16,
}


class TestLlama(DecoderParity):
    kind = "LlamaForCausalLM"
    values: ClassVar[dict[str, Any]] = {**SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}


class TestLlamaWithBiasesWideHeadsAndLlama3Scaling(DecoderParity):
    kind = "LlamaForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "head_dim": 12,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": LLAMA3,
    }


class TestLlamaTiedWithOneKeyHeadAndLinearScaling(DecoderParity):
    kind = "LlamaForCausalLM"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "num_key_value_heads": 1,
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.5},
    }


def test_the_older_way_of_writing_rotary_positions_means_the_same():
    scaling = {key: value for key, value in LLAMA3.items() if key not in ("rope_type", "rope_theta")}
    older = {"rope_theta": 500.0, "rope_scaling": {"type": "llama3", **scaling}}
    shape = {**SHAPE, "vocab_size": 90}
    assert Llama().config_from_hf({**shape, **older}) == Llama().config_from_hf({**shape, "rope_parameters": LLAMA3})


def test_a_scaling_that_is_not_known_or_lacks_a_number_is_refused():
    with pytest.raises(UserError, match="proportional"):
        Llama().config_from_hf(
            {**SHAPE, "vocab_size": 90, "rope_parameters": {"rope_type": "proportional", "factor": 2.0}}
        )
    with pytest.raises(UserError, match="low_freq_factor"):
        Llama().config_from_hf({**SHAPE, "vocab_size": 90, "rope_parameters": {"rope_type": "llama3", "factor": 2.0}})
