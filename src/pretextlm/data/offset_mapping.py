"""Tokenized texts with their offset mapping (the characters of each token), and examples joined from parts of them.

Axis letters: E texts or examples, N tokens of all of them, S parts of an example.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.text_template import FIRST, SECOND, Piece
from pretextlm.data.tokenizer import tokenizer_errors, vocabulary_of
from pretextlm.data.word_boundaries import code_points, continues_character, is_white

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pretextlm.data.vocabulary import Vocabulary

I64 = NDArray[np.int64]
SPACE = ord(" ")


@dataclass(frozen=True)
class TokenizedTexts:
    """Tokens of several texts, concatenated.

    Attributes:
        tokens: (N,) int32 ids.
        offsets: (E+1,) int64; text e is tokens[offsets[e]:offsets[e+1]].
        places: (N, 2) int32 character range [begin, end) of each token in its text, as it was given: complete
            characters, without the white space that many tokenizers count as part of the word after it.
    """

    tokens: NDArray[np.int32]
    offsets: I64
    places: NDArray[np.int32]

    @property
    def lengths(self) -> I64:
        """Returns (E,) the number of tokens of each text."""
        return np.diff(self.offsets)


class OffsetTokenizer:
    """Tokenizes texts with their offset mapping. It never yields a special token for text.

    Args:
        tokenizer: from data/tokenizer.py.
        vocabulary: its special ids in the roles that the model gives them.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary or vocabulary_of(tokenizer)
        self._replaces = _replaces(tokenizer)

    def encode(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize texts.

        Returns:
            The tokens of all texts with their character ranges.

        Raises:
            UserError: the tokenizer fails on a text.
        """
        with tokenizer_errors():
            found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in found], dtype=np.int64)])
        tokens = np.fromiter(chain.from_iterable(one.ids for one in found), np.int32, int(offsets[-1]))
        flat = chain.from_iterable(chain.from_iterable(one.offsets for one in found))
        places = np.fromiter(flat, np.int32, 2 * len(tokens)).reshape(-1, 2)
        return TokenizedTexts(tokens, offsets, _visible(texts, offsets, places, self._replaces))


def _visible(texts: Sequence[str], offsets: I64, places: NDArray[np.int32], replaces: bool) -> NDArray[np.int32]:
    """Returns the ranges of the characters that a reader sees: complete ones, without the white space around them.

    A normaliser that composes characters or removes accents gives a token the first code point alone of what it read:
    the range ends at the next code point that is not part of the same character and belongs to no token.

        text      ᄒ ᅡ ᄂ ᅳ ᆯ ' ' e ́        code points of 하늘 é
        tokens    0-1 2-3     5-6 6-7        under NFC; ' ' is part of the word after it
        visible   0-2 2-5         6-8

    One that replaces several characters (`` by ") gives a token the last of them: with `replaces`, the range begins
    where that of the token before it ends.
    """
    codes = np.append(code_points("".join(texts)), 0)
    lengths = np.array([len(text) for text in texts], np.int64)
    begins = np.cumsum(lengths) - lengths
    ends_of = np.repeat(begins + lengths, np.diff(offsets))
    shift = np.repeat(begins, np.diff(offsets))
    begin, end = shift + places[:, 0], shift + places[:, 1]
    is_read = np.cumsum(np.bincount(begin, minlength=len(codes) + 1) - np.bincount(end, minlength=len(codes) + 1)) > 0
    goes_on = continues_character()[codes] & ~is_read[: len(codes)]
    end = np.minimum(_next(~goes_on)[end], ends_of)
    if replaces and len(begin):
        is_first = np.diff(shift, prepend=-1) != 0
        begin = np.where(end > begin, np.minimum(begin, np.where(is_first, shift, np.roll(end, 1))), begin)
    visible = ~is_white()[codes]
    first, last = _next(visible)[begin], _previous(visible)[end]
    # White space alone is an empty range: of the space before a word where the word begins, whose first token it is, as
    # in transformers; of any other white space before it, where no word begins.
    blank = first >= end
    there = np.where((end > begin) & (codes[end - 1] != SPACE), begin, end)
    first, last = np.where(blank, there, first), np.where(blank, there, last)
    return np.stack([first - shift, last - shift], 1).astype(np.int32)


def _replaces(tokenizer: Tokenizer) -> bool:
    """Returns whether a text of several characters is replaced, and no visible one is left out between two tokens."""
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    normalizers, pre_tokenizers = ([*_steps(json.loads(part.__getstate__()))] if part else [] for part in parts)
    if any(step["type"] == "CharDelimiterSplit" or step.get("behavior") == "Removed" for step in pre_tokenizers):
        return False
    replaced = [step["pattern"] for step in normalizers if step["type"] == "Replace" and step["content"]]
    return any(len(pattern.get("String", "regular expression")) > 1 for pattern in replaced)


def _steps(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields a normalizer or pre-tokenizer of tokenizer.json or, of a sequence, each of its steps."""
    inner = step.get("normalizers", step.get("pretokenizers"))
    if inner is None:
        yield step
    else:
        for one in inner:
            yield from _steps(one)


def _next(there: NDArray[np.bool_]) -> I64:
    """Returns (C+1,) the index of the first True at or after each place; C if there is none."""
    places = np.append(np.where(there, np.arange(len(there)), len(there)), len(there))
    found: I64 = np.minimum.accumulate(places[::-1])[::-1]
    return found


def _previous(there: NDArray[np.bool_]) -> I64:
    """Returns (C+1,) the index behind the last True before each place; 0 if there is none."""
    found: I64 = np.maximum.accumulate(np.append(0, np.where(there, np.arange(1, len(there) + 1), 0)))
    return found


@dataclass(frozen=True)
class JoinedExamples:
    """Examples joined from several parts.

    Attributes:
        tokens, places: (N,) ids and (N, 2) character ranges of all examples.
        offsets: (E+1,); example e is tokens[offsets[e]:offsets[e+1]].
        run: (N,) int32 index of the part that each token comes from.
    """

    tokens: NDArray[np.int32]
    places: NDArray[np.int32]
    offsets: I64
    run: NDArray[np.int32]


Span = tuple[TokenizedTexts, I64, I64]
"""For every example a range of a text's tokens, as (texts, first (E,), length (E,))."""

Part = int | Span
"""One part of every example: a special token, or a range of a text's tokens."""


def where(present: NDArray[np.bool_], token: int) -> Span:
    """Returns a special token of those examples (E,) that are True."""
    one = TokenizedTexts(np.array([token], np.int32), np.array([0, 1]), np.zeros((1, 2), np.int32))
    return one, np.zeros(len(present), np.int64), present.astype(np.int64)


def framed(pieces: Sequence[Piece], texts: Sequence[Span], lead: int) -> tuple[JoinedExamples, NDArray[np.int32]]:
    """Join one or two texts of every example with the special tokens of a template.

    Args:
        pieces: of the template.
        texts: the texts.
        lead: token of an example that would have none: an empty text without special tokens.

    Returns:
        The examples, whose `run` is the index of a token's piece, and (N,) the token types.
    """
    spans = dict(zip((FIRST, SECOND), texts, strict=False))
    parts: list[Part] = [spans.get(index, index) for index, _ in pieces]
    types = [kind for _, kind in pieces]
    if len(parts) == len(texts):
        parts, types = [*parts, where(np.sum([length for *_, length in texts], 0) == 0, lead)], [*types, 0]
    joined = join(parts, len(texts[0][1]))
    return joined, np.array(types, np.int32)[joined.run]


def join(runs: Sequence[Part], examples: int) -> JoinedExamples:
    """Concatenate the same parts for every example.

    Args:
        runs: the parts in order; a special token has the empty character range (0, 0).
        examples: E.

    Returns:
        The joined examples.
    """
    pools: list[NDArray[np.int32]] = []
    places: list[NDArray[np.int32]] = []
    begins, lengths = np.empty((2, examples, len(runs)), np.int64)
    before = 0
    for number, run in enumerate(runs):
        if isinstance(run, int):
            pools.append(np.array([run], np.int32))
            places.append(np.zeros((1, 2), np.int32))
            begins[:, number], lengths[:, number] = before, 1
        else:
            texts, begin, length = run
            pools.append(texts.tokens)
            places.append(texts.places)
            begins[:, number], lengths[:, number] = before + begin, length
        before += len(pools[-1])
    # All sources form one pool; part s of example e is pool[begins[e, s] : begins[e, s] + lengths[e, s]].
    # Within a part, the pool index is the output index plus a constant, so one np.repeat yields all indices.
    flat = lengths.reshape(-1)
    ends = np.cumsum(flat)
    index = np.repeat(begins.reshape(-1) - (ends - flat), flat) + np.arange(int(flat.sum()))
    of = np.repeat(np.tile(np.arange(len(runs), dtype=np.int32), examples), flat)
    offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    return JoinedExamples(np.concatenate(pools)[index], np.concatenate(places)[index], offsets, of)
