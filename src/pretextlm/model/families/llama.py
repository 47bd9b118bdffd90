"""Llama (Touvron et al. 2023, https://arxiv.org/abs/2302.13971) and the families derived from it.

RMSNorm before each sub-layer, rotary positions, gated SiLU, queries in groups that share keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import activation_from_hf, activation_to_hf
from pretextlm.model.families.shared.rope import rope_from_hf, rope_to_hf
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete

NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SAME = (*NEEDED, "num_key_value_heads", "head_dim", "tie_word_embeddings")
"""Values with the same name in both configurations."""


class Llama(Family):
    """llama. A derived family gives its own defaults, and the parts in which it differs.

    Attributes:
        defaults: Values that a config.json may leave out; 0 heads or width are derived from the others.
        activation: Name of the activation's value.
        whole_heads: Whether transformers' configuration insists that the heads' number divides the width, even if they
            have a width of their own.
    """

    name: ClassVar[str] = "llama"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "LlamaForCausalLM": "decoder",
        "LlamaModel": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = decoder_classes("Llama")
    prefix: ClassVar[str] = "model."
    copies: ClassVar[Mapping[str, str]] = {"lm_head.weight": "embed_tokens.weight"}
    ignored: ClassVar[tuple[str, ...]] = (r"rotary_emb\.inv_freq$",)
    activation: ClassVar[str] = "hidden_act"
    whole_heads: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 0,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "mlp_bias": False,
    }

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, NEEDED, self.defaults)
        return ModelConfig.parse(
            {
                "architecture": "decoder",
                **{key: values[key] for key in SAME},
                "norm": {"kind": "rms", "eps": values["rms_norm_eps"], "weight": True},
                "positions": rope_from_hf(values),
                "attention": {"qk_norm": False},
                "feed_forward": {"activation": activation_from_hf(values[self.activation]), "gated": True},
                "embedding": {"norm": False},
            }
            | self.parts_from_hf(values)
        )

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Converts the parts in which this family differs from Llama."""
        bias = values["attention_bias"]
        return {
            "attention": {"qk_norm": False, "bias": bias, "output_bias": bias},
            "feed_forward": {
                "activation": activation_from_hf(values[self.activation]),
                "gated": True,
                "bias": values["mlp_bias"],
            },
        }

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        heads, width = config.num_attention_heads, config.hidden_size
        if self.whole_heads and width % heads:
            raise UserError(
                f"transformers reads no model of the family {self.name!r} with {heads} heads for a width of {width}.",
                "Export it with --family mistral, if it has no biases, or prune to a number of heads that divides it.",
            )
        usual = width // heads
        own_width = {} if self.defaults["head_dim"] == 0 and config.head_dim == usual else {"head_dim": config.head_dim}
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **{key: getattr(config, key) for key in SAME if key != "head_dim"},
            **own_width,
            self.activation: activation_to_hf(config.feed_forward.activation),
            "rms_norm_eps": config.norm.eps,
            **rope_to_hf(config),
            **self.parts_to_hf(config),
        }

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        """Converts these parts to values of a config.json."""
        return {"attention_bias": config.attention.bias, "mlp_bias": config.feed_forward.bias}

    def norms(self) -> dict[str, str]:
        """Returns the names of a block's norms: ours → Hugging Face's."""
        return {"self_attn_norm.before": "input_layernorm", "mlp_norm.before": "post_attention_layernorm"}

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        ours, theirs = "decoder.{i}", "model.layers.{i}"
        attention, wide = config.attention, config.feed_forward.bias
        biased = {"q_proj": attention.bias, "k_proj": attention.bias, "v_proj": attention.bias}
        biased |= {"o_proj": attention.output_bias}
        modules = {f"self_attn.{name}": bias for name, bias in biased.items()}
        modules |= {f"mlp.{name}": wide for name in ("gate_proj", "up_proj", "down_proj")}
        norms = self.norms()
        if attention.qk_norm_weight:
            norms |= {f"self_attn.{name}": f"self_attn.{name}" for name in ("q_norm", "k_norm")}
        head = [] if config.tie_word_embeddings else [same("lm_head.weight", "lm_head.weight")]
        return [
            same("embed_tokens.weight", "model.embed_tokens.weight"),
            *(one for name, bias in modules.items() for one in layer(f"{ours}.{name}", f"{theirs}.{name}", bias)),
            *(same(f"{ours}.{norm}.weight", f"{theirs}.{name}.weight") for norm, name in norms.items()),
            same("decoder_norm.weight", "model.norm.weight"),
            *head,
        ]
