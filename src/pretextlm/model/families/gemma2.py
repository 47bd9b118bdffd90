"""Gemma 2 (Riviere et al. 2024, https://arxiv.org/abs/2408.00118): Gemma with a norm on both sides of each sub-layer.

Scores and logits are bounded by tanh, and every other layer has a sliding window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.values import refuse
from pretextlm.model.families.shared.windows import window_of_each_layer, windows_from_hf, windows_to_hf


class Gemma2(Llama):
    """gemma2. Scores are divided by the root of query_pre_attn_scalar."""

    name: ClassVar[str] = "gemma2"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "Gemma2ForCausalLM": "decoder",
        "Gemma2Model": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Gemma2")
    activation: ClassVar[str] = "hidden_activation"
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 4,
        "head_dim": 256,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
    }

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        refuse(values, "use_bidirectional_attention")
        bias, divisor = values["attention_bias"], values["query_pre_attn_scalar"]
        if divisor < 1:
            raise UserError(f"query_pre_attn_scalar is {divisor}.", "It is the number whose root divides the scores.")
        window = values.get("sliding_window", 4096) or 0
        return {
            "norm": {
                "kind": "rms",
                "eps": values["rms_norm_eps"],
                "weight": True,
                "unit_offset": True,
                "placement": "both",
            },
            "attention": {
                "qk_norm": False,
                "bias": bias,
                "output_bias": bias,
                "scale": 0.0 if divisor == values["head_dim"] else divisor**-0.5,
                "softcap": values.get("attn_logit_softcapping", 50.0) or 0.0,
                "sliding_windows": windows_from_hf(values, window, lambda i: i % 2 == 0),
            },
            "feed_forward": {"activation": activation_from_hf(values["hidden_activation"]), "gated": True},
            "embedding": {"norm": False, "scale": values["hidden_size"] ** 0.5},
            "logit_softcap": values.get("final_logit_softcapping", 30.0) or 0.0,
        }

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        activation, scale = config.feed_forward.activation, config.attention.scale
        return {
            "hidden_activation": "gelu_pytorch_tanh" if activation == "gelu_tanh" else activation_to_hf(activation),
            "attention_bias": config.attention.bias,
            "query_pre_attn_scalar": round(scale**-2) if scale else config.head_dim,
            "attn_logit_softcapping": config.attention.softcap or None,
            "final_logit_softcapping": config.logit_softcap or None,
            **windows_to_hf(window_of_each_layer(config)),
        }

    def norms(self) -> dict[str, str]:
        return {
            "self_attn_norm.before": "input_layernorm",
            "self_attn_norm.after": "post_attention_layernorm",
            "mlp_norm.before": "pre_feedforward_layernorm",
            "mlp_norm.after": "post_feedforward_layernorm",
        }
