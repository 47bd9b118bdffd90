"""Which class of each family a fine-tuned model is, and how that class reads the trunk's states.

    BertForSequenceClassification       bert.pooler.dense   tanh   classifier
    DistilBertForSequenceClassification pre_classifier      ReLU   classifier
    GPT2ForSequenceClassification                                  score, without a bias
    BertForMultipleChoice               bert.pooler.dense   tanh   classifier, one number for each choice

A family that is not here has no such class, or one whose head is of another make than ours (tasks/shared/heads.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pretextlm.model.families.base import Map, layer, same

Kind = Literal["sequence", "choice", "token", "span"]
"""What is said: one thing of an example, one of each choice, one of each token, or where an answer begins and ends."""
Form = Literal["tanh", "relu", "gelu"]
HEAD = "heads.task."


@dataclass(frozen=True)
class TaskClass:
    """A class of theirs for one kind of task.

    Attributes:
        theirs: its name.
        out: its last matrix.
        dense: the layer before that; "" for none.
        form: what follows that layer, or "plain" where there is none.
        bias: whether the last matrix has one.
        settings: what config.json says of a head of this make, by default or in words.
    """

    theirs: str
    out: str
    dense: str = ""
    form: Form | Literal["plain"] = "plain"
    bias: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    def maps(self) -> Iterator[Map]:
        """Its tensors and ours."""
        if self.dense:
            yield from layer(f"{HEAD}dense", self.dense, bias=True)
        yield same(f"{HEAD}out.weight", f"{self.out}.weight")
        if self.bias:
            yield same(f"{HEAD}out.bias", f"{self.out}.bias")


def _encoder(name: str, dense: str, out: str, form: Form = "tanh") -> Mapping[Kind, TaskClass]:
    return {
        "sequence": TaskClass(f"{name}ForSequenceClassification", out, dense, form),
        "choice": TaskClass(f"{name}ForMultipleChoice", out, dense, form),
        "token": TaskClass(f"{name}ForTokenClassification", "classifier"),
        "span": TaskClass(f"{name}ForQuestionAnswering", "qa_outputs"),
    }


def _decoder(name: str) -> Mapping[Kind, TaskClass]:
    return {
        "sequence": TaskClass(f"{name}ForSequenceClassification", "score", bias=False),
        "token": TaskClass(f"{name}ForTokenClassification", "score"),
    }


SUMMARY = {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}

TASK_CLASSES: Mapping[str, Mapping[Kind, TaskClass]] = {
    "albert": _encoder("Albert", "albert.pooler", "classifier"),
    "bert": _encoder("Bert", "bert.pooler.dense", "classifier"),
    "deberta-v2": _encoder("DebertaV2", "pooler.dense", "classifier", "gelu"),
    "distilbert": _encoder("DistilBert", "pre_classifier", "classifier", "relu"),
    "electra": {
        **_encoder("Electra", "classifier.dense", "classifier.out_proj", "gelu"),
        "choice": TaskClass(
            "ElectraForMultipleChoice", "classifier", "sequence_summary.summary", "gelu", settings=SUMMARY
        ),
    },
    "roberta": {
        **_encoder("Roberta", "classifier.dense", "classifier.out_proj"),
        "choice": TaskClass("RobertaForMultipleChoice", "classifier", "roberta.pooler.dense", "tanh"),
    },
    "xlm-roberta": {
        **_encoder("XLMRoberta", "classifier.dense", "classifier.out_proj"),
        "choice": TaskClass("XLMRobertaForMultipleChoice", "classifier", "roberta.pooler.dense", "tanh"),
    },
    "gemma": _decoder("Gemma"),
    "gemma2": _decoder("Gemma2"),
    "gpt2": {**_decoder("GPT2"), "token": TaskClass("GPT2ForTokenClassification", "classifier")},
    "llama": _decoder("Llama"),
    "mistral": _decoder("Mistral"),
    "openai-gpt": {"sequence": _decoder("OpenAIGPT")["sequence"]},
    "qwen2": _decoder("Qwen2"),
    "qwen3": _decoder("Qwen3"),
}
"""Hugging Face's model_type → the classes."""


def form_of(family: str) -> str:
    """How a text's state is read in a family's class for texts; "" where it has none."""
    found = TASK_CLASSES.get(family, {}).get("sequence")
    return found.form if found else ""
