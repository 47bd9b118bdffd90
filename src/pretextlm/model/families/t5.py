"""T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683): relative positions, unscaled scores, RMSNorm, no biases.

Version 1.0 has ReLU and a tied head whose hidden states are scaled by 1/√D; version 1.1 has a gated feed-forward layer
and a head of its own. The bias of positions is kept in the first layer of each stack and serves all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf
from pretextlm.model.families.shared.tensor_maps import TensorMap, same

HEAD = "lm_head.weight"


class T5(Family):
    """t5: encoder-decoder, or its encoder alone."""

    name: ClassVar[str] = "t5"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "T5ForConditionalGeneration": "encoder_decoder",
        "T5EncoderModel": "encoder",
        "T5Model": "encoder_decoder",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias",)
    copies: ClassVar[Mapping[str, str]] = {
        "encoder.embed_tokens.weight": "embed_tokens.weight",
        "decoder.embed_tokens.weight": "embed_tokens.weight",
        HEAD: "embed_tokens.weight",
    }
    projection: ClassVar[str] = "relu"
    """feed_forward_proj of a config.json without one."""

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        architecture = self.classes.get(next(iter(values.get("architectures") or ()), ""), "encoder_decoder")
        activation, gated = projection_from_hf(values.get("feed_forward_proj", self.projection))
        layers = values["num_layers"]
        decoder_layers = values.get("num_decoder_layers") if architecture == "encoder_decoder" else None
        return ModelConfig.parse(
            {
                "architecture": architecture,
                **{ours: values[theirs] for ours, theirs in SAME.items()},
                "num_hidden_layers": layers,
                "num_decoder_layers": decoder_layers or layers,
                "tie_word_embeddings": values.get("tie_word_embeddings") is not False,
                "norm": {"kind": "rms", "eps": values["layer_norm_epsilon"], "weight": True},
                "positions": {
                    "kind": "relative",
                    "num_buckets": values["relative_attention_num_buckets"],
                    "max_distance": values.get("relative_attention_max_distance", 128),
                },
                "attention": {"qk_norm": False, "scale": 1.0},
                "feed_forward": {"activation": activation, "gated": gated},
                "embedding": {"norm": False},
                "head": {"scale": values["d_model"] ** -0.5 if self.scales_head(values) else 1.0},
            }
        )

    def scales_head(self, values: Mapping[str, Any]) -> bool:
        """Returns whether hidden states are scaled before the head; by default, where the head is tied."""
        return bool(values.get("scale_decoder_outputs", values.get("tie_word_embeddings") is not False))

    def adjust_config(self, config: ModelConfig, theirs: Collection[str]) -> ModelConfig:
        """Unties the head of version 1.1: transformers calls every head tied, and ties it only if it finds none."""
        own = HEAD in theirs and (config.head.scale == 1 or not config.tie_word_embeddings)
        return config.model_copy(update={"tie_word_embeddings": not own})

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        written = (name for name, architecture in self.classes.items() if architecture == config.architecture)
        return {
            "model_type": self.name,
            "architectures": [next(written, next(iter(self.classes)))],
            "is_encoder_decoder": config.architecture == "encoder_decoder",
            **{theirs: getattr(config, ours) for ours, theirs in SAME.items()},
            "num_layers": config.num_hidden_layers,
            "num_decoder_layers": config.num_decoder_layers,
            "layer_norm_epsilon": config.norm.eps,
            "relative_attention_num_buckets": config.positions.num_buckets,
            "relative_attention_max_distance": config.positions.max_distance,
            "feed_forward_proj": projection_to_hf(config),
            "tie_word_embeddings": config.tie_word_embeddings,
            **self.head_to_hf(config),
        }

    def head_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        """Returns the values that say whether hidden states are scaled before the head."""
        return {"scale_decoder_outputs": config.head.scale != 1}

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        return [
            same("embed_tokens.weight", "shared.weight"),
            same("lm_head.weight", HEAD),
            *_stack("encoder", feed_forward=1, gated=config.feed_forward.gated),
            *_stack("decoder", feed_forward=2, gated=config.feed_forward.gated),
            *_attention("decoder.{i}.cross_attn", "decoder.block.{i}.layer.1", "EncDecAttention"),
        ]


SAME = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "head_dim": "d_kv",
    "num_attention_heads": "num_heads",
    "intermediate_size": "d_ff",
}
"""Our names of values → Hugging Face's."""


def projection_from_hf(name: str) -> tuple[str, bool]:
    """Returns (activation, whether it is gated) of a feed_forward_proj; gated-gelu is the tanh form."""
    if name == "gated-gelu":
        return "gelu_tanh", True
    return activation_from_hf(name.removeprefix("gated-")), name.startswith("gated-")


def projection_to_hf(config: ModelConfig) -> str:
    """Returns the feed_forward_proj of our feed-forward layer.

    Raises:
        UserError: A layer without a name there.
    """
    activation, gated = config.feed_forward.activation, config.feed_forward.gated
    if not gated:
        return activation_to_hf(activation)
    if activation == "gelu":
        raise UserError("T5 has no gated feed-forward layer with exact GELU.", "Export it in our own format.")
    return "gated-gelu" if activation == "gelu_tanh" else f"gated-{activation_to_hf(activation)}"


def _stack(ours: Literal["encoder", "decoder"], feed_forward: int, gated: bool) -> list[TensorMap]:
    """Returns the maps of a stack: self-attention, feed-forward layer, norms and bias of positions."""
    block, theirs = f"{ours}.{{i}}", f"{ours}.block.{{i}}.layer.{feed_forward}"
    up = {"gate_proj": "wi_0", "up_proj": "wi_1"} if gated else {"up_proj": "wi"}
    return [
        *_attention(f"{block}.self_attn", f"{ours}.block.{{i}}.layer.0", "SelfAttention"),
        *(
            same(f"{block}.mlp.{part}.weight", f"{theirs}.DenseReluDense.{name}.weight")
            for part, name in (up | {"down_proj": "wo"}).items()
        ),
        same(f"{block}.mlp_norm.before.weight", f"{theirs}.layer_norm.weight"),
        same(f"{ours}_norm.weight", f"{ours}.final_layer_norm.weight"),
        same(f"{ours}_bias.weight", f"{ours}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    ]


def _attention(ours: str, theirs: str, kind: str) -> list[TensorMap]:
    return [
        *(same(f"{ours}.{part}_proj.weight", f"{theirs}.{kind}.{part}.weight") for part in "qkvo"),
        same(f"{ours}_norm.before.weight", f"{theirs}.layer_norm.weight"),
    ]
