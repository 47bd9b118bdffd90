"""XLM-RoBERTa (Conneau et al. 2020, https://arxiv.org/abs/1911.02116): RoBERTa with a vocabulary of 100 languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pretextlm.model.families.roberta import Roberta
from pretextlm.model.families.shared.task_classes import Kind, TaskClass, encoder_classes


class XlmRoberta(Roberta):
    """xlm-roberta: the shape and tensor names of RoBERTa."""

    name: ClassVar[str] = "xlm-roberta"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "XLMRobertaForMaskedLM": "encoder",
        "XLMRobertaModel": "encoder",
    }
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = {
        **encoder_classes("XLMRoberta", "classifier.dense", "classifier.out_proj"),
        "choice": TaskClass("XLMRobertaForMultipleChoice", "classifier", "roberta.pooler.dense", "tanh"),
    }
