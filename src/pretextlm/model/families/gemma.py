"""Gemma (Mesnard et al. 2024, https://arxiv.org/abs/2403.08295): embeddings scaled by √D, norms around 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.bert import activation_from_hf
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.values import refuse


class Gemma(Llama):
    """gemma. The activation "gelu" in its older files means the tanh form."""

    name: ClassVar[str] = "gemma"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "GemmaForCausalLM": "decoder",
        "GemmaModel": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Gemma")
    whole_heads: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 256,
        "tie_word_embeddings": True,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
    }

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        refuse(values, "use_bidirectional_attention")
        name, bias = values["hidden_act"], values["attention_bias"]
        return {
            "norm": {"kind": "rms", "eps": values["rms_norm_eps"], "weight": True, "unit_offset": True},
            "attention": {"qk_norm": False, "bias": bias, "output_bias": bias},
            "feed_forward": {"activation": "gelu_tanh" if name == "gelu" else activation_from_hf(name), "gated": True},
            "embedding": {"norm": False, "scale": values["hidden_size"] ** 0.5},
        }

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        tanh = {"hidden_act": "gelu_pytorch_tanh"} if config.feed_forward.activation == "gelu_tanh" else {}
        return {"attention_bias": config.attention.bias, **tanh}
