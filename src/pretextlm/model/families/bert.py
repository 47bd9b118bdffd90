"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): post-norm, learned positions, a dense head layer.

Also the functions that the families derived from it share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family, HeadClass
from pretextlm.model.families.shared.pooler import has_pooler, pooler_from_hf, pooler_maps, pooler_to_hf, with_pooler
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete

POOLER = "bert.pooler.dense"

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
"""Hugging Face's name of an activation → ours."""

SAME = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "type_vocab_size",
)
"""Values with the same name in both configurations."""

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
}
"""Hugging Face's defaults for values that a config.json leaves out."""


class Bert(Family):
    """bert: encoder with [CLS], [SEP] and two token types."""

    name: ClassVar[str] = "bert"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "BertForMaskedLM": "encoder",
        "BertForPreTraining": "encoder",
        "BertModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = encoder_classes("Bert", "bert.pooler.dense", "classifier")
    prefix: ClassVar[str] = "bert."
    copies: ClassVar[Mapping[str, str]] = {
        "cls.predictions.decoder.weight": "embed_tokens.weight",
        "cls.predictions.decoder.bias": "head_layers.bias",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)
    heads: ClassVar[tuple[HeadClass, ...]] = (
        HeadClass("pair", "BertForPreTraining", rows={"heads.pair.classifier.weight": 2}),
    )

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, (), DEFAULTS)
        refuse_untied(self, values)
        return pooler_from_hf(self, post_norm_from_hf(self, values, activation_from_hf(values["hidden_act"])), values)

    def adjust_config(self, config: ModelConfig, theirs: Collection[str]) -> ModelConfig:
        return with_pooler(config, has_pooler(self, POOLER, theirs))

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return post_norm_to_hf(self, config) | pooler_to_hf(self, config)

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        head = {
            "head_layers.dense": "cls.predictions.transform.dense",
            "head_layers.norm": "cls.predictions.transform.LayerNorm",
            "heads.pair.pooler": POOLER,
            "heads.pair.classifier": "cls.seq_relationship",
        }
        return [
            *embeddings("bert.embeddings"),
            *layers("bert.encoder.layer.{i}"),
            *pooler_maps(config, POOLER),
            *modules(head),
            same("head_layers.bias", "cls.predictions.bias"),
        ]


def activation_from_hf(name: Any) -> str:
    """Returns our name of an activation.

    Raises:
        UserError: An activation that our transformer does not have.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UserError(f"The activation {name!r} is not known.", f"Known: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def activation_to_hf(name: str) -> str:
    """Returns Hugging Face's name of an activation.

    Raises:
        UserError: One without a name there.
    """
    for theirs, ours in ACTIVATIONS.items():
        if ours == name:
            return theirs
    raise UserError(f"Hugging Face has no name for the activation {name!r}.", "Export it in our own format.")


def post_norm_from_hf(family: Family, values: Mapping[str, Any], head_activation: str, offset: int = 0) -> ModelConfig:
    """Converts the config.json of an encoder like BERT.

    Args:
        family: The family.
        values: Values of the config.json, complete with DEFAULTS.
        head_activation: Activation after the dense layer of the head.
        offset: Row of the table of positions for position 0.

    Raises:
        UserError: A decoder, or positions of another kind.
    """
    kind = values.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise UserError(f"Positions of kind {kind!r} are not known in {family.name!r}.", "Known: absolute.")
    for name in ("is_decoder", "add_cross_attention"):
        if values.get(name):
            raise UserError(f"A model of the family {family.name!r} with {name} is not known.", "Give an encoder.")
    if not values["type_vocab_size"]:
        raise UserError(
            f"A model of the family {family.name!r} has one token type or more.", "Use distilbert for a model of none."
        )
    size = values.get("embedding_size", values["hidden_size"])
    return ModelConfig.parse(
        {
            "architecture": "encoder",
            **{key: values[key] for key in SAME},
            "embedding_size": size,
            "tie_word_embeddings": values["tie_word_embeddings"],
            "final_norm": False,
            "norm": {
                "kind": "layer",
                "eps": values["layer_norm_eps"],
                "weight": True,
                "bias": True,
                "placement": "post",
            },
            "positions": {
                "kind": "learned",
                "max_position_embeddings": values["max_position_embeddings"],
                "offset": offset,
            },
            "attention": {"qk_norm": False, "bias": True, "output_bias": True},
            "feed_forward": {"activation": activation_from_hf(values["hidden_act"]), "bias": True},
            "embedding": {"projection_bias": size != values["hidden_size"]},
            "head": {"dense": True, "activation": head_activation, "norm": True, "bias": True},
        }
    )


def post_norm_to_hf(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Converts the shape of an encoder like BERT to values of a config.json."""
    return {
        "model_type": family.name,
        "architectures": [next(iter(family.classes))],
        **{key: getattr(config, key) for key in SAME},
        "hidden_act": activation_to_hf(config.feed_forward.activation),
        "layer_norm_eps": config.norm.eps,
        "max_position_embeddings": config.positions.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def refuse_untied(family: Family, values: Mapping[str, Any]) -> None:
    """Refuses a head with a matrix of its own, which would have two biases.

    Raises:
        UserError: The head is not tied to the embedding.
    """
    if not values["tie_word_embeddings"]:
        raise UserError(
            f"A model of the family {family.name!r} has the embedding as the head's matrix.",
            "Give tie_word_embeddings = true.",
        )


def modules(names: Mapping[str, str]) -> list[TensorMap]:
    """Returns the maps of the weights and biases of modules.

    Args:
        names: Our name → Hugging Face's.
    """
    return [one for ours, theirs in names.items() for one in layer(ours, theirs, bias=True)]


def embeddings(theirs: str) -> list[TensorMap]:
    """Returns the maps of the three embedding tables and their norm.

    Args:
        theirs: Name of the embedding layer.
    """
    return [
        same("embed_tokens.weight", f"{theirs}.word_embeddings.weight"),
        same("embedding.types.weight", f"{theirs}.token_type_embeddings.weight"),
        same("embedding.positions.weight", f"{theirs}.position_embeddings.weight"),
        *layer("embedding.norm", f"{theirs}.LayerNorm", bias=True),
    ]


def layers(theirs: str) -> list[TensorMap]:
    """Returns the maps of the blocks.

    Args:
        theirs: Name of a block, with {i} for its number.
    """
    ours = "encoder.{i}"
    return modules(
        {
            f"{ours}.self_attn.q_proj": f"{theirs}.attention.self.query",
            f"{ours}.self_attn.k_proj": f"{theirs}.attention.self.key",
            f"{ours}.self_attn.v_proj": f"{theirs}.attention.self.value",
            f"{ours}.self_attn.o_proj": f"{theirs}.attention.output.dense",
            f"{ours}.self_attn_norm.last": f"{theirs}.attention.output.LayerNorm",
            f"{ours}.mlp.up_proj": f"{theirs}.intermediate.dense",
            f"{ours}.mlp.down_proj": f"{theirs}.output.dense",
            f"{ours}.mlp_norm.last": f"{theirs}.output.LayerNorm",
        }
    )
