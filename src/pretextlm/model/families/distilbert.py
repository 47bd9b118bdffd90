"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): BERT of half the depth, without token types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf, modules
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, same
from pretextlm.model.families.shared.values import complete

EPS = 1e-12
"""Epsilon of all its norms."""

NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}
"""Our name of a value → Hugging Face's."""

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "activation": "gelu",
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
"""Hugging Face's defaults for values that a config.json leaves out."""


class DistilBert(Family):
    """distilbert: no token types and no pooler. Sinusoidal positions are saved as a table, like learned ones."""

    name: ClassVar[str] = "distilbert"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "DistilBertForMaskedLM": "encoder",
        "DistilBertModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = encoder_classes(
        "DistilBert", "pre_classifier", "classifier", "relu"
    )
    prefix: ClassVar[str] = "distilbert."
    copies: ClassVar[Mapping[str, str]] = {"vocab_projector.weight": "embed_tokens.weight"}
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, (), DEFAULTS)
        activation = activation_from_hf(values["activation"])
        return ModelConfig.parse(
            {
                "architecture": "encoder",
                **{ours: values[theirs] for ours, theirs in NAMES.items()},
                "tie_word_embeddings": values["tie_word_embeddings"],
                "final_norm": False,
                "norm": {"kind": "layer", "eps": EPS, "weight": True, "bias": True, "placement": "post"},
                "positions": {"kind": "learned", "max_position_embeddings": values["max_position_embeddings"]},
                "attention": {"qk_norm": False, "bias": True, "output_bias": True},
                "feed_forward": {"activation": activation, "bias": True},
                "head": {"dense": True, "activation": activation, "norm": True, "bias": True},
            }
        )

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
            "activation": activation_to_hf(config.feed_forward.activation),
            "max_position_embeddings": config.positions.max_position_embeddings,
            "tie_word_embeddings": config.tie_word_embeddings,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        block, theirs = "encoder.{i}", "distilbert.transformer.layer.{i}"
        tables = "distilbert.embeddings"
        names = {
            "embedding.norm": f"{tables}.LayerNorm",
            f"{block}.self_attn.q_proj": f"{theirs}.attention.q_lin",
            f"{block}.self_attn.k_proj": f"{theirs}.attention.k_lin",
            f"{block}.self_attn.v_proj": f"{theirs}.attention.v_lin",
            f"{block}.self_attn.o_proj": f"{theirs}.attention.out_lin",
            f"{block}.self_attn_norm.last": f"{theirs}.sa_layer_norm",
            f"{block}.mlp.up_proj": f"{theirs}.ffn.lin1",
            f"{block}.mlp.down_proj": f"{theirs}.ffn.lin2",
            f"{block}.mlp_norm.last": f"{theirs}.output_layer_norm",
            "head_layers.dense": "vocab_transform",
            "head_layers.norm": "vocab_layer_norm",
        }
        return [
            same("embed_tokens.weight", f"{tables}.word_embeddings.weight"),
            same("embedding.positions.weight", f"{tables}.position_embeddings.weight"),
            *modules(names),
            same("head_layers.bias", "vocab_projector.bias"),
            *([] if config.tie_word_embeddings else [same("lm_head.weight", "vocab_projector.weight")]),
        ]
