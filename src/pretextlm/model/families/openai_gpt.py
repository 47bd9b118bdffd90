"""GPT (Radford et al. 2018, https://openai.com/index/language-unsupervised): the norm after each sub-layer's sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.gpt2 import NEEDED, gpt_blocks, gpt_from_hf, gpt_to_hf
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, decoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete

ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
"""This family's names of activations → ours."""


class OpenAIGpt(Family):
    """openai-gpt: no norm after the last block; the feed-forward layer is four times as wide as the model."""

    name: ClassVar[str] = "openai-gpt"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "OpenAIGPTLMHeadModel": "decoder",
        "OpenAIGPTModel": "decoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {"sequence": decoder_classes("OpenAIGPT")["sequence"]}
    prefix: ClassVar[str] = "transformer."
    copies: ClassVar[Mapping[str, str]] = {"lm_head.weight": "embed_tokens.weight"}
    ignored: ClassVar[tuple[str, ...]] = (r"\.attn\.bias$", r"position_ids$")
    defaults: ClassVar[Mapping[str, Any]] = {"afn": "gelu", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = complete(values, NEEDED, self.defaults)
        if values["afn"] not in ACTIVATIONS:
            raise UserError(f"The activation {values['afn']!r} is not known.", f"Known: {', '.join(ACTIVATIONS)}.")
        parts = gpt_from_hf(values, ACTIVATIONS[values["afn"]])
        parts["norm"]["placement"] = "post"
        return ModelConfig.parse({**parts, "final_norm": False})

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
        return {
            "model_type": self.name,
            "architectures": [next(iter(self.classes))],
            **gpt_to_hf(config),
            "afn": names.get(config.feed_forward.activation, "gelu"),
        }

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        head = [] if config.tie_word_embeddings else [same("lm_head.weight", "lm_head.weight")]
        return [
            same("embed_tokens.weight", "transformer.tokens_embed.weight"),
            same("embedding.positions.weight", "transformer.positions_embed.weight"),
            *gpt_blocks(),
            *layer("decoder.{i}.self_attn_norm.last", "transformer.h.{i}.ln_1", bias=True),
            *layer("decoder.{i}.mlp_norm.last", "transformer.h.{i}.ln_2", bias=True),
            *head,
        ]
