"""The base of the tasks: training objectives whose rows are labelled examples, for fine-tuning.

A task names the columns it reads, takes its labels from the training records, turns records into examples, and turns
the model's outputs for the examples into answers. It knows neither files nor metrics: the code that opens data and
that evaluates does.
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
from pretextlm.data.offset_mapping import JoinedExamples, OffsetTokenizer, TokenizedTexts, framed
from pretextlm.data.text_template import TextTemplate
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, Outputs, TrainingObjective

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.counter_rng import CounterRNG
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import Kind, TaskClass

I64 = NDArray[np.int64]
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

HEAD = "heads.task."
"""Prefix of the names of a task head's weights in the model."""

LOWEST_SCORE = -1e30
"""A score below all others, in fp32."""


class Task(TrainingObjective):
    """Base of all tasks: each is one file, a subclass with its options as fields.

    Args:
        metrics: names of the scores it is evaluated by (evaluation/scores), the first the one that decides; by
            default `default_metrics`.
        causal: whether examples are read from left to right; the model's architecture decides.

    Class attributes, beside those of :class:`TrainingObjective`:
        default_metrics: the scores it is evaluated by unless `metrics` names others.
        label_columns: roles in `columns` of the columns that hold the answer.
        head_kind: the kind of published class (model/families/shared/task_classes.py) that its head is exported as and
            imported from; None for a task without a head of its own, whose model is published as a language model.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = DEFAULTS
    dynamic_shapes: ClassVar[bool] = True
    default_metrics: ClassVar[tuple[str, ...]]
    label_columns: ClassVar[tuple[str, ...]] = ("label",)
    head_kind: ClassVar[Kind | None] = None

    metrics: tuple[str, ...] = Field(default=(), description="scores it is evaluated by; by default those that suit it")
    causal: bool = Field(default=False, description="read from left to right; set by the model's architecture")

    @classmethod
    def described_as(cls) -> str:
        return f"task {getattr(cls, 'name', cls.__name__)!r}"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the scores it is evaluated by."""
        return self.metrics or self.default_metrics

    def columns(self) -> dict[str, str]:
        """Returns the columns that a training record must have: role → name."""
        raise NotImplementedError

    def validation_columns(self) -> dict[str, str]:
        """Returns the columns that a validation record must have."""
        return self.columns()

    def filter_records(self, records: Records) -> Records:
        """Returns the records without those that the options leave out."""
        return records

    def fit_labels(self, records: Records) -> Self:
        """Returns the same task with its labels taken from the training records.

        Raises:
            UserError: records without usable labels.
        """
        return self

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns the records as examples of at most `length` tokens.

        Raises:
            UserError: a record is wrong; names its row.
        """
        raise NotImplementedError

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns the model's prediction for each example of a batch, (E, …), or for each token, (N, …), in order."""
        raise NotImplementedError

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns one answer per record, as plain values.

        Args:
            predictions: those of `predict` for all examples, concatenated.
            examples: of the records.
            encoder: that made the examples.
            records: that the examples were made of.
        """
        raise NotImplementedError

    def references(self, records: Records) -> list[Any]:
        """Returns the correct answer of each record, in the form of `answers`."""
        raise NotImplementedError

    def input_columns(self) -> dict[str, str]:
        """Returns the columns that a record without an answer must have: role → name."""
        return {role: name for role, name in self.columns().items() if role not in self.label_columns}

    def unlabelled(self, records: Records) -> Records:
        """Returns records without answers with dummy labels filled in, so that `examples` can read them."""
        records = replace(records, unlabelled=True)
        return replace(records, columns=records.columns | self.dummy_labels(records), names=self.columns())

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns a column of placeholder labels for each role of `label_columns`."""
        raise NotImplementedError

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns each record's answer with the details behind it (scores, probabilities), for people."""
        return [{"answer": answer} for answer in self.answers(predictions, examples, encoder, records)]

    def reader(self, split: Examples, vocabulary: Vocabulary, length: int) -> ExampleReader:
        """Returns a reader of examples."""
        return ExampleReader(split)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the examples packed side by side."""
        return side_by_side(rows, vocabulary.pad, "causal" if self.causal else "bidirectional")

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the operations of the model without its language-model head."""
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, 0)

    def at_evaluation(self) -> Task:
        return self

    def for_architecture(self, architecture: Architecture) -> Self:
        """Returns the same task with the reading direction of this architecture."""
        return self.model_copy(update={"causal": architecture == "decoder"})

    def head_of_same_task(self, other: Self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the head's weights of a model trained on the same task and labels, for this task to start from.

        Args:
            other: the task as that model was trained on it.
            weights: of its head, by their names in the model.
        """
        return weights

    def check_head_class(self, head: TaskClass) -> None:
        """Checks that a published class of the task's `head_kind` computes the same as the task's head.

        Raises:
            UserError: it does not.
        """

    def published_head(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the head's weights as a published class holds them, whose outputs are in the labels' own unit."""
        return weights

    def published_values(self) -> dict[str, Any]:
        """Returns the task's part of a published config.json: the names of the labels and the type of problem."""
        return {}

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        """Returns the task that a published model of the task's `head_kind` was trained on.

        Args:
            head: the published class.
            values: of its config.json.
            outputs: rows of its last matrix.

        Returns:
            None where this task does not produce such outputs.
        """
        return None

    def pooled(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (M, D) the state that represents each text: of its first token, or in a decoder of its last.

        An example is one text, unless the task makes several of it.
        """
        return outputs.hidden_at(last_places(batch) if batch.attention == "causal" else first_places(batch))


def text_template(vocabulary: Vocabulary, model: ModelConfig) -> TextTemplate:
    """Returns the special tokens around a text and around a pair: a published model's, or those of the architecture.

    An encoder of our own reads [CLS] a [SEP] and [CLS] a [SEP] b [SEP], a decoder <s> a </s> and <s> a </s> b </s>.
    """
    if vocabulary.template is not None:
        return vocabulary.template
    decoder = model.architecture == "decoder"
    lead, end = (vocabulary.bos, vocabulary.eos) if decoder else (vocabulary.cls, vocabulary.sep)
    return TextTemplate.of_tokens([lead], [end], [end])


def up_to_last_token(
    joined: JoinedExamples, types: NDArray[np.int32], pad: int
) -> tuple[JoinedExamples, NDArray[np.int32]]:
    """Returns examples without padding tokens at their end, and their token types; one token is left.

    As in transformers, a decoder represents a text by the last token that is not padding, also where padding is its
    end token. Nothing reads what follows that token.
    """
    begins, lengths = joined.offsets[:-1], np.diff(joined.offsets)
    while (cut := (lengths > 1) & (joined.tokens[begins + lengths - 1] == pad)).any():
        lengths = lengths - cut
    places = np.arange(len(joined.tokens)) - np.repeat(begins, np.diff(joined.offsets))
    kept = places < np.repeat(lengths, np.diff(joined.offsets))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return JoinedExamples(joined.tokens[kept], joined.places[kept], offsets, joined.run[kept]), types[kept]


def longest_first(a: I64, b: I64, room: int) -> tuple[I64, I64]:
    """Returns the lengths of two texts after the longer one loses tokens until both fit, as in transformers.

    Of an odd room for two texts that are longer than half of it, the longer one has the odd token, or else the second.
    """
    kept = np.minimum(a, np.maximum(room - b, room // 2 + (a > b) * (room % 2)))
    return kept, np.minimum(b, room - kept)


def add_special_tokens(
    texts: Sequence[TokenizedTexts], vocabulary: Vocabulary, model: ModelConfig, length: int
) -> tuple[JoinedExamples, NDArray[np.int32]]:
    """Returns one or two texts per record with their special tokens, and (N,) the token types.

    Examples that are too long lose tokens at the end of the longer text. A decoder's have no padding at their end.

    Args:
        texts: one or two columns of texts.
        vocabulary: for special tokens.
        model: for the template.
        length: most tokens of an example.

    Raises:
        UserError: the length leaves no room for text.
    """
    template = text_template(vocabulary, model)
    room = length - template.specials(len(texts))
    if room < len(texts):
        raise UserError(f"data.length is {length}: there is no room for text.", "Give at least 8, usually 128.")
    kept = [one.lengths for one in texts]
    kept = [np.minimum(kept[0], room)] if len(kept) == 1 else list(longest_first(kept[0], kept[1], room))
    spans = [(one, one.offsets[:-1], size) for one, size in zip(texts, kept, strict=True)]
    found = framed(template.of(len(texts)), spans, vocabulary.bos)
    return up_to_last_token(*found, vocabulary.pad) if model.architecture == "decoder" else found
