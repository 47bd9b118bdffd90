"""The words or characters of texts that are tagged, and the tokens that begin with them.

Axis letters: E texts, N tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.offset_mapping import TokenizedTexts
from pretextlm.tasks.shared.word_splitting import Span, word_spans

I64 = NDArray[np.int64]


class UnitsOfText(NamedTuple):
    """A text and the characters [begin, end) of each of its units."""

    text: str
    spans: Sequence[Span]

    @classmethod
    def joined(cls, units: Sequence[str], between: str) -> Self:
        """Returns the text of units that are joined by a space or by nothing."""
        ends = np.cumsum([len(unit) + len(between) for unit in units]).tolist()
        return cls(
            between.join(units),
            [(end - len(between) - len(u), end - len(between)) for u, end in zip(units, ends, strict=True)],
        )

    @classmethod
    def of_words(cls, text: str) -> Self:
        """Returns a text with its words."""
        return cls(text, word_spans(text))

    @classmethod
    def of_characters(cls, text: str) -> Self:
        """Returns a text with its characters."""
        return cls(text, [(place, place + 1) for place in range(len(text))])

    @property
    def units(self) -> list[str]:
        """Returns the units as texts."""
        return [self.text[begin:end] for begin, end in self.spans]


class Units:
    """The tagged units of several texts, one text after another.

    Attributes:
        texts: with their units.
        first: (E+1,) index of each text's first unit.
        count: number of all units.
    """

    def __init__(self, texts: Sequence[UnitsOfText]) -> None:
        self.texts = texts
        self.first = np.concatenate([[0], np.cumsum([len(one.spans) for one in texts], dtype=np.int64)])
        self.count = int(self.first[-1])
        self._text = np.repeat(np.arange(len(texts)), np.diff(self.first))
        # First characters of texts and units, counted over all texts one after another, each with one place behind it:
        # there begins a token that is a space at the text's end (see `OffsetTokenizer`).
        self._text_begin = np.cumsum([0, *(len(one.text) + 1 for one in texts)])[:-1]
        own = np.fromiter((begin for one in texts for begin, _ in one.spans), np.int64, self.count)
        self._begin = self._text_begin[self._text] + own

    def of(self, encoded: TokenizedTexts) -> I64:
        """Returns (N,) the unit in which each token begins: the last that begins at or before its first character."""
        text = np.repeat(np.arange(len(self.texts)), encoded.lengths)
        return np.searchsorted(self._begin, self._text_begin[text] + encoded.places[:, 0], side="right") - 1

    def begun(self, encoded: TokenizedTexts) -> NDArray[np.bool_]:
        """Returns (N,) whether a token is the first of its unit.

        A token before the first unit of its text, such as a line break, has none: the search finds a unit of another
        text.
        """
        of, text = self.of(encoded), np.repeat(np.arange(len(self.texts)), encoded.lengths)
        found: NDArray[np.bool_] = (np.diff(of, prepend=-1) != 0) & (of >= self.first[:-1][text])
        return found
