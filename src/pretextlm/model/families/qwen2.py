"""Qwen 2 (Yang et al. 2024, https://arxiv.org/abs/2407.10671): Llama with biases of queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.windows import windows_in, windows_of, windows_out


class Qwen2(Llama):
    """qwen2: layers from one on may see a window only."""

    name: ClassVar[str] = "qwen2"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "Qwen2ForCausalLM": "decoder",
        "Qwen2Model": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Qwen2")
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "max_window_layers": 28,
    }

    def parts_in(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"attention": {"qk_norm": False, "bias": True, "sliding_windows": qwen_windows_in(values)}}

    def parts_out(self, config: ModelConfig) -> dict[str, Any]:
        return qwen_windows_out(config)


def qwen_windows_in(values: Mapping[str, Any]) -> tuple[int, ...]:
    """The window of each layer, by its kind or by the number of the first with one."""
    window = values.get("sliding_window", 4096) if values["use_sliding_window"] else None
    return windows_in(values, window or 0, lambda i: i >= values["max_window_layers"])


def qwen_windows_out(config: ModelConfig) -> dict[str, Any]:
    """Values of a config.json that say where windows are bounded."""
    windows = windows_of(config)
    if not any(windows):
        return {"use_sliding_window": False}
    first = next(i for i, window in enumerate(windows) if window)
    return {"use_sliding_window": True, "max_window_layers": first, **windows_out(windows)}
