"""Longformer (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150): RoBERTa with a window and global tokens.

Which tokens are global is not in the checkpoint: transformers takes a mask of them with every batch. Ours are the first
`attention.global_tokens` of each document; an imported model has one, its [CLS], unless it is set otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.bert import embeddings, layers, modules
from pretextlm.model.families.roberta import Roberta
from pretextlm.model.families.shared.pooler import pooler_maps
from pretextlm.model.families.shared.task_classes import Kind, TaskClass
from pretextlm.model.families.shared.tensor_maps import TensorMap


class Longformer(Roberta):
    """longformer: encoder with a sliding window, half of it to each side."""

    name: ClassVar[str] = "longformer"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "LongformerForMaskedLM": "encoder",
        "LongformerModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {}
    prefix: ClassVar[str] = "longformer."
    pooler: ClassVar[str] = "longformer.pooler.dense"
    copies: ClassVar[Mapping[str, str]] = {
        "lm_head.decoder.weight": "embed_tokens.weight",
        "lm_head.decoder.bias": "head_layers.bias",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        windows = values.get("attention_window", 512)
        windows = [windows] if isinstance(windows, int) else list(windows)
        if not all(isinstance(window, int) and window > 0 and window % 2 == 0 for window in windows):
            raise UserError(f"Windows {windows} are not even numbers above 0.", "Give attention_window so.")
        config = super().config_from_hf(values)
        attention = {"sliding_windows": windows, "global_tokens": 1, "global_projections": True}
        plain = config.model_dump()
        return ModelConfig.parse({**plain, "attention": {**plain["attention"], **attention}})

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        if not config.attention.global_projections:
            raise UserError("A Longformer has projections of its own for global tokens.", "Export it as roberta.")
        windows, layers = config.attention.sliding_windows, config.num_hidden_layers
        each = [windows[i % len(windows)] for i in range(layers)]
        return super().config_to_hf(config) | {"attention_window": each}

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        block, theirs = "encoder.{i}.self_attn.of_globals", "longformer.encoder.layer.{i}.attention.self"
        return [
            *embeddings("longformer.embeddings"),
            *layers("longformer.encoder.layer.{i}"),
            *modules(
                {
                    f"{block}.q_proj": f"{theirs}.query_global",
                    f"{block}.k_proj": f"{theirs}.key_global",
                    f"{block}.v_proj": f"{theirs}.value_global",
                }
            ),
            *self.head(),
            *pooler_maps(config, self.pooler),
        ]
