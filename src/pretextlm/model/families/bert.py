"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): post-norm, learned positions, a dense layer in the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family, Map, layer, same

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
"""Hugging Face's names of activations → ours."""


def activation_in(name: str) -> str:
    """Our name of an activation. Raises UserError for one the trunk does not have."""
    if name not in ACTIVATIONS:
        raise UserError(f"The activation {name!r} is not known.", f"Known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def activation_out(name: str) -> str:
    """Hugging Face's name of one of our activations."""
    for theirs, ours in ACTIVATIONS.items():
        if ours == name:
            return theirs
    raise UserError(f"Hugging Face has no name for the activation {name!r}.", "Export it in our own format.")


class Bert(Family):
    """bert: encoder with [CLS], [SEP] and two token types."""

    name: ClassVar[str] = "bert"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "BertForMaskedLM": "encoder",
        "BertForPreTraining": "encoder",
        "BertModel": "encoder",
    }
    prefix: ClassVar[str] = "bert."
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$", r"cls\.predictions\.decoder\.(weight|bias)$")

    def config_in(self, values: Mapping[str, Any]) -> ModelConfig:
        kind = values.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise UserError(f"BERT with positions of kind {kind!r} is not known.", "Known: absolute.")
        norm = {"kind": "layer", "eps": values["layer_norm_eps"], "weight": True, "bias": True, "place": "after"}
        act = activation_in(values["hidden_act"])
        return ModelConfig.parse(
            {
                "architecture": "encoder",
                **{key: values[key] for key in SAME},
                "final_norm": False,
                "norm": norm,
                "positions": {"kind": "learned", "max_positions": values["max_position_embeddings"]},
                "attention": {"normalise_heads": False, "bias": True, "output_bias": True},
                "feed_forward": {"activation": act, "bias": True},
                "head": {"dense": True, "activation": act, "norm": True, "bias": True},
            }
        )

    def config_out(self, config: ModelConfig) -> dict[str, Any]:
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **{key: getattr(config, key) for key in SAME},
            "hidden_act": activation_out(config.feed_forward.activation),
            "layer_norm_eps": config.norm.eps,
            "max_position_embeddings": config.positions.max_positions,
            "tie_word_embeddings": config.tie_word_embeddings,
        }

    def maps(self, config: ModelConfig) -> list[Map]:
        block, theirs = "encoder.{i}", "bert.encoder.layer.{i}"
        modules = {
            "embedding.norm": "bert.embeddings.LayerNorm",
            f"{block}.self_attn.q_proj": f"{theirs}.attention.self.query",
            f"{block}.self_attn.k_proj": f"{theirs}.attention.self.key",
            f"{block}.self_attn.v_proj": f"{theirs}.attention.self.value",
            f"{block}.self_attn.o_proj": f"{theirs}.attention.output.dense",
            f"{block}.self_attn_norm.last": f"{theirs}.attention.output.LayerNorm",
            f"{block}.mlp.up_proj": f"{theirs}.intermediate.dense",
            f"{block}.mlp.down_proj": f"{theirs}.output.dense",
            f"{block}.mlp_norm.last": f"{theirs}.output.LayerNorm",
            "head_layers.dense": "cls.predictions.transform.dense",
            "head_layers.norm": "cls.predictions.transform.LayerNorm",
        }
        return [
            same("embed_tokens.weight", "bert.embeddings.word_embeddings.weight"),
            same("embedding.types.weight", "bert.embeddings.token_type_embeddings.weight"),
            same("embedding.positions.weight", "bert.embeddings.position_embeddings.weight"),
            *(one for ours, name in modules.items() for one in layer(ours, name, bias=True)),
            same("head_layers.bias", "cls.predictions.bias"),
        ]


SAME = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "type_vocab_size",
)
"""Values that both configurations call alike."""
