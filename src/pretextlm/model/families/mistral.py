"""Mistral (Jiang et al. 2023, https://arxiv.org/abs/2310.06825): Llama with a sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes


class Mistral(Llama):
    """mistral: no biases, one window for all layers or none."""

    name: ClassVar[str] = "mistral"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "MistralForCausalLM": "decoder",
        "MistralModel": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Mistral")
    whole_heads: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
    }

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        window = values.get("sliding_window", 4096)  # null is no window
        return {"attention": {"qk_norm": False, "sliding_windows": (window or 0,)}}

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {"sliding_window": config.attention.sliding_windows[0] or None}
