"""NanoChat (Karpathy 2025, https://github.com/karpathy/nanochat): the decoder of our default shape.

RMSNorm without weights before each sub-layer, on the embedding and at the end, normalized queries and keys, rotary
positions, ReLU², bounded logits.

It rotates by the negative angle. In a head of width 4 at position p, with c = cos(p), s = sin(p) for the pair (x0, x2):

    ours          (x0, x2)  →  (x0 c - x2 s,  x2 c + x0 s)
    NanoChat's    (x0, x2)  →  (x0 c + x2 s,  x2 c - x0 s)

Theirs is ours with the two halves of the head exchanged: with (y0, y2) = (x2, x0), NanoChat's gives (y0 c + y2 s,
y2 c - y0 s) = (x2 c + x0 s, x0 c - x2 s), our result with its halves exchanged. Queries and keys are both exchanged, so
that their products are equal. The rows of q_proj and k_proj are therefore reordered, per head, as 2 3 0 1.

It normalizes after the rotation and we before it, which is the same: a rotation changes no length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.bert import activation_from_hf
from pretextlm.model.families.llama import Llama
from pretextlm.model.families.shared.task_classes import Kind, TaskClass
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same

MODULES = {"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}
"""Modules of a block with another name there, and neither bias nor heads."""


class NanoChat(Llama):
    """nanochat: like Llama in its configuration, without weights of norms."""

    name: ClassVar[str] = "nanochat"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "NanoChatForCausalLM": "decoder",
        "NanoChatModel": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 0,
        "head_dim": 0,
        "tie_word_embeddings": False,
        "hidden_act": "relu2",
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
    }

    def parts_from_hf(self, values: Mapping[str, Any]) -> dict[str, Any]:
        bias = values["attention_bias"]
        return {
            "norm": {"kind": "rms", "eps": values["rms_norm_eps"], "weight": False},
            "attention": {"qk_norm": True, "bias": bias, "output_bias": bias},
            "feed_forward": {"activation": activation_from_hf(values["hidden_act"])},
            "embedding": {"norm": True},
            "logit_softcap": values.get("final_logit_softcapping", 15.0) or 0.0,
        }

    def parts_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {
            "attention_bias": config.attention.bias,
            "final_logit_softcapping": config.logit_softcap or None,
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        ours, theirs, bias = "decoder.{i}", "model.layers.{i}", config.attention.bias
        rotated = [
            replace(one, swapped_halves=config.head_dim)
            for name in ("self_attn.q_proj", "self_attn.k_proj")
            for one in layer(f"{ours}.{name}", f"{theirs}.{name}", bias)
        ]
        others = [
            *layer(f"{ours}.self_attn.v_proj", f"{theirs}.self_attn.v_proj", bias),
            *layer(f"{ours}.self_attn.o_proj", f"{theirs}.self_attn.o_proj", config.attention.output_bias),
            *(one for our, their in MODULES.items() for one in layer(f"{ours}.{our}", f"{theirs}.{their}", bias=False)),
        ]
        head = [] if config.tie_word_embeddings else [same("lm_head.weight", "lm_head.weight")]
        return [same("embed_tokens.weight", "model.embed_tokens.weight"), *rotated, *others, *head]
