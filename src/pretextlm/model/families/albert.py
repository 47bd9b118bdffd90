"""ALBERT (Lan et al. 2020, https://arxiv.org/abs/1909.11942): a BERT of one block's weights and a narrow embedding."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family, HeadClass
from pretextlm.model.families.bert import (
    DEFAULTS,
    activation_from_hf,
    embeddings,
    modules,
    post_norm_from_hf,
    post_norm_to_hf,
    refuse_untied,
)
from pretextlm.model.families.shared.pooler import has_pooler, pooler_from_hf, pooler_maps, pooler_to_hf, with_pooler
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, same
from pretextlm.model.families.shared.values import complete

POOLER = "albert.pooler"

LARGEST: Mapping[str, Any] = {
    "vocab_size": 30000,
    "embedding_size": 128,
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "intermediate_size": 16384,
    "hidden_act": "gelu_new",
}
"""Hugging Face's defaults for values that a config.json leaves out, where they differ from BERT's."""


class Albert(Family):
    """albert: every layer has the same weights."""

    name: ClassVar[str] = "albert"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "AlbertForMaskedLM": "encoder",
        "AlbertForPreTraining": "encoder",
        "AlbertModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = encoder_classes("Albert", "albert.pooler", "classifier")
    prefix: ClassVar[str] = "albert."
    copies: ClassVar[Mapping[str, str]] = {
        "predictions.decoder.weight": "embed_tokens.weight",
        "predictions.decoder.bias": "head_layers.bias",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)
    heads: ClassVar[tuple[HeadClass, ...]] = (
        HeadClass("pair", "AlbertForPreTraining", rows={"heads.pair.classifier.weight": 2}),
    )

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, (), {**DEFAULTS, **LARGEST})
        refuse_untied(self, values)
        for name in ("num_hidden_groups", "inner_group_num"):
            if values.get(name, 1) != 1:
                raise UserError(f"ALBERT with {name} {values[name]!r} is not known.", "Known: 1.")
        if values["embedding_size"] == values["hidden_size"]:
            raise UserError(
                "An ALBERT whose embedding is as wide as its blocks is not known.",
                "Give an embedding_size below hidden_size.",
            )
        config = post_norm_from_hf(self, values, activation_from_hf(values["hidden_act"]))
        return pooler_from_hf(self, config.model_copy(update={"share_layers": True}), values)

    def adjust_config(self, config: ModelConfig, theirs: Collection[str]) -> ModelConfig:
        return with_pooler(config, has_pooler(self, POOLER, theirs))

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        one = {"num_hidden_groups": 1, "inner_group_num": 1}
        return (
            post_norm_to_hf(self, config) | {"embedding_size": config.embedding_size} | one | pooler_to_hf(self, config)
        )

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        block, theirs = "encoder.0", "albert.encoder.albert_layer_groups.0.albert_layers.0"
        names = {
            "embedding.projection": "albert.encoder.embedding_hidden_mapping_in",
            f"{block}.self_attn.q_proj": f"{theirs}.attention.query",
            f"{block}.self_attn.k_proj": f"{theirs}.attention.key",
            f"{block}.self_attn.v_proj": f"{theirs}.attention.value",
            f"{block}.self_attn.o_proj": f"{theirs}.attention.dense",
            f"{block}.self_attn_norm.last": f"{theirs}.attention.LayerNorm",
            f"{block}.mlp.up_proj": f"{theirs}.ffn",
            f"{block}.mlp.down_proj": f"{theirs}.ffn_output",
            f"{block}.mlp_norm.last": f"{theirs}.full_layer_layer_norm",
            "head_layers.dense": "predictions.dense",
            "head_layers.norm": "predictions.LayerNorm",
            "heads.pair.pooler": POOLER,
            "heads.pair.classifier": "sop_classifier.classifier",
        }
        return [
            *embeddings("albert.embeddings"),
            *pooler_maps(config, POOLER),
            *modules(names),
            same("head_layers.bias", "predictions.bias"),
        ]
