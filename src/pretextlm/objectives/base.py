"""What an objective is: a frozen configuration that turns rows into a batch and a batch's outputs into terms.

An objective is pure: only (seed, epoch, example id), through the keyed generator, decide what it draws. It knows
neither tokenizer nor trainer nor device; everything but `heads`, `step` and `terms` is numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.config import Config
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.mixture import Reader
    from pretextlm.data.store import Split
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer

Architecture = Literal["encoder", "decoder", "encoder_decoder"]

OBJECTIVES = Registry(
    "objective",
    {
        "causal": "pretextlm.objectives.causal:Causal",
        "masked": "pretextlm.objectives.masked:Masked",
        "span_corruption": "pretextlm.objectives.span_corruption:SpanCorruption",
        "prefix": "pretextlm.objectives.prefix:Prefix",
        "denoisers": "pretextlm.objectives.denoisers:Denoisers",
        "next_sentence": "pretextlm.objectives.next_sentence:NextSentence",
        "sentence_order": "pretextlm.objectives.sentence_order:SentenceOrder",
        "word_structure": "pretextlm.objectives.word_structure:WordStructure",
        "span_boundary": "pretextlm.objectives.span_boundary:SpanBoundary",
        "replaced_token": "pretextlm.objectives.replaced_token:ReplacedToken",
        "denoising": "pretextlm.objectives.denoising:Denoising",
        "masked_sequence": "pretextlm.objectives.masked_sequence:MaskedSequence",
        "mixed_visibility": "pretextlm.objectives.mixed_visibility:MixedVisibility",
        "permutation": "pretextlm.objectives.permutation:Permutation",
        "fill_in_middle": "pretextlm.objectives.fill_in_middle:FillInMiddle",
        "bimodal_code": "pretextlm.objectives.bimodal_code:BimodalCode",
        "text_to_text": "pretextlm.objectives.text_to_text:TextToText",
        "distillation": "pretextlm.objectives.distillation:Distillation",
    },
)
TASKS = Registry(
    "task",
    {
        "text_classification": "pretextlm.tasks.text_classification:TextClassification",
        "text_regression": "pretextlm.tasks.text_regression:TextRegression",
        "multiple_choice": "pretextlm.tasks.multiple_choice:MultipleChoice",
        "token_classification": "pretextlm.tasks.token_classification:TokenClassification",
        "question_answering": "pretextlm.tasks.question_answering:QuestionAnswering",
        "instruction": "pretextlm.tasks.instruction:Instruction",
        "text_to_text": "pretextlm.tasks.text_to_text:TextToText",
        "sentence_embedding": "pretextlm.tasks.sentence_embedding:SentenceEmbedding",
    },
)


@dataclass(frozen=True)
class Frame:
    """Special tokens around text in the stream an objective reads; None puts nothing there.

    Attributes:
        begin, end: ids put before and after every document.
        lead: id put at the start of every row, on top of the tokens the row reads.
        sentences: rows also say where sentences begin.
    """

    begin: int | None = None
    end: int | None = None
    lead: int | None = None
    sentences: bool = False


@dataclass(frozen=True)
class Variant:
    """One shape of row that an objective asks for.

    Attributes:
        name: "main", or the denoiser's name in a mixture.
        raw: stream tokens that a row reads (its lead token not counted).
        length: width of the (encoder's) input row.
        decoder_length: width of the decoder row; 0 without one.
        overlap: of the raw tokens, how many the next row reads again (the causal model's one token of look-ahead).
        weight: share of the rows that have this shape.
        restart: the rows of every epoch begin at the same places in the text, so that a row comes again with its
            number (static noise needs it); without it an epoch goes on where the last one's last row ended.
    """

    name: str
    raw: int
    length: int
    decoder_length: int = 0
    overlap: int = 0
    weight: float = 1.0
    restart: bool = False


class Outputs(Protocol):
    """What the model returns, as far as an objective looks at it."""

    @property
    def model(self) -> Transformer: ...

    @property
    def hidden_BTD(self) -> Tensor: ...

    def at(self, places: NDArray[np.integer]) -> Tensor: ...

    def cross_entropy_of(self, hidden_MD: Tensor, labels: NDArray[np.integer]) -> Tensor: ...

    @property
    def hidden_ND(self) -> Tensor: ...

    @property
    def labels_N(self) -> Tensor: ...

    @property
    def logits_NV(self) -> Tensor: ...

    @property
    def heads(self) -> Mapping[str, nn.Module]: ...

    def cross_entropy(self) -> Tensor: ...

    def cross_entropy_at(self, labels: Any) -> Tensor: ...


class Forward(Protocol):
    """Runs one of the models on a batch: the one that is trained, or the one that plays another role."""

    def __call__(self, batch: Batch, role: str = "model") -> Outputs: ...


class Objective(Config):
    """Base of all objectives: each is one file, a subclass with its options as fields.

    Class attributes: `name` as registered, `title` for people, `paper`, what a model `learns` from it in one line,
    `architectures` that suit it, the default first, `fills`: the way of filling blanks (a name of
    evaluation.cloze.FILLERS) that a model so trained knows, None if it knows none, `token_types`: how many parts
    of a row the model tells apart (0: none), `grows`: tokens that a document may gain, so that a row made to be
    looked at leaves room for them, `ragged`: whether batches differ in shape, `is_task`: whether it learns from
    records with labels, `whole_steps`: whether its loss compares the rows of a step, which then is one pass, and
    `defaults` of a recipe's table [training].
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    learns: ClassVar[str]
    architectures: ClassVar[tuple[Architecture, ...]]
    fills: ClassVar[str | None] = None
    token_types: ClassVar[int] = 0
    grows: ClassVar[int] = 0
    ragged: ClassVar[bool] = False
    is_task: ClassVar[bool] = False
    whole_steps: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    def way_of_filling(self) -> str | None:
        """How a model trained with these options fills blanks."""
        return self.fills

    def parts(self) -> int:
        """Parts of a row that the model tells apart by token types, with these options."""
        return self.token_types

    @property
    def reads_stream(self) -> bool:
        """Whether any run of text is a row; else `reader` alone knows what a row is."""
        return type(self).reader is Objective.reader

    @property
    def reads_pairs(self) -> bool:
        """Whether documents are to be of two parts, a source and a target."""
        return False

    def variant_names(self) -> list[str]:
        """Names of the variants, which do not depend on vocabulary and length."""
        return ["main"]

    def suits(self) -> tuple[Architecture, ...]:
        """Architectures that suit it with these options, the default first."""
        return self.architectures

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Special tokens around the text it reads."""
        raise NotImplementedError

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Shapes of rows for input rows of `length` tokens. Raises UserError if the vocabulary or length cannot do."""
        raise NotImplementedError

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> Reader:
        """Reads a split as this objective's rows: here the framed stream, in the shapes of `variants`."""
        from pretextlm.data.mixture import Mixture

        return Mixture(split, self.frame(vocabulary), self.variants(vocabulary, length))

    @property
    def copies(self) -> int:
        """After how many epochs the draws come again; 0: never (dynamic noise)."""
        return 0

    @property
    def scheduled(self) -> bool:
        """Whether the noise depends on the progress of training, so that this must be known when a row is read."""
        return False

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Rows → batch: pure, vectorised, without changing `rows`."""
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, int]:
        """Targets per term, from the (numpy) batch alone, so that the whole step's count is known before any loss."""
        return {"lm": int(np.count_nonzero(batch.targets != IGNORE))}

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Modules that are trained along with the trunk and saved with it, by name; the language-model head is none.

        Their weights are drawn by `reset_parameters(generator)` of each module that has one.
        """
        return {}

    def frozen_models(self) -> dict[str, str]:
        """Run directories of models that take part without being trained, by role."""
        return {}

    def at_evaluation(self) -> Objective:
        """The objective that a trained model is measured by, for which nothing but the model is needed."""
        return self

    def of_model(self, architecture: Architecture) -> Self:
        """The same for a model of this architecture, where it makes a difference."""
        return self

    def begin(self, models: Mapping[str, Transformer]) -> None:
        """Set the weights a new run starts from, where they are not those drawn from its seed.

        Args:
            models: all models by role; the one that is trained is "model".
        """

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Floating-point operations to train a model of this shape on the batch."""
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, int(np.count_nonzero(batch.targets != IGNORE)))

    def step(self, forward: Forward, batch: Batch) -> dict[str, Term]:
        """The terms of one micro-batch. Overridden where more than one pass is needed."""
        return self.terms(forward(batch), batch)

    def carries_loss(self, batch: Batch) -> NDArray[np.bool_]:
        """Which positions of the row that is predicted have a loss at their token, of the batch's width."""
        found: NDArray[np.bool_] = batch.targets != IGNORE
        return found if batch.shuffled_labels is None else found | (batch.shuffled_labels != IGNORE)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Summed losses: here the cross-entropy of the labelled positions, in nats."""
        return {"lm": Term(outputs.cross_entropy(), outputs.labels_N.numel())}


def build(name: str, options: dict[str, Any] | None = None, task: bool = False) -> Objective:
    """The objective registered under `name` with `options`, else the task; with `task`, that.

    Raises UserError for a wrong name or option.
    """
    registry = TASKS if task or (name in TASKS and name not in OBJECTIVES) else OBJECTIVES
    cls: type[Objective] = registry[name]
    return cls.parse(options or {}, where=f"{registry.kind} {name!r}")


def _built(value: Any) -> Any:
    """An objective from its table in a recipe, or its name alone."""
    if isinstance(value, str):
        return build(value)
    if isinstance(value, Mapping) and "name" in value:
        return build(value["name"], {k: v for k, v in value.items() if k != "name"})
    if isinstance(value, Mapping):
        raise ValueError('an objective inside another needs its name, for example: {name = "masked", rate = 0.15}')
    return value


Inner = Annotated[
    Objective,
    BeforeValidator(_built),
    PlainSerializer(lambda inner: {"name": inner.name, **inner.model_dump(mode="json")}),
]
"""An option that is itself an objective, written as a table with its name."""
