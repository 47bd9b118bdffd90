"""One class for a text, or for a pair of texts (Devlin et al. 2019, section 4.1).

    {"sentence": "a gorgeous, witty, seductive movie", "label": 1}

    row       [CLS] a gorgeous … movie [SEP]          class  positive

Several short examples share a row without seeing each other, and the loss is a mean over examples. The state of an
example is that of its last token in a decoder, of its first token in an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.errors import UserError, did_you_mean
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.shared.distilled import DistilledTask
from pretextlm.tasks.shared.labels import (
    check_all_occur,
    classes_of,
    label_names,
    named_labels,
    names_of,
    weights_of,
    with_probabilities,
)
from pretextlm.tasks.shared.text_input import TextTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.examples import Examples
    from pretextlm.data.offset_mapping import OffsetTokenizer
    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import TaskClass

PROBLEM_TYPE = "single_label_classification"
"""transformers' name of this kind of output."""


class TextClassification(DistilledTask, TextTask):
    """Classification of a text, or of a pair of texts.

    Args:
        text, text_pair, wording, marks, label, head: as for :class:`TextTask`; a label is the name of a class, or its
            index in `labels`.
        labels: names of the classes in order; by default all that occur in the training records.
        teacher, temperature, weight_soft, weight_hard: as for :class:`DistilledTask`.
        class_weights: "none", or "balanced": all classes have the same total weight, so that rare ones count more.
        weights: of each class; computed from class_weights.
        none_label: the class that means none of the others; averages over classes leave it out (relation extraction).
        group: columns whose values identify records that belong together, for scores over groups (MultiRC).
    """

    name: ClassVar[str] = "text_classification"
    title: ClassVar[str] = "Text classification"
    paper: ClassVar[str] = "Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    summary: ClassVar[str] = "Puts a text, or a pair of texts, into one of several classes."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "f1_macro")

    labels: tuple[str, ...] = Field(default=(), description="names of the classes; by default those that occur")
    class_weights: Literal["none", "balanced"] = Field(default="none", description="whether rare classes count more")
    weights: tuple[float, ...] = Field(default=(), description="of each class; computed from class_weights")
    none_label: str = Field(default="", description="class that means none of the others; averages leave it out")
    group: tuple[str, ...] = Field(default=(), description="columns that identify records of one group")

    def validation_columns(self) -> dict[str, str]:
        """Returns the columns of training records and those of the groups."""
        return self.columns() | {f"group: {name}": name for name in self.group}

    def fit_labels(self, records: Records) -> Self:
        """Returns the task with the names and weights of the classes."""
        names = names_of(records.labels("label"), self.labels)
        if self.none_label and self.none_label not in names:
            message = f"task.none_label is {self.none_label!r}, which is none of the classes."
            raise UserError(message, did_you_mean(self.none_label, names))
        classes = classes_of(records, names)
        check_all_occur(classes, names, records.source)
        weights = weights_of(classes, len(names)) if self.class_weights == "balanced" else ()
        return self.model_copy(update={"labels": names, "weights": self.weights or weights})

    def labels_of(self, records: Records) -> NDArray[Any]:
        """Returns (E,) the index of each record's class."""
        return classes_of(records, self.labels)

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns a head with a score for each class."""
        from pretextlm.tasks.shared.heads import SequenceHead

        return {"task": SequenceHead(config, len(self.labels), self.head or "tanh")}

    def own_counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of examples."""
        return {"class": len(batch.row_labels)}

    def class_scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (E, C) the scores of the examples."""
        return self.head_scores(outputs, batch)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the cross-entropy, weighted by class, in nats."""
        import torch
        from torch.nn import functional

        logits_EC = self.head_scores(outputs, batch)
        labels_E = torch.from_numpy(batch.row_labels.astype(np.int64)).to(logits_EC.device, non_blocking=True)
        weights_C = torch.tensor(self.weights, device=logits_EC.device) if self.weights else None
        total = functional.cross_entropy(logits_EC, labels_E, weights_C, reduction="sum")
        return {"class": Term(total, len(labels_E), correct=(logits_EC.argmax(1) == labels_E).sum())}

    def published_values(self) -> dict[str, Any]:
        return {**named_labels(self.labels), "problem_type": PROBLEM_TYPE}

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        if outputs < 2 or (values.get("problem_type") or PROBLEM_TYPE) != PROBLEM_TYPE:
            return None
        return cls(head=head.form, labels=label_names(values, outputs))

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns (E, C) probabilities."""
        found: NDArray[Any] = self.head_scores(outputs, batch).softmax(1).cpu().numpy()
        return found

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the names of the most probable classes."""
        return [self.labels[place] for place in predictions.argmax(1).tolist()]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns the first class for each record."""
        return {"label": [self.labels[0]] * len(records)}

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns the answers with the probability of each class."""
        return with_probabilities(super().explain(predictions, examples, encoder, records), self.labels, predictions)

    def chances(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Returns (E, C) the probabilities."""
        return predictions

    def groups(self, records: Records) -> list[Any]:
        """Returns the values of the group's columns, for each record."""
        return list(zip(*(records.labels(f"group: {name}") for name in self.group), strict=True))

    def judged_classes(self) -> list[int]:
        """Returns the indices of all classes but `none_label`."""
        return [number for number, name in enumerate(self.labels) if name != self.none_label]

    def references(self, records: Records) -> list[Any]:
        """Returns the names of the classes."""
        return [self.labels[place] for place in self.labels_of(records).tolist()]
