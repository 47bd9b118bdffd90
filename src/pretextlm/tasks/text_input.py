"""Tasks that say one thing of a whole text, or of a pair of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch
from pretextlm.data.aligned import AlignedEncoder
from pretextlm.data.examples import Examples
from pretextlm.objectives.base import Architecture, Outputs
from pretextlm.tasks.base import Task, framed

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig


class TextTask(Task):
    """Args:
    text: column of the text.
    text_pair: column of a second text; "" for none.
    label: column of what is said of it.
    head: how the text's state is read (tasks/heads.py): a dense layer and tanh, relu or gelu, then a matrix, or that
        matrix alone ("plain"); by default as the published family of the model has it.
    """

    text: str = Field(default="text", description="column of the text")
    text_pair: str = Field(default="", description="column of a second text; empty for none")
    label: str = Field(default="label", description="column of the label")
    head: Literal["", "tanh", "relu", "gelu", "plain"] = Field(
        default="", description="how the text's state is read; by default as the model's family has it"
    )

    def columns(self) -> dict[str, str]:
        """The text or texts, and the label."""
        pair = {"text_pair": self.text_pair} if self.text_pair else {}
        return {"text": self.text, **pair, "label": self.label}

    def examples(self, records: Records, encoder: AlignedEncoder, model: ModelConfig, length: int) -> Examples:
        """One a record, whose second text is of the second type."""
        parts = ["text", "text_pair"] if self.text_pair else ["text"]
        joined = framed([encoder.encode(records.texts(part)) for part in parts], encoder.vocabulary, model, length)
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets,
            records=np.arange(len(records)),
            types=(joined.run > 2).astype(np.int32),
            labels=self.labels_of(records),
        )

    def of_model(self, architecture: Architecture) -> Self:
        """As for any task; a decoder's state is read by a matrix alone, where nothing else is said."""
        usual: Literal["plain", "tanh"] = "plain" if architecture == "decoder" else "tanh"
        return super().of_model(architecture).model_copy(update={"head": self.head or usual})

    def labels_of(self, records: Records) -> NDArray[Any]:
        """(E,) what is said of each record, as the loss reads it."""
        raise NotImplementedError

    def said(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(E, C) what the head says of each example."""
        out: Tensor = outputs.heads["task"](self.speaking(outputs, batch))
        return out
