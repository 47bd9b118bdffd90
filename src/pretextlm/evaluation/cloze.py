"""A text with a blank, and what every kind of model can do with it: propose answers, and weigh given ones.

Each kind does it in its own way, the one it was trained for; the blank and the text around it are the same for all.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.text_to_text import TextToText

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretextlm.model.transformer import Transformer

FILLERS = {
    "causal": "pretextlm.evaluation.causal_filler:CausalFiller",
    "prefix": "pretextlm.evaluation.prefix_filler:PrefixFiller",
    "fill_in_middle": "pretextlm.evaluation.middle_filler:MiddleFiller",
    "masked": "pretextlm.evaluation.masked_filler:MaskedFiller",
    "replaced_token": "pretextlm.evaluation.replaced_filler:ReplacedTokenFiller",
    "permutation": "pretextlm.evaluation.permutation_filler:PermutationFiller",
    "span_corruption": "pretextlm.evaluation.span_filler:SpanFiller",
    "denoising": "pretextlm.evaluation.denoising_filler:DenoisingFiller",
    "masked_sequence": "pretextlm.evaluation.sequence_filler:MaskedSequenceFiller",
}
"""What `Objective.way_of_filling` names."""


@dataclass(frozen=True)
class Cloze:
    """One blank to fill now, as token ids.

    Attributes:
        left: text before the blank.
        right: text after it, up to the next blank or the end.
        later: text after each further blank that is still open.
        begins, ends: whether the text is a document's beginning, end; a window of a document is neither.
        length: number of tokens hidden, where it is known.
        new_word: the answer begins with a word, after a space that is part of its first token.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    later: tuple[tuple[int, ...], ...] = ()
    begins: bool = True
    ends: bool = True
    length: int | None = None
    new_word: bool = False

    @property
    def pieces(self) -> tuple[tuple[int, ...], ...]:
        """The text between the blanks, first to last."""
        return (self.left, self.right, *self.later)


@dataclass(frozen=True)
class Answer:
    """Token ids and how good the model finds them, in nats; scores of different kinds of model are not comparable."""

    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Opening:
    """Where a decoder stands when it is to go on from a text.

    Attributes:
        context: ids it has read from left to right, at least one.
        source: what is seen in both directions before it: by the encoder, or by the decoder itself; None for nothing.
        reread: the context begins with the source's last token.
        stop: ids that end what it writes; None for </s>.
    """

    context: list[int]
    source: list[int] | None = None
    reread: bool = False
    stop: tuple[int, ...] | None = None


class TokenTexts:
    """What tokens are as text.

    Args:
        tokenizer: of the run.
        vocabulary: its special ids.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary

    def encode(self, text: str) -> list[int]:
        """Ids of a text without any special token."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; a special token shows as nothing."""
        text: str = self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    @cached_property
    def begins_word(self) -> NDArray[np.bool_]:
        """(V,) True for a token that after a letter begins with white space: a word begins in it.

        All False for a tokenizer that shows no spaces.
        """
        return np.array([text[:1].isspace() and not text.isspace() for text in self._after_a_letter], bool)

    @cached_property
    def is_space(self) -> NDArray[np.bool_]:
        """(V,) True for a token that shows nothing but white space."""
        return np.array([text.isspace() for text in self._after_a_letter], bool)

    @cached_property
    def _after_a_letter(self) -> list[str]:
        anchor = self.encode("a")
        before = len(self.decode(anchor))
        every = self.tokenizer.decode_batch([[*anchor, i] for i in range(self.vocabulary.size)])
        return [text[before:] for text in every]


class Filler(ABC):
    """A model as one that fills blanks.

    Args:
        model: in eval mode.
        objective: what it was trained with, which says how a text stands in its rows.
        texts: the tokenizer's tokens.

    Class attribute `writes`: it needs a decoder, which reads from left to right.
    """

    writes: ClassVar[bool] = False

    def __init__(self, model: Transformer, objective: Objective, texts: TokenTexts) -> None:
        self.model, self.objective, self.texts = model, objective, texts
        self.vocabulary = texts.vocabulary

    @abstractmethod
    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        """For each blank up to `top` different answers of at most `max_tokens` tokens, best first, at least one."""

    @abstractmethod
    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        """For each blank the log-likelihood of each of its choices (token ids), in nats."""

    def opening(self, prompt: Sequence[int]) -> Opening | None:
        """Where the model stands when it is to go on from a text; None if it was not trained to go on from one."""
        return None

    @cached_property
    def banned(self) -> NDArray[np.bool_]:
        """(vocab_size of the model,) True for an id that no answer holds: special, white space, or no token at all."""
        banned = np.ones(self.model.config.vocab_size, bool)
        banned[: self.vocabulary.size] = self.vocabulary.is_special | self.texts.is_space
        banned[self.vocabulary.unk] = True
        return banned

    def banned_first(self, clozes: Sequence[Cloze]) -> NDArray[np.bool_]:
        """(B, V) True for an id that the answer to a blank does not begin with, on top of those."""
        banned = np.zeros((len(clozes), self.model.config.vocab_size), bool)
        begins = self.texts.begins_word
        if begins.any():
            inside = np.ones(banned.shape[1], bool)
            inside[: len(begins)] = ~begins
            banned[[cloze.new_word for cloze in clozes]] = inside
        return banned


def can_fill(model: Transformer, objective: Objective) -> bool:
    """Whether a model trained so fills blanks at all."""
    way = objective.way_of_filling()
    return way is not None and (model.decoder is not None or not _filler_class(way).writes)


def filler(model: Transformer, objective: Objective, texts: TokenTexts) -> Filler:
    """The way that suits what the model was trained for. Raises UserError when there is none."""
    way = objective.way_of_filling()
    if way is None or not can_fill(model, objective):
        raise UserError(
            f"A model trained by {objective.name} with these options does not fill blanks.",
            "Its own measures say what it does: pretextlm evaluate RUN",
        )
    cls = _filler_class(way)
    return cls(model, objective.denoiser if isinstance(objective, TextToText) else objective, texts)


def _filler_class(way: str) -> type[Filler]:
    module, _, name = FILLERS[way].partition(":")
    found: type[Filler] = getattr(importlib.import_module(module), name)
    return found
