"""The base of scorers: models that return the likelihood of tokens, given the text around or before them.

Every pre-training objective declares how its models do so (`Objective.blank_layout`); blanks and texts are the same
for all. Two engines do the work: scoring/autoregressive.py for decoders, scoring/bidirectional.py for models
that read both sides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pretextlm.scoring.blank import Blank, Candidate, DecoderPrompt
from pretextlm.scoring.blank_layout import BlankLayout
from pretextlm.scoring.token_texts import TokenTexts

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer

TokenIds = Sequence[int]


class Scorer(ABC):
    """A model that scores tokens in a context.

    Args:
        model: in eval mode.
        texts: the tokenizer's tokens.
        layout: how the model's input presents a blank.
    """

    def __init__(self, model: Transformer, texts: TokenTexts, layout: BlankLayout) -> None:
        self.model, self.texts, self.layout = model, texts, layout
        self.vocabulary = texts.vocabulary

    @abstractmethod
    def log_likelihoods(
        self, blanks: Sequence[Blank], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[NDArray[np.float64]]:
        """Returns, for each blank, the log-likelihood of each of its candidates, in nats.

        Args:
            blanks: B blanks.
            candidates: for each blank, the token ids of each candidate, none empty.
        """

    @abstractmethod
    def best_candidates(self, blanks: Sequence[Blank], top: int, max_tokens: int) -> list[list[Candidate]]:
        """Returns, for each blank, up to `top` different candidates of the model's own, best first, at least one.

        Args:
            max_tokens: of a candidate, unless the blank says how many tokens are hidden.
        """

    def prompt(self, tokens: TokenIds) -> DecoderPrompt | None:
        """Returns the input of a decoder that continues a text; None for a model that was not trained to do so."""
        return None if self.model.decoder is None else self.layout.prompt(tokens)

    @cached_property
    def excluded(self) -> NDArray[np.bool_]:
        """(model's vocab_size,) True for ids that no candidate holds: special, white space, or not in the tokenizer."""
        excluded = np.ones(self.model.config.vocab_size, bool)
        excluded[: self.vocabulary.size] = self.vocabulary.is_special | self.texts.is_whitespace
        excluded[self.vocabulary.unk] = True
        return excluded

    def allow_all_tokens(self) -> None:
        """Allows candidates with special tokens and white space, as any token may fill a mask in transformers."""
        self.excluded = np.zeros(self.model.config.vocab_size, bool)

    def excluded_first(self, blanks: Sequence[Blank]) -> NDArray[np.bool_]:
        """Returns (B, V) True for ids that a blank's candidates do not begin with, beside those of `excluded`."""
        excluded = np.zeros((len(blanks), self.model.config.vocab_size), bool)
        begins = self.texts.begins_word
        if begins.any():
            inside = np.ones(excluded.shape[1], bool)
            inside[: len(begins)] = ~begins
            excluded[[blank.starts_word for blank in blanks]] = inside
        return excluded
