"""Qwen 3 (Yang et al. 2025, https://arxiv.org/abs/2505.09388): queries and keys normalised head by head, no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.qwen2 import qwen_windows_from_hf, qwen_windows_to_hf
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes


class Qwen3(Llama):
    """qwen3: windows as in Qwen 2."""

    name: ClassVar[str] = "qwen3"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "Qwen3ForCausalLM": "decoder",
        "Qwen3Model": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Qwen3")
    whole_heads: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 128,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "use_sliding_window": False,
        "max_window_layers": 28,
    }

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "attention": {
                "qk_norm": True,
                "qk_norm_weight": True,
                "bias": values["attention_bias"],
                "output_bias": values["attention_bias"],
                "sliding_windows": qwen_windows_from_hf(values),
            }
        }

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {"attention_bias": config.attention.bias, **qwen_windows_to_hf(config)}
