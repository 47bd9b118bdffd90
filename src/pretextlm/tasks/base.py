"""What a task is: an objective whose rows are examples with labels, trained in the same trainer as any other.

A task names the columns it reads, learns its labels from the training records, makes examples of records, and turns
what the model says of each example into answers. It knows neither files nor metrics: those who open data and who
evaluate do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.data.examples import ExampleReader, Examples, first_places, last_places, side_by_side
from pretextlm.data.offset_mapping import Aligned, AlignedEncoder, Joined, Run, join
from pretextlm.data.sentence_pair_index import truncated
from pretextlm.errors import UserError
from pretextlm.objectives.base import Architecture, Frame, Objective, Outputs, Variant

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.counter_rng import CounterRNG
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig

DEFAULTS: Mapping[str, Any] = {
    "budget_epochs": 3.0,
    "optimizer": "adamw",
    "learning_rate": 3e-5,
    "weight_decay": 0.01,
    "beta2": 0.999,
    "schedule": "linear",
    "warmup": 0.1,
    "cooldown": 0.0,
    "batch_rows": 32,
    "validations": 3,
    "validation_rows": 1 << 40,
}
"""What the literature fine-tunes with (Devlin et al. 2019: 2e-5 … 5e-5, 2 to 4 epochs, batches of 16 or 32)."""

NOTHING = -1e30
"""A score that nothing is below, in fp32."""


class Task(Objective):
    """Base of all tasks.

    Args:
        metrics: names of the scores it is judged by (evaluation/scores), the first the one that counts; by default
            those that suit it.
        causal: whether examples are read from left to right; the model's architecture decides.

    Class attributes: `suited`, the metrics it is judged by unless told otherwise; `told`, what `columns` calls those
    that hold the answer.
    """

    defaults: ClassVar[Mapping[str, Any]] = DEFAULTS
    ragged: ClassVar[bool] = True
    is_task: ClassVar[bool] = True
    suited: ClassVar[tuple[str, ...]]
    told: ClassVar[tuple[str, ...]] = ("label",)

    metrics: tuple[str, ...] = Field(default=(), description="scores it is judged by; by default those that suit it")
    causal: bool = Field(default=False, description="read from left to right; set by the model's architecture")

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Names of its scores."""
        return self.metrics or self.suited

    def columns(self) -> dict[str, str]:
        """Columns that a record must have: what for → name."""
        raise NotImplementedError

    def validation_columns(self) -> dict[str, str]:
        """The same of the records it is judged by."""
        return self.columns()

    def usable(self, records: Records) -> Records:
        """The records without those that the recipe says are to be left out."""
        return records

    def learnt(self, records: Records) -> Self:
        """The same task with what only the training records can say (their labels) written down.

        Raises UserError for records it cannot be learnt from.
        """
        return self

    def examples(self, records: Records, encoder: AlignedEncoder, model: ModelConfig, length: int) -> Examples:
        """Records → examples of at most `length` tokens. Raises UserError naming the row of a record that is wrong."""
        raise NotImplementedError

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """What the model says of each example of a batch, (E, …), or of each token, (N, …), in their order."""
        raise NotImplementedError

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: AlignedEncoder, records: Records
    ) -> list[Any]:
        """One answer a record, as plain values, of what `predict` said of all examples."""
        raise NotImplementedError

    def wanted(self, records: Records) -> list[Any]:
        """The right answer of each record, as `answers` gives them."""
        raise NotImplementedError

    def asked_columns(self) -> dict[str, str]:
        """Columns that a record without an answer must have."""
        return {role: name for role, name in self.columns().items() if role not in self.told}

    def asked(self, records: Records) -> Records:
        """Records without answers, made readable: where answers would stand, there is one that says nothing."""
        return replace(records, columns=records.columns | self.nothing(records), names=self.columns())

    def nothing(self, records: Records) -> dict[str, list[Any]]:
        """Such answers of each record, by what `columns` calls them."""
        raise NotImplementedError

    def explained(
        self, predictions: NDArray[Any], examples: Examples, encoder: AlignedEncoder, records: Records
    ) -> list[dict[str, Any]]:
        """For people who ask: each record's answer, and what stands behind it."""
        return [{"answer": answer} for answer in self.answers(predictions, examples, encoder, records)]

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """A task reads no stream."""
        return Frame()

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Rows as long as their examples."""
        return [Variant("main", raw=length, length=length)]

    def reader(self, split: Any, vocabulary: Vocabulary, length: int) -> ExampleReader:
        """Reads examples."""
        return ExampleReader(split)

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Examples side by side; nothing is hidden."""
        return side_by_side(rows, vocabulary.pad, "causal" if self.causal else "bidirectional")

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """The trunk's; no token goes through the language-model head."""
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, 0)

    def of_model(self, architecture: Architecture) -> Self:
        """The same task for a model that reads in this way."""
        return self.model_copy(update={"causal": architecture == "decoder"})

    def speaking(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(M, D) the state that speaks for each text: of its first token, or in a decoder of its last.

        An example is one text, unless the task makes several of it.
        """
        return outputs.at(last_places(batch) if batch.attention == "causal" else first_places(batch))


def frame_of(vocabulary: Vocabulary, model: ModelConfig) -> tuple[int, int]:
    """Special tokens before an example, and behind each of its texts."""
    return (vocabulary.bos, vocabulary.eos) if model.architecture == "decoder" else (vocabulary.cls, vocabulary.sep)


def framed(texts: Sequence[Aligned], vocabulary: Vocabulary, model: ModelConfig, length: int) -> Joined:
    """One or two texts a record with the special tokens that the model's architecture expects around them.

    An encoder reads [CLS] a [SEP] and [CLS] a [SEP] b [SEP], a decoder <s> a </s> and <s> a </s> b </s>. What is too
    long loses tokens at the end of the longer text.

    Args:
        texts: one or two columns of texts.

    Raises UserError where the length leaves no room for text.
    """
    lead, end = frame_of(vocabulary, model)
    room = length - 1 - len(texts)
    if room < len(texts):
        raise UserError(f"data.length is {length}: there is no room for text.", "Give at least 8, usually 128.")
    kept = [one.lengths for one in texts]
    kept = [np.minimum(kept[0], room)] if len(kept) == 1 else list(truncated(kept[0], kept[1], room))
    runs: list[Run] = [lead]
    for one, size in zip(texts, kept, strict=True):
        runs += [(one, one.offsets[:-1], size), end]
    return join(runs, len(texts[0].offsets) - 1)
