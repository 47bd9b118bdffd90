"""Splitting tokenized text between two characters, which may lie inside a token.

    text      a ship sailed              split after "a sh"
    tokens    a | ▁ship | ▁sail | ed
    split     a | ▁sh ‖ ip | ▁sail | ed

A character is a Unicode code point. Only the token that is split is tokenized again, each half by itself; a character
is never split, even if its bytes are spread over several tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.special_tokens import OTHER_NAMES, UNK

if TYPE_CHECKING:
    from tokenizers import Tokenizer

I64 = NDArray[np.int64]

Halves = tuple[list[int], list[int]]
"""Token ids of the text before and after a split."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class TokenSplits:
    """Both halves of every token for a split before every character that begins in it.

    Attributes:
        characters: (V,) number of characters that begin in each token.
        first: (V,) index of each token's first split; split k of a token is before the k-th character that begins in
            it.
        parts: (2 C + 1,) offsets in `pool` of the left and the right half of each of the C splits, alternating.
        pool: ids of all halves, concatenated.
    """

    characters: NDArray[np.int32]
    first: I64
    parts: I64
    pool: NDArray[np.int32]

    @classmethod
    def of(cls, halves: Sequence[Sequence[Halves]]) -> TokenSplits:
        """Build the tables from the halves of each token, indexed by id; an empty list marks a token without text."""
        characters = np.array([len(cuts) for cuts in halves], np.int32)
        pieces = list(chain.from_iterable(chain.from_iterable(halves)))
        parts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])
        pool = np.fromiter(chain.from_iterable(pieces), np.int32, int(parts[-1]))
        return cls(characters, np.cumsum(characters, dtype=np.int64) - characters, parts, pool)

    def cut(self, tokens: NDArray[np.int32], places: I64, nth: I64) -> SplitTokens:
        """Split tokens.

        Args:
            tokens: (N,) ids.
            places: (D,) indices of the tokens to split, strictly ascending.
            nth: (D,) number of the character, among those that begin in the token, before which it is split.

        Returns:
            The tokens after the splits.
        """
        # Split c has its left half at pool[parts[2c] : parts[2c+1]], its right half at pool[parts[2c+1] : parts[2c+2]].
        cuts = 2 * (self.first.take(tokens[places]) + nth)
        begin, middle, end = self.parts[cuts], self.parts[cuts + 1], self.parts[cuts + 2]
        sizes = end - begin
        grown = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes - 1)])
        counts = np.ones(len(tokens), dtype=np.int64)
        counts[places] = sizes
        out = np.repeat(tokens, counts)
        # Each split token becomes sizes[d] tokens: everything after it moves by the growth of all splits before.
        moved = places + grown[:-1]
        before = np.cumsum(sizes) - sizes
        index = np.arange(int(sizes.sum()))
        out[index + np.repeat(moved - before, sizes)] = self.pool[index + np.repeat(begin - before, sizes)]
        return SplitTokens(out, moved + middle - begin, places, grown)


@dataclass(frozen=True)
class SplitTokens:
    """A sequence of tokens in which some were split.

    Attributes:
        tokens: (N',) ids with both halves in place of each split token.
        between: (D,) index of the first token after each split.
    """

    tokens: NDArray[np.int32]
    between: I64
    _places: I64
    _grown: I64

    def moved(self, places: I64) -> I64:
        """Returns the new indices of the tokens that were at `places` (0 … N, in any order)."""
        out: I64 = places + self._grown[np.searchsorted(self._places, places)]
        return out


def halves_of(
    tokens: Sequence[str | None],
    spell: Callable[[str, bool], list[int]],
    mark: str = "",
    joined: bool = False,
    inner: Container[str] = "",
) -> list[list[Halves]]:
    """Compute the halves of each token for a split before each character that begins in it.

    Args:
        tokens: text of each token by id, as the vocabulary writes it; None for a token without text.
        spell: (text, whether it continues a word) → ids.
        mark: prefix of a token that continues a word.
        joined: the right half continues a word, too.
        inner: letters at which no character begins: bytes inside a character.

    Returns:
        For each token, the halves of its splits in order.
    """
    halves: list[list[Halves]] = []
    for index, token in enumerate(tokens):
        if token is None:
            halves.append([])
            continue
        goes_on = bool(mark) and token.startswith(mark) and token != mark
        text = token[len(mark) :] if goes_on else token
        begins = (at for at, letter in enumerate(text) if letter not in inner)
        halves.append([(spell(text[:at], goes_on), spell(text[at:], joined)) if at else ([], [index]) for at in begins])
    return halves


def token_splits_of(tokenizer: Tokenizer) -> TokenSplits:
    """Compute the splits of a tokenizer's tokens. If a half cannot be tokenized exactly, the split moves to the token's
    start.

    Right halves are tokenized as the start of a text if decoding allows it; with a WordPiece tokenizer, which puts
    white space between words, they are marked as continuing a word.

    Returns:
        The splits of every token.
    """
    values = json.loads(tokenizer.to_str())
    model, by_bytes = values["model"], '"ByteLevel"' in json.dumps(values["decoder"])
    mark = model.get("continuing_subword_prefix") or ""
    uncut = _uncut(tokenizer, model)
    ids = {token: index for token, index in tokenizer.get_vocab().items() if index not in uncut}
    tokens: list[str | None] = [None] * (max(tokenizer.get_vocab().values()) + 1)
    for token, index in ids.items():
        tokens[index] = token

    @cache
    def spell(text: str, goes_on: bool) -> list[int]:
        if model["type"] == "WordPiece":
            return _greedy(text, goes_on, ids, mark)
        return [ids[text]] if text in ids else [piece.id for piece in tokenizer.model.tokenize(text)]

    halves = halves_of(tokens, spell, mark, bool(mark) and not by_bytes, _inner_bytes() if by_bytes else "")
    _only_exact(halves, tokenizer, uncut)
    for index, characters in uncut.items():
        halves[index] = [([], [index])] * characters
    return TokenSplits.of(halves)


def _uncut(tokenizer: Tokenizer, model: dict[str, Any]) -> dict[int, int]:
    """Returns the number of characters of each token that is not split: special and added tokens, and single bytes."""
    found = {}
    for index, added in tokenizer.get_added_tokens_decoder().items():
        found[index] = int(added.content in (UNK, *OTHER_NAMES[UNK])) if added.special else len(added.content)
    if model.get("byte_fallback"):
        for token, index in tokenizer.get_vocab().items():
            byte = _BYTE.fullmatch(token)
            if byte:
                found[index] = int(int(byte[1], 16) & 0xC0 != 0x80)
    return found


def _only_exact(halves: list[list[Halves]], tokenizer: Tokenizer, uncut: Container[int]) -> None:
    """Replace splits whose halves do not decode to the token by a split at the token's start, in place."""
    whole = tokenizer.decode_batch([[index] for index in range(len(halves))], skip_special_tokens=False)
    inside = [(i, nth) for i, cuts in enumerate(halves) for nth, cut in enumerate(cuts) if cut != ([], [i])]
    spelled = [halves[index][nth] for index, nth in inside]
    texts = tokenizer.decode_batch([left + right for left, right in spelled], skip_special_tokens=False)
    for (index, nth), (left, right), text in zip(inside, spelled, texts, strict=True):
        if text != whole[index] or not (left and right) or any(i in uncut for i in left + right):
            halves[index][nth] = ([], [index])


def _greedy(text: str, goes_on: bool, ids: dict[str, int], mark: str) -> list[int]:
    """Returns the ids of the longest match first, as WordPiece does; [] if a part is not in the vocabulary."""
    found: list[int] = []
    start = 0
    while start < len(text):
        before = mark if goes_on or start else ""
        ends = range(len(text), start, -1)
        end = next((end for end in ends if before + text[start:end] in ids), None)
        if end is None:
            return []
        found.append(ids[before + text[start:end]])
        start = end
    return found


def _inner_bytes() -> frozenset[str]:
    """Returns the letters that byte-level tokenizers use for the bytes 0x80 to 0xBF, which continue a UTF-8 character.

    Printable Latin-1 letters represent their own bytes; the remaining bytes take the letters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    return frozenset(chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(0x80, 0xC0))
