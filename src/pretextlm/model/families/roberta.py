"""RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692): BERT whose positions count on from the padding's id."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.bert import (
    DEFAULTS,
    embeddings,
    layers,
    modules,
    post_norm_from_hf,
    post_norm_to_hf,
    refuse_untied,
)
from pretextlm.model.families.shared.pooler import has_pooler, pooler_from_hf, pooler_maps, pooler_to_hf, with_pooler
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes
from pretextlm.model.families.shared.tensor_maps import TensorMap, same
from pretextlm.model.families.shared.values import complete


class Roberta(Family):
    """roberta: position 0 is row pad_token_id + 1 of the table; the head has GELU whatever the blocks have."""

    name: ClassVar[str] = "roberta"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "RobertaForMaskedLM": "encoder",
        "RobertaModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {
        **encoder_classes("Roberta", "classifier.dense", "classifier.out_proj"),
        "choice": TaskClass("RobertaForMultipleChoice", "classifier", "roberta.pooler.dense", "tanh"),
    }
    prefix: ClassVar[str] = "roberta."
    copies: ClassVar[Mapping[str, str]] = {
        "lm_head.decoder.weight": "embed_tokens.weight",
        "lm_head.decoder.bias": "head_layers.bias",
    }
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$",)
    pooler: ClassVar[str] = "roberta.pooler.dense"

    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        values = {"pad_token_id": 1} | complete(values, (), {**DEFAULTS, "vocab_size": 50265})
        refuse_untied(self, values)
        pad = values["pad_token_id"]
        if not isinstance(pad, int) or pad < 0:
            raise UserError(
                f"The padding's id {pad!r} is not one; positions count on from it.", "Give the pad_token_id."
            )
        return pooler_from_hf(self, post_norm_from_hf(self, values, "gelu", offset=pad + 1), values)

    def adjust_config(self, config: ModelConfig, theirs: Collection[str]) -> ModelConfig:
        return with_pooler(config, has_pooler(self, self.pooler, theirs))

    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        offset = config.positions.offset
        if not offset:
            raise UserError(f"Positions of a {self.name} do not begin with row 0 of their table.", "Export it as bert.")
        return post_norm_to_hf(self, config) | {"pad_token_id": offset - 1} | pooler_to_hf(self, config)

    def maps(self, config: ModelConfig) -> list[TensorMap]:
        return [
            *embeddings("roberta.embeddings"),
            *layers("roberta.encoder.layer.{i}"),
            *self.head(),
            *pooler_maps(config, self.pooler),
        ]

    def head(self) -> list[TensorMap]:
        """Returns the maps of the head."""
        return [
            *modules({"head_layers.dense": "lm_head.dense", "head_layers.norm": "lm_head.layer_norm"}),
            same("head_layers.bias", "lm_head.bias"),
        ]
