"""One of several choices that goes best with a text (Devlin et al. 2019, section 4.4: SWAG).

    {"premise": "I ran.", "asks_for": "cause", "choices": ["I was late.", "I slept."], "answer": 0}

    texts     [CLS] i ran . why ? [SEP] i was late . [SEP]     [CLS] i ran . why ? [SEP] i slept . [SEP]
    scores               1.3                                                -0.2
    label                 1                                                  0

    text = "{premise} {asks_for}"          wording.asks_for = {cause = "Why?", effect = "So what?"}
    choices = "choices"                    the column of a list, or columns: ["choice1", "choice2"]
    label = "answer"                       label_names = ["0", "1"]: the labels of the choices, in order

Each choice is read with the text by itself, the head gives it one number, and the loss is the cross-entropy of these
numbers over the choices of an example. Examples may have different numbers of choices. All choices of an example are
read in one pass; the loss is a mean over examples.

Examples that are too long lose tokens at the end of the text, the same before all choices. A choice is never cut.

Axis letters: E examples, M choices of all examples, K choices of the example that has most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from pretextlm.batch import Batch, Term
from pretextlm.data.examples import Examples
from pretextlm.data.offset_mapping import OffsetTokenizer, framed
from pretextlm.errors import UserError, did_you_mean
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import LOWEST_SCORE, text_template
from pretextlm.tasks.shared.distilled import DistilledTask
from pretextlm.tasks.shared.template import Template, columns_read, values_read
from pretextlm.tasks.shared.text_input import TextTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import Kind, TaskClass

CHOICE = "choice"
"""Placeholder of a choice in the template of the second text."""


class MultipleChoice(DistilledTask, TextTask):
    """Choice among texts.

    Args:
        text, wording, marks, head: as for :class:`TextTask`; `text` is read with each choice.
        text_pair: template of the second text, in which {choice} is the choice.
        choices: columns of the choices in order, or the one column of a list of them.
        label: column of the correct choice, by one of `label_names`.
        label_names: labels of the choices, in order: ["0", "1"], ["1", "2"], ["A", "B", "C", "D"]; or the column of
            each record's own list of labels.
        teacher, temperature, weight_soft, weight_hard: as for :class:`DistilledTask`.

    A string of `choices` or `label_names` with commas is a list.
    """

    name: ClassVar[str] = "multiple_choice"
    title: ClassVar[str] = "Multiple choice"
    paper: ClassVar[str] = "Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    summary: ClassVar[str] = "Chooses which of several texts goes best with a text."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    head_kind: ClassVar[Kind | None] = "choice"

    text_pair: str = Field(default="{choice}", description="template of the second text; {choice} is the choice")
    choices: str | tuple[str, ...] = Field(default="choices", description="columns of the choices, or that of a list")
    label_names: str | tuple[str, ...] = Field(
        default=(), description="labels of the choices, or the column of a list of labels"
    )

    @field_validator("choices", "label_names")
    @classmethod
    def _several(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        found = tuple(names.split(",")) if isinstance(names, str) and "," in names else names
        if not isinstance(found, str) and len(found) != len(set(found)):
            raise ValueError("a name occurs twice")
        return found

    @model_validator(mode="after")
    def _reads_choices(self) -> Self:
        if CHOICE not in Template.of(self.text_pair).columns:
            raise ValueError("text_pair does not name {choice}, so that all choices would be read alike")
        if not isinstance(self.choices, str) and len(self.choices) < 2:
            raise ValueError("choices needs the names of at least two columns, or of one column of lists")
        if CHOICE in self.wording or any(mark.of == "text_pair" for mark in self.marks):
            raise ValueError("words and marks are for the text, not for a choice")
        return self

    def columns(self) -> dict[str, str]:
        """Returns the columns of the texts, the choices, the label and its names."""
        given = {"choices": self.choices} if isinstance(self.choices, str) else _numbered(self.choices)
        named = {"label_names": self.label_names} if isinstance(self.label_names, str) else {}
        templates = self.templates()
        texts = columns_read("text", templates["text"]) | columns_read("text_pair", templates["text_pair"], CHOICE)
        return {**texts, **self.marked_columns(), **given, "label": self.label, **named}

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per record, with a text for each choice; labels: (correct one, number of choices)."""
        given = self.choices_of(records)
        sizes = np.array([len(one) for one in given], np.int64)
        of = np.repeat(np.arange(len(records)), sizes)
        templates = self.templates()
        firsts = encoder.encode(self.texts_of(records, "text"))
        columns = values_read(records, "text_pair", templates["text_pair"], self.wording, CHOICE)
        pair = templates["text_pair"]
        pairs = zip(columns, given, strict=True)
        texts = [pair.filled({**values, CHOICE: one}) for values, some in pairs for one in some]
        seconds = encoder.encode(texts if pair.is_column else [text.strip() for text in texts])
        begins = np.cumsum(sizes) - sizes
        pieces = text_template(encoder.vocabulary, model).pair
        room = length - (len(pieces) - 2) - np.maximum.reduceat(seconds.lengths, begins)
        self._check_room(records, room, np.minimum(firsts.lengths, 1), length)
        kept = np.minimum(firsts.lengths, room)
        spans = [(firsts, firsts.offsets[of], kept[of]), (seconds, seconds.offsets[:-1], seconds.lengths)]
        joined, types = framed(pieces, spans, encoder.vocabulary.bos)
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets[np.append(begins, len(of))],
            records=np.arange(len(records)),
            types=types,
            texts=np.repeat(np.arange(len(of)) - begins[of], np.diff(joined.offsets)).astype(np.int32),
            labels=np.stack([self.labels_of(records), sizes.astype(np.int32)], 1),
        )

    @staticmethod
    def _check_room(records: Records, room: NDArray[Any], needed: NDArray[Any], length: int) -> None:
        short = np.flatnonzero(room < needed)
        if len(short):
            index = int(short[0])
            message = (
                f"its longest choice has {length - 3 - int(room[index]):,} tokens, which leaves no room for a text."
            )
            raise records.fault(index, message, f"Give data.length={length - int(room[index]) + 8} or more.")

    def choices_of(self, records: Records) -> list[list[str]]:
        """Returns the choices of each record.

        Raises:
            UserError: a record has fewer than two, or an empty one; names its row.
        """
        if not isinstance(self.choices, str):
            columns = [records.texts(name) for name in _numbered(self.choices)]
            return [list(one) for one in zip(*columns, strict=True)]
        lists = records.text_lists("choices")
        for index, one in enumerate(lists):
            if len(one) < 2:
                message = f"the column {self.choices!r} has {len(one)} choice{'s' * (not one)}."
                raise records.fault(index, message, "Give each record a list of at least two.")
            empty = next((place for place, text in enumerate(one, 1) if not text.strip()), None)
            if empty is not None:
                raise records.fault(index, f"choice {empty} of {len(one)} is empty.", "Leave such rows out.")
        return lists

    def names_of(self, records: Records) -> list[list[str]]:
        """Returns the labels of the choices of each record.

        To predict answers, choices without names have numbers from 0.

        Raises:
            UserError: the recipe or a record does not give them.
        """
        given = self.choices_of(records)
        if isinstance(self.label_names, str):
            lists = records.text_lists("label_names")
            for index, (names, some) in enumerate(zip(lists, given, strict=True)):
                if len(names) != len(some) or len(set(names)) != len(names):
                    message = f"there are {len(some)} choices, and their names are {', '.join(names)}."
                    raise records.fault(index, message, "Give each choice a name of its own.")
            return lists
        if not self.label_names and records.unlabelled:
            return [[str(number) for number in range(len(some))] for some in given]
        if not self.label_names:
            raise UserError(
                f"The recipe does not name the choices as the column {self.label!r} does.",
                'Give task.label_names: ["0", "1"] where they are counted from 0, ["A", "B"], or the column of a list; '
                "of a file to evaluate FILE?label_names=0,1",
            )
        for index, some in enumerate(given):
            if len(some) > len(self.label_names):
                message = f"there are {len(some)} choices, and task.label_names has {len(self.label_names)} names."
                raise records.fault(index, message, "Name as many as the record with most choices has.")
        return [list(self.label_names[: len(some)]) for some in given]

    def labels_of(self, records: Records) -> NDArray[Any]:
        """Returns (E,) the index of the correct choice of each record.

        Raises:
            UserError: a label names no choice; names its row.
        """
        found = np.empty(len(records), np.int32)
        labels = [str(value) for value in records.labels("label")]
        for index, (label, names) in enumerate(zip(labels, self.names_of(records), strict=True)):
            if label not in names:
                message = f"the label {label!r} is none of its choices {', '.join(names)}."
                raise records.fault(index, message, did_you_mean(label, names))
            found[index] = names.index(label)
        return found

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns a head with the score of a choice."""
        from pretextlm.tasks.shared.heads import SequenceHead

        return {"task": SequenceHead(config, 1, self.head or "tanh")}

    def own_counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of examples."""
        return {"choice": len(batch.row_labels)}

    def class_scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (E, K) scores of the choices, LOWEST_SCORE where an example has fewer."""
        import torch

        found_M = self.head_scores(outputs, batch).squeeze(1)
        there_EK = _there(batch.row_labels[:, 1])
        at = torch.from_numpy(np.flatnonzero(there_EK)).to(found_M.device, non_blocking=True)
        empty = found_M.new_full((there_EK.size,), LOWEST_SCORE)
        return empty.index_copy(0, at, found_M).view(there_EK.shape)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the cross-entropy over the choices of each example, in nats."""
        import torch
        from torch.nn import functional

        scores_EK = self.class_scores(outputs, batch)
        labels_E = torch.from_numpy(batch.row_labels[:, 0].astype(np.int64)).to(scores_EK.device, non_blocking=True)
        total = functional.cross_entropy(scores_EK, labels_E, reduction="sum")
        return {"choice": Term(total, len(labels_E), correct=(scores_EK.argmax(1) == labels_E).sum())}

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        return cls(head=head.form) if outputs == 1 else None

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns (M,) the probability of each choice among those of its example."""
        found: NDArray[Any] = self.class_scores(outputs, batch).softmax(1).cpu().numpy()
        return found[_there(batch.row_labels[:, 1])]

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the labels of the most probable choices."""
        assert examples.labels is not None, "labels say how many choices there are"
        there_EK = _there(examples.labels[:, 1])
        found_EK = np.full(there_EK.shape, -1.0)
        found_EK[there_EK] = predictions
        return [names[place] for names, place in zip(self.names_of(records), found_EK.argmax(1).tolist(), strict=True)]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns the first choice's label for each record."""
        return {"label": [names[0] for names in self.names_of(records)]}

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns the answers with the probability of each choice."""
        found, begin = super().explain(predictions, examples, encoder, records), 0
        for one, names in zip(found, self.names_of(records), strict=True):
            chances = predictions[begin : begin + len(names)].tolist()
            one["probabilities"] = dict(zip(names, chances, strict=True))
            begin += len(names)
        return found

    def references(self, records: Records) -> list[Any]:
        """Returns the labels of the correct choices."""
        return [str(value) for value in records.labels("label")]


def _numbered(columns: tuple[str, ...]) -> dict[str, str]:
    return {f"choice {number}": name for number, name in enumerate(columns, 1)}


def _there(sizes_E: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns (E, K) True where an example has a choice."""
    found: NDArray[np.bool_] = np.arange(sizes_E.max()) < sizes_E[:, None]
    return found
