"""Token ids as text, and the properties of a token's text that decide where it may occur."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.tokenizer import tokenizer_errors
from pretextlm.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenTexts:
    """Converts between text and token ids.

    Args:
        tokenizer: of the run.
        vocabulary: its special ids.
        parser: the tokenizer that encodes texts, if it is another one: one that parses the names of special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, parser: Tokenizer | None = None) -> None:
        self.tokenizer, self.vocabulary, self.parser = tokenizer, vocabulary, parser

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text without the special tokens around it.

        Raises:
            UserError: the tokenizer fails on it.
        """
        with tokenizer_errors():
            ids: list[int] = (self.parser or self.tokenizer).encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids; special tokens are left out."""
        text: str = self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)
        return text

    @cached_property
    def begins_word(self) -> NDArray[np.bool_]:
        """(V,) True for a token whose text begins with white space and goes on: a word begins in it.

        All False for a tokenizer whose tokens hold no spaces.
        """
        return np.array([text[:1].isspace() and not text.isspace() for text in self._after_a_letter], bool)

    @cached_property
    def is_whitespace(self) -> NDArray[np.bool_]:
        """(V,) True for a token whose text is white space alone."""
        return np.array([text.isspace() for text in self._after_a_letter], bool)

    @cached_property
    def _after_a_letter(self) -> list[str]:
        """The text of every token, decoded behind "a".

        Decoders of the SentencePiece kind strip the space of a text's first token; behind a letter it is kept.
        """
        anchor = self.encode("a")
        before = len(self.decode(anchor))
        texts = self.tokenizer.decode_batch([[*anchor, i] for i in range(self.vocabulary.size)])
        return [text[before:] for text in texts]
