"""ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555): a BERT with a narrow embedding that judges tokens.

Its generator is a masked language model of the same family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family, HeadClass
from pretextlm.model.families.bert import DEFAULTS, embeddings, layers, modules, post_norm_from_hf, post_norm_to_hf
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same
from pretextlm.model.families.shared.values import complete

JUDGE = "ElectraForPreTraining"

SUMMARY = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}


class Electra(Family):
    """electra: generator (a language model, with GELU in its head) or discriminator (the head `replaced`)."""

    name: ClassVar[str] = "electra"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "ElectraForMaskedLM": "encoder",
        JUDGE: "encoder",
        "ElectraModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {
        **encoder_classes("Electra", "classifier.dense", "classifier.out_proj", "gelu"),
        "choice": TaskClass(
            "ElectraForMultipleChoice", "classifier", "sequence_summary.summary", "gelu", settings=SUMMARY
        ),
    }
    prefix: ClassVar[str] = "electra."
    copies: ClassVar[Mapping[str, str]] = {"generator_lm_head.weight": "embed_tokens.weight"}
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)
    heads: ClassVar[tuple[HeadClass, ...]] = (
        HeadClass("replaced", JUDGE, without=(r"heads\.generator\.", r"head_layers\.", r"lm_head\.")),
    )

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        small = {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
        values = complete(values, (), {**DEFAULTS, **small})
        if values.get("architectures") == [JUDGE] and values["hidden_act"] != "gelu":
            raise UserError(
                f"A discriminator with the activation {values['hidden_act']!r} is not known.", "Known: gelu."
            )
        return post_norm_from_hf(self, values, "gelu")

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return post_norm_to_hf(self, config) | {"embedding_size": config.embedding_size}

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        head = {
            "head_layers.dense": "generator_predictions.dense",
            "head_layers.norm": "generator_predictions.LayerNorm",
            "heads.replaced.dense": "discriminator_predictions.dense",
            "heads.replaced.out": "discriminator_predictions.dense_prediction",
        }
        wide = config.embedding_size != config.hidden_size
        return [
            *embeddings("electra.embeddings"),
            *(layer("embedding.projection", "electra.embeddings_project", bias=True) if wide else []),
            *layers("electra.encoder.layer.{i}"),
            *modules(head),
            same("head_layers.bias", "generator_lm_head.bias"),
            *([] if config.tie_word_embeddings else [same("lm_head.weight", "generator_lm_head.weight")]),
        ]
