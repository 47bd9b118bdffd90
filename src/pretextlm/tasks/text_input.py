"""Tasks that say one thing of a whole text, or of a pair of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch
from pretextlm.data.aligned import AlignedEncoder
from pretextlm.data.examples import Examples
from pretextlm.objectives.base import Outputs
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
    """

    text: str = Field(default="text", description="column of the text")
    text_pair: str = Field(default="", description="column of a second text; empty for none")
    label: str = Field(default="label", description="column of the label")

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

    def labels_of(self, records: Records) -> NDArray[Any]:
        """(E,) what is said of each record, as the loss reads it."""
        raise NotImplementedError

    def said(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(E, C) what the head says of each example."""
        out: Tensor = outputs.heads["task"](self.speaking(outputs, batch))
        return out
