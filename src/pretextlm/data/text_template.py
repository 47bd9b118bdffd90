"""The special tokens around one text and around a pair of texts, as a published tokenizer adds them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import field_validator

from pretextlm.config import Config
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FIRST, SECOND = -1, -2
"""In place of an id: all tokens of the first text, and of the second."""

Piece = tuple[int, int]
PROBES = (("a", "a"), ("the", "the"), ("1", "1"), (".", "."))
"""Pairs of texts, of which a tokenizer is expected to have tokens for at least one."""


class TextTemplate(Config):
    """Special tokens around texts, as pieces (id, token type); FIRST and SECOND stand for the texts themselves.

        BERT       single   [CLS] A [SEP]               (101, 0) (FIRST, 0) (102, 0)
                   pair     [CLS] A [SEP] B [SEP]       (101, 0) (FIRST, 0) (102, 0) (SECOND, 1) (102, 1)
        RoBERTa    pair     <s> A </s></s> B </s>       (0, 0) (FIRST, 0) (2, 0) (2, 0) (SECOND, 0) (2, 0)
        GPT-2      pair     A B                         (FIRST, 0) (SECOND, 0)

    Attributes:
        single: pieces of one text.
        pair: pieces of two texts.
    """

    single: tuple[Piece, ...]
    pair: tuple[Piece, ...]

    @field_validator("single", "pair")
    @classmethod
    def _holds_its_texts(cls, pieces: tuple[Piece, ...], field: Any) -> tuple[Piece, ...]:
        texts = sorted(index for index, _ in pieces if index < 0)
        if texts != ([FIRST] if field.field_name == "single" else [SECOND, FIRST]):
            raise ValueError("a template holds each text (-1, and -2 in a pair) once, and ids of special tokens")
        return pieces

    @property
    def before(self) -> tuple[int, ...]:
        """Returns the ids before a single text."""
        ids = [index for index, _ in self.single]
        return tuple(ids[: ids.index(FIRST)])

    @property
    def after(self) -> tuple[int, ...]:
        """Returns the ids after a single text."""
        ids = [index for index, _ in self.single]
        return tuple(ids[ids.index(FIRST) + 1 :])

    def of(self, texts: int) -> tuple[Piece, ...]:
        """Returns the pieces for one text or two."""
        return self.single if texts == 1 else self.pair

    def specials(self, texts: int) -> int:
        """Returns the number of special tokens around one text or two."""
        return len(self.of(texts)) - texts

    def around(self, tokens: Sequence[int]) -> list[int]:
        """Returns the ids of a single text with its special tokens."""
        return [*self.before, *tokens, *self.after]

    def without_types(self) -> Self:
        """Returns the same template with token type 0 everywhere."""
        single, pair = (tuple((index, 0) for index, _ in pieces) for pieces in (self.single, self.pair))
        return self.model_copy(update={"single": single, "pair": pair})

    @classmethod
    def of_tokens(cls, before: Sequence[int], between: Sequence[int], after: Sequence[int], second: int = 1) -> Self:
        """Returns the template `before A after` and `before A between B after`.

        Args:
            before, between, after: ids.
            second: token type of the second text and of what follows it.
        """
        opening = [*((index, 0) for index in before), (FIRST, 0)]
        closing = [*((index, 0) for index in between), (SECOND, second), *((index, second) for index in after)]
        return cls(single=(*opening, *((index, 0) for index in after)), pair=(*opening, *closing))


def template_of(tokenizer: Tokenizer) -> TextTemplate:
    """Returns the template of a tokenizer's post-processor, as read from the encodings of short texts.

    Raises:
        UserError: it has no token for any of the texts, or its post-processor leaves one out.
    """
    for first, second in PROBES:
        single, pair = tokenizer.encode(first), tokenizer.encode(first, second)
        if 0 in single.sequence_ids and {0, 1} <= set(pair.sequence_ids):
            return TextTemplate(single=_pieces(single), pair=_pieces(pair))
    raise UserError("The tokenizer has no token for 'a', '1' or '.'.", "It is damaged: fetch the model again.")


def _pieces(encoding: Any) -> tuple[Piece, ...]:
    """Returns the pieces of an encoding, in which all tokens of a text are one piece."""
    found: list[Piece] = []
    for index, kind, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        piece = (index, kind) if text is None else (FIRST if text == 0 else SECOND, kind)
        if text is None or not found or found[-1] != piece:
            found.append(piece)
    return tuple(found)


def post_processor(tokenizer: Tokenizer, template: TextTemplate) -> Any:
    """Returns the post-processor of the tokenizers library that adds the special tokens of a template."""
    from tokenizers.processors import TemplateProcessing

    def written(pieces: tuple[Piece, ...]) -> list[str]:
        return [f"{names[index]}:{kind}" for index, kind in pieces]

    ids = sorted({index for index, _ in (*template.single, *template.pair) if index >= 0})
    tokens = {index: str(tokenizer.id_to_token(index)) for index in ids}
    # A piece is written NAME:TYPE, so that a token with a colon or a space needs another name.
    plain = re.compile(r"[^\s:$][^\s:]*")
    names = {index: token if plain.fullmatch(token) else f"token{index}" for index, token in tokens.items()}
    names |= {FIRST: "$A", SECOND: "$B"}
    return TemplateProcessing(
        single=written(template.single),
        pair=written(template.pair),
        special_tokens=[{"id": names[index], "ids": [index], "tokens": [tokens[index]]} for index in ids],
    )
