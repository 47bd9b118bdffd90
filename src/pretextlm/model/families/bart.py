"""BART (Lewis et al. 2020, https://arxiv.org/abs/1910.13461): post-norm; positions and norm of each stack's own.

    tokens' table (one, tied to the head) · 1 or √D + the stack's table of positions (rows 0 and 1 unused) → LayerNorm

final_logits_bias is imported as the head's bias; published models have zeros there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same

OFFSET = 2
"""Row of position 0 in the tables of positions."""
EPS = 1e-5
"""Epsilon of every norm; no config.json gives another."""


class Bart(Family):
    """bart: encoder-decoder whose decoder starts from the end token."""

    name: ClassVar[str] = "bart"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "BartForConditionalGeneration": "encoder_decoder",
        "BartModel": "encoder_decoder",
    }
    prefix: ClassVar[str] = "model."
    copies: ClassVar[Mapping[str, str]] = {
        "model.encoder.embed_tokens.weight": "embed_tokens.weight",
        "model.decoder.embed_tokens.weight": "embed_tokens.weight",
        "lm_head.weight": "embed_tokens.weight",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"(en|de)coder\.version$",)
    decoder_start: ClassVar[Literal["pad", "eos"]] = "eos"
    placement: ClassVar[Literal["pre", "post"]] = "post"
    """Placement of the norms; a pre-norm stack ends in another norm."""

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        if values.get("tie_word_embeddings") is False:
            raise UserError(
                f"A {self.name} model with tables of its own for encoder, decoder and head is not known.",
                "Known: tie_word_embeddings = true.",
            )
        for ours, (first, second) in BOTH.items():
            if values[first] != values[second]:
                raise UserError(
                    f"{first} is {values[first]}, {second} is {values[second]}; both stacks have one {ours} here.",
                    "Take a model whose encoder and decoder differ in their number of layers only.",
                )
        width = values["d_model"]
        return ModelConfig.parse(
            {
                "architecture": "encoder_decoder",
                "vocab_size": values["vocab_size"],
                "hidden_size": width,
                "num_hidden_layers": values["encoder_layers"],
                "num_decoder_layers": values["decoder_layers"],
                **{ours: values[first] for ours, (first, _) in BOTH.items()},
                "final_norm": self.placement == "pre",
                "norm": {"kind": "layer", "eps": EPS, "weight": True, "bias": True, "placement": self.placement},
                "positions": {
                    "kind": "learned",
                    "max_position_embeddings": values["max_position_embeddings"] + OFFSET,
                    "offset": OFFSET,
                },
                "attention": {"qk_norm": False, "bias": True, "output_bias": True},
                "feed_forward": {"activation": activation_from_hf(values["activation_function"]), "bias": True},
                "embedding": {"scale": width**0.5 if values.get("scale_embedding") else 1.0, "separate_decoder": True},
                "head": {"bias": True},
            }
        )

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            "is_encoder_decoder": True,
            "vocab_size": config.vocab_size,
            "d_model": config.hidden_size,
            "encoder_layers": config.num_hidden_layers,
            "decoder_layers": config.num_decoder_layers,
            **{name: getattr(config, ours) for ours, names in BOTH.items() for name in names},
            "max_position_embeddings": config.positions.max_position_embeddings - OFFSET,
            "activation_function": activation_to_hf(config.feed_forward.activation),
            "scale_embedding": config.embedding.scale != 1,
            "tie_word_embeddings": config.tie_word_embeddings,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        modules: dict[str, str] = {}
        for stack, embedding in (("encoder", "embedding"), ("decoder", "decoder_embedding")):
            modules[f"{embedding}.norm"] = f"model.{stack}.layernorm_embedding"
            modules |= self._block(stack, "self_attn", "self_attn")
            modules[f"{stack}.{{i}}.mlp.up_proj"] = f"model.{stack}.layers.{{i}}.fc1"
            modules[f"{stack}.{{i}}.mlp.down_proj"] = f"model.{stack}.layers.{{i}}.fc2"
            modules[f"{stack}.{{i}}.mlp_norm.{self.norm}"] = f"model.{stack}.layers.{{i}}.final_layer_norm"
            modules[f"{stack}_norm"] = f"model.{stack}.layer_norm"
        modules |= self._block("decoder", "cross_attn", "encoder_attn")
        return [
            same("embed_tokens.weight", "model.shared.weight"),
            same("embedding.positions.weight", "model.encoder.embed_positions.weight"),
            same("decoder_embedding.positions.weight", "model.decoder.embed_positions.weight"),
            *(one for ours, theirs in modules.items() for one in layer(ours, theirs, bias=True)),
            TensorMap(("head_layers.bias",), "final_logits_bias", unsqueezed=True),
        ]

    @property
    def norm(self) -> str:
        """Our name of a sub-layer's norm (`SubLayer`)."""
        return "last" if self.placement == "post" else "before"

    def _block(self, stack: str, ours: str, theirs: str) -> dict[str, str]:
        """Returns the names of an attention and its norm: ours → Hugging Face's."""
        block, name = f"{stack}.{{i}}.{ours}", f"model.{stack}.layers.{{i}}.{theirs}"
        parts = {f"{block}.{part}_proj": f"{name}.{part}_proj" for part in "qkv"}
        return parts | {f"{block}.o_proj": f"{name}.out_proj", f"{block}_norm.{self.norm}": f"{name}_layer_norm"}


BOTH = {
    "num_attention_heads": ("encoder_attention_heads", "decoder_attention_heads"),
    "intermediate_size": ("encoder_ffn_dim", "decoder_ffn_dim"),
}
"""Our names of values → Hugging Face's for the encoder and for the decoder."""
