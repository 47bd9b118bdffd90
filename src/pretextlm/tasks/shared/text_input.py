"""Tasks with one prediction for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from pretextlm.batch import Batch
from pretextlm.data.examples import Examples
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import Task, add_special_tokens
from pretextlm.tasks.shared.marks import Mark, marked
from pretextlm.tasks.shared.template import Template, columns_read, texts_read

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import Kind, TaskClass


class TextTask(Task):
    """Base of the tasks with one prediction per text.

    Args:
        text: column of the text, or a template with columns in braces (tasks/shared/template.py).
        text_pair: the same for a second text; "" for none.
        wording: column → value → the words that replace the value.
        marks: spans of the texts that are put between marks (tasks/shared/marks.py).
        label: column of the label.
        head: form of the head (tasks/shared/heads.py): the activation of its dense layer, or "plain" for an output
            layer alone; by default that of the model's published family.
    """

    head_kind: ClassVar[Kind | None] = "sequence"

    text: str = Field(default="text", description="column of the text, or a template with columns in braces")
    text_pair: str = Field(default="", description="the same of a second text; empty for none")
    wording: dict[str, dict[str, str]] = Field(default={}, description="column → value → the words that replace it")
    marks: tuple[Mark, ...] = Field(default=(), description="spans of the texts that are put between marks")
    label: str = Field(default="label", description="column of the label")
    head: Literal["", "tanh", "relu", "gelu", "plain"] = Field(
        default="", description="activation of the head's dense layer, or plain; by default as in the model's family"
    )

    @field_validator("text", "text_pair")
    @classmethod
    def _is_template(cls, text: str) -> str:
        Template.of(text)
        return text

    @field_validator("wording")
    @classmethod
    def _words_what_it_reads(
        cls, wording: dict[str, dict[str, str]], others: ValidationInfo
    ) -> dict[str, dict[str, str]]:
        texts = [others.data.get(role, "") for role in ("text", "text_pair")]
        strange = set(wording).difference(*(Template.of(text).columns for text in texts))
        if strange:
            raise ValueError(f"there are words for the column {min(strange)!r}, which no text names")
        return wording

    @model_validator(mode="after")
    def _marks_columns(self) -> Self:
        for mark in self.marks:
            if not Template.of(getattr(self, mark.of)).is_column or getattr(self, mark.of) in self.wording:
                raise ValueError(f"a mark is of {mark.of!r}, which is not a column as it is")
        return self

    def templates(self) -> dict[str, Template]:
        """Returns the template of each text."""
        given = {"text": self.text, "text_pair": self.text_pair}
        return {role: Template.of(text) for role, text in given.items() if text or role == "text"}

    def columns(self) -> dict[str, str]:
        """Returns the columns of the texts and the label."""
        read = [columns_read(role, template) for role, template in self.templates().items()]
        return {key: name for one in read for key, name in one.items()} | self.marked_columns() | {"label": self.label}

    def marked_columns(self) -> dict[str, str]:
        """Returns the columns with the positions of marks."""
        columns = [mark.columns(number) for number, mark in enumerate(self.marks)]
        return {key: name for one in columns for key, name in one.items()}

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per record."""
        texts = [encoder.encode(self.texts_of(records, role)) for role in self.templates()]
        joined, types = add_special_tokens(texts, encoder.vocabulary, model, length)
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets,
            records=np.arange(len(records)),
            types=types,
            labels=self.labels_of(records),
        )

    def texts_of(self, records: Records, role: str) -> Sequence[str]:
        """Returns one of the texts of each record, with its marks."""
        return marked(texts_read(records, role, self.templates()[role], self.wording), records, role, self.marks)

    def for_architecture(self, architecture: Architecture) -> Self:
        """Returns the task with the reading direction of this architecture and, by default, its usual head."""
        usual: Literal["plain", "tanh"] = "plain" if architecture == "decoder" else "tanh"
        return super().for_architecture(architecture).model_copy(update={"head": self.head or usual})

    def check_head_class(self, head: TaskClass) -> None:
        if (self.head or "tanh") != head.form:
            raise UserError(
                f"{head.theirs} has a head of the make {head.form!r}; this run's is {self.head!r}.",
                f'Train it with task.head="{head.form}", or export it as another family.',
            )

    def labels_of(self, records: Records) -> NDArray[Any]:
        """Returns (E, …) the label of each record, as the loss reads it."""
        raise NotImplementedError

    def head_scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (E, C) the head's scores of each example."""
        out: Tensor = outputs.heads["task"](self.pooled(outputs, batch))
        return out
