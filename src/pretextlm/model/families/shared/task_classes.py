"""The published classes of fine-tuned models, and how each reads the hidden states; families list theirs.

    BertForSequenceClassification       bert.pooler.dense   tanh   classifier
    DistilBertForSequenceClassification pre_classifier      ReLU   classifier
    GPT2ForSequenceClassification                                  score, without a bias
    BertForMultipleChoice               bert.pooler.dense   tanh   classifier, one number for each choice

A family without such a class has none, or one whose head computes something else than ours (tasks/shared/heads.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pretextlm.model.families.shared.tensor_maps import TensorMap, layer, same

Kind = Literal["sequence", "choice", "token", "span"]
"""Output of a head: one per example, one per choice, one per token, or the span of an answer."""
Form = Literal["tanh", "relu", "gelu"]
HEAD = "heads.task."
HEAD_FORM = "classifier_activation"
"""Key of a config.json that gives the form of a head, in the family whose code is ours."""


@dataclass(frozen=True)
class TaskClass:
    """A Hugging Face class for one kind of task.

    Attributes:
        theirs: Name of the class.
        out: Name of its last layer.
        dense: Name of the layer before that; "" for none.
        form: Activation after that layer, or "plain" where there is none.
        bias: Whether the last layer has a bias.
        settings: Values of the config.json that describe such a head.
    """

    theirs: str
    out: str
    dense: str = ""
    form: Form | Literal["plain"] = "plain"
    bias: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    def maps(self) -> Iterator[TensorMap]:
        """Yields the maps of its tensors."""
        if self.dense:
            yield from layer(f"{HEAD}dense", self.dense, bias=True)
        yield same(f"{HEAD}out.weight", f"{self.out}.weight")
        if self.bias:
            yield same(f"{HEAD}out.bias", f"{self.out}.bias")


def encoder_classes(name: str, dense: str, out: str, form: Form = "tanh") -> dict[Kind, TaskClass]:
    """Returns an encoder family's classes for all kinds of tasks.

    Args:
        name: with which the classes' names begin ("Bert").
        dense: the layer before the last of a head for texts.
        out: the last layer of a head for texts.
        form: the activation between the two.
    """
    return {
        "sequence": TaskClass(f"{name}ForSequenceClassification", out, dense, form),
        "choice": TaskClass(f"{name}ForMultipleChoice", out, dense, form),
        "token": TaskClass(f"{name}ForTokenClassification", "classifier"),
        "span": TaskClass(f"{name}ForQuestionAnswering", "qa_outputs"),
    }


def decoder_classes(name: str) -> dict[Kind, TaskClass]:
    """Returns a decoder family's classes, whose heads are one matrix.

    Args:
        name: with which the classes' names begin ("Llama").
    """
    return {
        "sequence": TaskClass(f"{name}ForSequenceClassification", "score", bias=False),
        "token": TaskClass(f"{name}ForTokenClassification", "score"),
    }
