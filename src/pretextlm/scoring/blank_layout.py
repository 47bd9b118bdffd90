"""How a model's input presents a blank: declared by its objective as lists of ids, without the model.

There are two kinds. In a `ContinuationLayout` a decoder writes the candidate after a context; in an `InPlaceLayout`
the hidden tokens are predicted at their places, from both sides.

    continuation   <s> The | cat | sat on the mat.         log p(candidate, following text | context)
    in place       [CLS] The [MASK] sat on the mat. [SEP]  log p(token | both sides)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.scoring.blank import Blank, DecoderPrompt

FOLLOWING_TOKENS = 16
"""Tokens after the blank that a candidate is scored with, at most."""

OPEN = -1
"""In the tokens of a candidate: a place that is still to be predicted."""


class BlankLayout:
    """Base of both kinds.

    Args:
        vocabulary: for special tokens.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def prompt(self, tokens: Sequence[int]) -> DecoderPrompt | None:
        """Returns the input of a decoder that continues a text; None for a model that was not trained to do so."""
        return None


class ContinuationLayout(BlankLayout):
    """A decoder reads `context`, writes the candidate, and then `following`.

    Class attributes (properties where the options decide):
        beam_width: candidates that a search keeps, at least.
        source_shows_length: the source shows how many tokens are hidden.
        reread: the context begins with the source's last token, since a decoder that reads a prefix in both directions
            continues from the state of the prefix's last token.
    """

    beam_width: ClassVar[int] = 8
    source_shows_length: bool = False
    reread: bool = False

    @abstractmethod
    def context(self, blank: Blank) -> list[int]:
        """Returns the ids that the decoder has read when the candidate begins; at least one."""

    def following(self, blank: Blank) -> list[int]:
        """Returns the ids after the candidate, which are scored with it."""
        return []

    def terminators(self) -> list[int]:
        """Returns the ids of which any ends a candidate, so that nothing else follows; none where text follows."""
        return []

    def source(self, blank: Blank, num_tokens: int) -> list[int] | None:
        """Returns the ids that are seen in both directions; None if there are none.

        Args:
            num_tokens: of the candidate, where `source_shows_length`; otherwise 0.
        """
        return None

    def first_position(self, blank: Blank) -> int:
        """Returns the position of the context's first token."""
        return 0


@dataclass(frozen=True)
class EncoderRow:
    """A row that is read in both directions.

    Attributes:
        tokens: (T,) ids.
        columns: the column whose hidden state predicts each token of the candidate, by its place; a layout that fills
            from left to right gives that of the first open place alone.
        position_ids, rank, reach: (T,) as in `Batch`, for rows with attention "ranked"; None for plain rows.
    """

    tokens: Sequence[int]
    columns: dict[int, int]
    position_ids: Sequence[int] | None = None
    rank: Sequence[int] | None = None
    reach: Sequence[int] | None = None


class InPlaceLayout(BlankLayout):
    """Hidden tokens are predicted at their own places, from the known tokens on both sides.

    Class attribute `left_to_right`: places can be filled in this order alone; otherwise in any.
    """

    left_to_right: ClassVar[bool] = False

    @abstractmethod
    def row(self, blank: Blank, candidate: Sequence[int]) -> EncoderRow:
        """Returns the row that shows the text with the candidate in the blank.

        Args:
            candidate: token ids, OPEN where a place is to be predicted.
        """
