"""Qwen 2 (Yang et al. 2024, https://arxiv.org/abs/2407.10671): Llama with biases of queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.windows import window_of_each_layer, windows_from_hf, windows_to_hf


class Qwen2(Llama):
    """qwen2: layers from a certain one on may have a sliding window."""

    name: ClassVar[str] = "qwen2"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "Qwen2ForCausalLM": "decoder",
        "Qwen2Model": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Qwen2")
    whole_heads: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "max_window_layers": 28,
    }

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"attention": {"qk_norm": False, "bias": True, "sliding_windows": qwen_windows_from_hf(values)}}

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return qwen_windows_to_hf(config)


def qwen_windows_from_hf(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the window of each layer, by its kind or by the number of the first with one."""
    window = values.get("sliding_window", 4096) if values["use_sliding_window"] else None
    return windows_from_hf(values, window or 0, lambda i: i >= values["max_window_layers"])


def qwen_windows_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Converts windows to values of a config.json."""
    windows = window_of_each_layer(config)
    if not any(windows):
        return {"use_sliding_window": False}
    first = next(i for i, window in enumerate(windows) if window)
    return {"use_sliding_window": True, "max_window_layers": first, **windows_to_hf(windows)}
