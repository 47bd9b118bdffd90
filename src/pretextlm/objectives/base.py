"""What an objective is: a frozen configuration that turns rows into a batch and a batch's outputs into terms.

An objective is pure: only (seed, epoch, example id), through the keyed generator, decide what it draws. It knows
neither tokenizer nor trainer nor device; everything but `terms` is numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.config import Config
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.keyed import Keyed
from pretextlm.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Architecture = Literal["encoder", "decoder", "encoder_decoder"]

OBJECTIVES = Registry(
    "objective",
    {
        "causal": "pretextlm.objectives.causal:Causal",
        "masked": "pretextlm.objectives.masked:Masked",
        "span_corruption": "pretextlm.objectives.span_corruption:SpanCorruption",
    },
)


@dataclass(frozen=True)
class Frame:
    """Special tokens around text in the stream an objective reads; None puts nothing there.

    Attributes:
        begin, end: ids put before and after every document.
        lead: id put at the start of every row, on top of the tokens the row reads.
    """

    begin: int | None = None
    end: int | None = None
    lead: int | None = None


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
    """

    name: str
    raw: int
    length: int
    decoder_length: int = 0
    overlap: int = 0
    weight: float = 1.0


class Outputs(Protocol):
    """What the model returns, as far as an objective looks at it."""

    @property
    def labels_N(self) -> Tensor: ...

    @property
    def logits_NV(self) -> Tensor: ...

    def cross_entropy(self) -> Tensor: ...


class Objective(Config):
    """Base of all objectives: each is one file, a subclass with its options as fields.

    Class attributes: `name` as registered, `title` for people, `paper`, what a model `learns` from it in one line,
    `reads`, `heads`, `roles`, and `architectures` that suit it, the default first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    learns: ClassVar[str]
    reads: ClassVar[Literal["stream", "documents", "pairs", "labelled"]] = "stream"
    heads: ClassVar[tuple[str, ...]] = ("lm",)
    roles: ClassVar[tuple[str, ...]] = ("model",)
    architectures: ClassVar[tuple[Architecture, ...]]

    def suits(self) -> tuple[Architecture, ...]:
        """Architectures that suit it with these options, the default first."""
        return self.architectures

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Special tokens around the text it reads."""
        raise NotImplementedError

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Shapes of rows for input rows of `length` tokens. Raises UserError if the vocabulary or length cannot do."""
        raise NotImplementedError

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, rng: Keyed) -> Batch:
        """Rows → batch: pure, vectorised, without changing `rows`."""
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, int]:
        """Targets per term, from the (numpy) batch alone, so that the whole step's count is known before any loss."""
        return {"lm": int(np.count_nonzero(batch.targets != IGNORE))}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Summed losses: here the cross-entropy of the labelled positions, in nats."""
        return {"lm": Term(outputs.cross_entropy(), outputs.labels_N.numel())}


def build(name: str, options: dict[str, Any] | None = None) -> Objective:
    """The objective registered under `name` with `options`. Raises UserError for a wrong name or option."""
    cls: type[Objective] = OBJECTIVES[name]
    return cls.parse(options or {}, where=f"objective {name!r}")
