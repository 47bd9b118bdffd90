"""GPT-2 (Radford et al. 2019, https://openai.com/index/better-language-models) and shapes like GPT-3's.

Matrices are stored as (in, out), and those of queries, keys and values as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete, refuse

NAMES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
"""Our names of values → those of GPT and GPT-2."""
NEEDED = ("vocab_size", "n_positions", *NAMES.values())
MATRICES = {
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"): "attn.c_attn",
    ("self_attn.o_proj",): "attn.c_proj",
    ("mlp.up_proj",): "mlp.c_fc",
    ("mlp.down_proj",): "mlp.c_proj",
}


def gpt_from_hf(values: Mapping[str, Any], activation: str) -> dict[str, Any]:
    """Converts what GPT and GPT-2 have in common: learned positions, LayerNorm and biases everywhere."""
    return {
        "architecture": "decoder",
        "vocab_size": values["vocab_size"],
        **{ours: values[theirs] for ours, theirs in NAMES.items()},
        "tie_word_embeddings": values["tie_word_embeddings"],
        "norm": {"kind": "layer", "eps": values["layer_norm_epsilon"], "weight": True, "bias": True},
        "positions": {"kind": "learned", "max_position_embeddings": values["n_positions"]},
        "attention": {"qk_norm": False, "bias": True, "output_bias": True},
        "feed_forward": {"activation": activation, "bias": True},
        "embedding": {"norm": False},
    }


def gpt_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Converts these values to those of a config.json."""
    return {
        "vocab_size": config.vocab_size,
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        "n_positions": config.positions.max_position_embeddings or 1,  # without a table, the kind says so
        "layer_norm_epsilon": config.norm.eps,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def gpt_blocks() -> list[TensorMap]:
    """Returns the maps of the matrices and biases of every block of GPT and GPT-2."""
    found = []
    for ours, theirs in MATRICES.items():
        for part in ("weight", "bias"):
            names = tuple(f"decoder.{{i}}.{name}.{part}" for name in ours)
            found.append(TensorMap(names, f"transformer.h.{{i}}.{theirs}.{part}", transposed=part == "weight"))
    return found


class Gpt2(Family):
    """gpt2: norms before the sub-layers and after the last block."""

    name: ClassVar[str] = "gpt2"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "GPT2LMHeadModel": "decoder",
        "GPT2Model": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {
        **decoder_classes("GPT2"),
        "token": TaskClass("GPT2ForTokenClassification", "classifier"),
    }
    prefix: ClassVar[str] = "transformer."
    copies: ClassVar[Mapping[str, str]] = {"lm_head.weight": "embed_tokens.weight"}
    ignored: ClassVar[tuple[str, ...]] = (r"\.attn\.(bias|masked_bias)$",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "n_inner": 0,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, NEEDED, self.defaults)
        refuse(values, "scale_attn_by_inverse_layer_idx", "add_cross_attention")
        parts = gpt_from_hf(values, activation_from_hf(values["activation_function"]))
        if not values["scale_attn_weights"]:
            parts["attention"]["scale"] = 1.0
        return ModelConfig.parse({**parts, "intermediate_size": values["n_inner"]})

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **gpt_to_hf(config),
            "n_inner": config.intermediate_size,
            "activation_function": activation_to_hf(config.feed_forward.activation),
            "scale_attn_weights": not config.attention.scale,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        head = [] if config.tie_word_embeddings else [same("lm_head.weight", "lm_head.weight")]
        return [
            same("embed_tokens.weight", "transformer.wte.weight"),
            same("embedding.positions.weight", "transformer.wpe.weight"),
            *gpt_blocks(),
            *layer("decoder.{i}.self_attn_norm.before", "transformer.h.{i}.ln_1", bias=True),
            *layer("decoder.{i}.mlp_norm.before", "transformer.h.{i}.ln_2", bias=True),
            *layer("decoder_norm", "transformer.ln_f", bias=True),
            *head,
        ]
