"""Any number of labels for a text, or for a pair of texts: topics of an article, emotions of a message.

    {"text": "We won, and I cried.", "label": ["joy", "sadness"]}

    row       [CLS] We won, and I cried. [SEP]          joy 1   anger 0   sadness 1

Each label is a yes-or-no question of its own: the loss is the binary cross-entropy of every label of every example, as
transformers computes it for this problem type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.errors import UserError, did_you_mean
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.shared.labels import label_names, named_labels, with_probabilities
from pretextlm.tasks.shared.text_input import TextTask

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.data.examples import Examples
    from pretextlm.data.offset_mapping import OffsetTokenizer
    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import TaskClass

INDICATOR = "label: "
"""Role of the column of a label, before its name."""
PROBLEM_TYPE = "multi_label_classification"
"""transformers' name of this kind of output."""


class MultiLabelClassification(TextTask):
    """Classification of a text, or of a pair of texts, with any number of labels for each.

    Args:
        text, text_pair, wording, marks, head: as for :class:`TextTask`.
        label: column of the labels: a list of names (in a table also as JSON), or one text of names with `separator`
            between them; it may be empty. A number is the index of a label in `labels`.
        indicators: instead, a column for each label, called like it: 1 or true for a record with the label, else 0 or
            false.
        labels: names of the labels in order; by default all that occur in the training records.
        separator: between the labels of a text.
        threshold: probability from which on a label is given.
    """

    name: ClassVar[str] = "multi_label_classification"
    title: ClassVar[str] = "Multi-label classification"
    paper: ClassVar[str] = "Tsoumakas & Katakis 2007, https://doi.org/10.4018/jdwm.2007070101"
    summary: ClassVar[str] = "Gives any number of labels to a text, or to a pair of texts."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("multi_label_f1_micro", "multi_label_f1_macro", "subset_accuracy")

    labels: tuple[str, ...] = Field(default=(), description="names of the labels; by default those that occur")
    indicators: tuple[str, ...] = Field(default=(), description="columns of 0 or 1, one for each label, instead")
    separator: str = Field(default=",", min_length=1, description="between the labels of a text")
    threshold: float = Field(default=0.5, gt=0, lt=1, description="probability from which on a label is given")

    def columns(self) -> dict[str, str]:
        """Returns the columns of the texts and of the labels."""
        columns = super().columns()
        if self.indicators:
            del columns["label"]
        return columns | {f"{INDICATOR}{name}": name for name in self.indicators}

    def input_columns(self) -> dict[str, str]:
        return {role: name for role, name in super().input_columns().items() if not role.startswith(INDICATOR)}

    def fit_labels(self, records: Records) -> Self:
        """Returns the task with the names of the labels.

        Raises:
            UserError: no record has a label.
        """
        found = {name for names in self._names(records) for name in names}
        if self.indicators:
            return self.model_copy(update={"labels": self.labels or self.indicators})
        if not found:
            raise UserError(f"No record of {records.source} has a label.", "Name the column: task.label=COLUMN")
        numeric = all(name.isdecimal() for name in found)
        return self.model_copy(update={"labels": self.labels or tuple(sorted(found, key=int if numeric else str))})

    def labels_of(self, records: Records) -> NDArray[Any]:
        """Returns (E, C) fp32, 1 for each label of a record.

        Raises:
            UserError: a record has an unknown label.
        """
        places = {name: place for place, name in enumerate(self.labels)}
        places = {str(place): place for place in range(len(self.labels))} | places
        found = np.zeros((len(records), len(self.labels)), np.float32)
        for index, names in enumerate(self._names(records)):
            for name in names:
                if name not in places:
                    message = f"the label {name!r} is none of {', '.join(self.labels)}"
                    raise records.fault(index, message, did_you_mean(name, self.labels))
                found[index, places[name]] = 1
        return found

    def _names(self, records: Records) -> list[list[str]]:
        """Returns the labels of each record."""
        if self.indicators:
            return self._indicated(records)
        found = []
        for index, value in enumerate(records.spelled_lists("label")):
            values = value.split(self.separator) if isinstance(value, str) else value
            if not isinstance(values, list) or not all(isinstance(one, str | int) for one in values):
                hint = f'Write ["a", "b"], or a text such as "a{self.separator}b".'
                raise records.fault(index, f"the column {self.label!r} has no list of labels", hint)
            found.append([str(one).strip() for one in values if str(one).strip()])
        return found

    def _indicated(self, records: Records) -> list[list[str]]:
        """Returns the labels of each record, of which each has a column of its own.

        Raises:
            UserError: a value is neither 0 nor 1, false nor true.
        """
        found: list[list[str]] = [[] for _ in range(len(records))]
        for name in self.indicators:
            for index, value in enumerate(records.columns[f"{INDICATOR}{name}"]):
                given = {"1": True, "true": True, "0": False, "false": False}.get(str(value).strip().lower())
                if given is None:
                    hint = "Write 1 for a record with the label, and 0 for one without it."
                    raise records.fault(index, f"the column {name!r} is {value!r}, neither 0 nor 1.", hint)
                if given:
                    found[index].append(name)
        return found

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns a head with a score for each label."""
        from pretextlm.tasks.shared.heads import SequenceHead

        return {"task": SequenceHead(config, len(self.labels), self.head or "tanh")}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of labels of all examples, given or not."""
        return {"label": batch.row_labels.size}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the binary cross-entropy in nats."""
        import torch
        from torch.nn import functional

        logits_EC = self.head_scores(outputs, batch)
        labels_EC = torch.from_numpy(batch.row_labels).to(logits_EC.device, non_blocking=True)
        total = functional.binary_cross_entropy_with_logits(logits_EC, labels_EC, reduction="sum")
        return {"label": Term(total, labels_EC.numel(), correct=((logits_EC > 0) == labels_EC.bool()).sum())}

    def published_values(self) -> dict[str, Any]:
        return {**named_labels(self.labels), "problem_type": PROBLEM_TYPE}

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        if values.get("problem_type") != PROBLEM_TYPE:
            return None
        return cls(head=head.form, labels=label_names(values, outputs))

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns (E, C) the probability of each label."""
        found: NDArray[Any] = self.head_scores(outputs, batch).sigmoid().cpu().numpy()
        return found

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the names of the labels whose probability reaches the threshold."""
        return self._named(predictions >= self.threshold)

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns the answers with the probability of each label."""
        return with_probabilities(super().explain(predictions, examples, encoder, records), self.labels, predictions)

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns no label for each record."""
        if self.indicators:
            return {f"{INDICATOR}{name}": [0] * len(records) for name in self.indicators}
        return {"label": [[]] * len(records)}

    def references(self, records: Records) -> list[Any]:
        """Returns the names of the labels."""
        return self._named(self.labels_of(records) > 0)

    def _named(self, given_EC: NDArray[np.bool_]) -> list[Any]:
        return [[self.labels[place] for place in np.flatnonzero(row)] for row in given_EC]
