"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): pre-norm, rotary, gated, mostly without biases.

Every third layer has full attention, the others a sliding window, and the two kinds have different rotary angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete
from pretextlm.model.families.shared.windows import window_of_each_layer, windows_from_hf, windows_to_hf

SAME = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
"""Values with the same name in both configurations."""

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "decoder_bias": True,
    "classifier_bias": False,
    "classifier_activation": "gelu",
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "tie_word_embeddings": True,
}
"""Hugging Face's defaults for values that a config.json leaves out."""

THETAS = {
    "full_attention": ("global_rope_theta", 160_000.0),
    "sliding_attention": ("local_rope_theta", 10_000.0),
}
"""Kind of a layer → the name of its angles' base in older configurations, and its default."""


class ModernBert(Family):
    """modernbert. The first block's attention has no norm: it reads the embedding, which is normalized already."""

    name: ClassVar[str] = "modernbert"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "ModernBertForMaskedLM": "encoder",
        "ModernBertModel": "encoder",
    }
    prefix: ClassVar[str] = "model."
    copies: ClassVar[Mapping[str, str]] = {"decoder.weight": "embed_tokens.weight"}
    ignored: ClassVar[tuple[str, ...]] = (r"inv_freq$",)

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, (), DEFAULTS)
        every, bias = values["global_attn_every_n_layers"], values["attention_bias"]
        theta, local = (_theta(values, kind) for kind in ("full_attention", "sliding_attention"))
        if values["local_attention"] < 1 or every < 1:
            raise UserError(
                f"A window of {values['local_attention']} tokens in all but each {every}th layer is none.",
                "Give a local_attention and a global_attn_every_n_layers of 1 or more.",
            )
        return ModelConfig.parse(
            {
                "architecture": "encoder",
                **{key: values[key] for key in SAME},
                "tie_word_embeddings": values["tie_word_embeddings"],
                "norm": {
                    "kind": "layer",
                    "eps": values["norm_eps"],
                    "weight": True,
                    "bias": values["norm_bias"],
                    "first_layer": False,
                },
                "positions": {
                    "kind": "rotary",
                    "rope_theta": theta,
                    "local_rope_theta": 0.0 if local == theta else local,
                    "max_position_embeddings": values["max_position_embeddings"],
                },
                "attention": {
                    "qk_norm": False,
                    "bias": bias,
                    "output_bias": bias,
                    "sliding_windows": windows_from_hf(values, values["local_attention"], lambda i: i % every > 0),
                },
                "feed_forward": {
                    "activation": activation_from_hf(values["hidden_activation"]),
                    "gated": True,
                    "bias": values["mlp_bias"],
                },
                "head": {
                    "dense": True,
                    "dense_bias": values["classifier_bias"],
                    "activation": activation_from_hf(values["classifier_activation"]),
                    "norm": True,
                    "bias": values["decoder_bias"],
                },
            }
        )

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        windows, places = window_of_each_layer(config), config.positions
        thetas = zip(THETAS, (places.rope_theta, places.local_rope_theta or places.rope_theta), strict=True)
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **{key: getattr(config, key) for key in SAME},
            "hidden_activation": activation_to_hf(config.feed_forward.activation),
            "max_position_embeddings": places.max_position_embeddings or DEFAULTS["max_position_embeddings"],
            "norm_eps": config.norm.eps,
            "norm_bias": config.norm.bias,
            "attention_bias": config.attention.bias,
            "mlp_bias": config.feed_forward.bias,
            "decoder_bias": config.head.bias,
            "classifier_bias": config.head.dense_bias,
            "classifier_activation": activation_to_hf(config.head.activation),
            "layer_types": windows_to_hf(windows)["layer_types"],
            "local_attention": max(windows) or DEFAULTS["local_attention"],
            "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas},
            "tie_word_embeddings": config.tie_word_embeddings,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        block, theirs = "encoder.{i}", "model.layers.{i}"
        attention, mlp, norm = config.attention.bias, config.feed_forward.bias, config.norm.bias
        return [
            same("embed_tokens.weight", "model.embeddings.tok_embeddings.weight"),
            *layer("embedding.norm", "model.embeddings.norm", norm),
            *layer(f"{block}.self_attn_norm.before", f"{theirs}.attn_norm", norm),
            *_joined([f"{block}.self_attn.{part}_proj" for part in "qkv"], f"{theirs}.attn.Wqkv", attention),
            *layer(f"{block}.self_attn.o_proj", f"{theirs}.attn.Wo", attention),
            *layer(f"{block}.mlp_norm.before", f"{theirs}.mlp_norm", norm),
            *_joined([f"{block}.mlp.gate_proj", f"{block}.mlp.up_proj"], f"{theirs}.mlp.Wi", mlp),
            *layer(f"{block}.mlp.down_proj", f"{theirs}.mlp.Wo", mlp),
            *layer("encoder_norm", "model.final_norm", norm),
            *layer("head_layers.dense", "head.dense", config.head.dense_bias),
            *layer("head_layers.norm", "head.norm", norm),
            *([same("head_layers.bias", "decoder.bias")] if config.head.bias else []),
            *([] if config.tie_word_embeddings else [same("lm_head.weight", "decoder.weight")]),
        ]


def _joined(ours: list[str], theirs: str, bias: bool) -> list[TensorMap]:
    """Maps modules of ours that are concatenated in one of theirs."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [TensorMap(tuple(f"{name}.{part}" for name in ours), f"{theirs}.{part}") for part in parts]


def _theta(values: Mapping[str, Any], kind: str) -> Any:
    """Returns the base of the rotary angles of a kind of layers.

    Raises:
        UserError: The angles are scaled.
    """
    older, default = THETAS[kind]
    every = values.get("rope_parameters") or {}
    found = every.get(kind) if isinstance(every, Mapping) else None
    found = found if isinstance(found, Mapping) else {}
    if found.get("rope_type", "default") != "default" or values.get("rope_scaling"):
        raise UserError("Rotary angles that are scaled are not known in 'modernbert'.", "Known: rope_type default.")
    return found.get("rope_theta") or values.get(older) or default
