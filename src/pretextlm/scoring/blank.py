"""A text with a blank, a candidate that fills it, and a prompt that a decoder continues, all as token ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Blank:
    """One blank to fill, with the text around it.

    Attributes:
        left: text before the blank.
        right: text after it, up to the next blank or the end.
        later: text after each further blank that is still open.
        starts_document, ends_document: whether the text includes a document's beginning, its end; a window cut from
            the middle of a document includes neither.
        num_tokens: number of hidden tokens, if known.
        starts_word: the blank begins with a word, after a space that is part of its first token.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    later: tuple[tuple[int, ...], ...] = ()
    starts_document: bool = True
    ends_document: bool = True
    num_tokens: int | None = None
    starts_word: bool = False

    @property
    def pieces(self) -> tuple[tuple[int, ...], ...]:
        """The text between the blanks, first to last."""
        return (self.left, self.right, *self.later)


@dataclass(frozen=True)
class Candidate:
    """Token ids for a blank and their score in nats; scores of different scorers are not comparable."""

    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class DecoderPrompt:
    """The input of a decoder that continues a text.

    Attributes:
        context: ids that are read from left to right, at least one.
        source: ids before them that are seen in both directions, by the encoder or by the decoder itself; None if
            there are none.
        reread: the context begins with the source's last token.
        stop: ids that end the continuation; None for </s>.
    """

    context: list[int]
    source: list[int] | None = None
    reread: bool = False
    stop: tuple[int, ...] | None = None
