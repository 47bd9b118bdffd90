"""How a tokenizer spells a text that is cut between two characters, which may be inside a token.

    text      a ship sailed              cut after "a sh"
    tokens    a | ▁ship | ▁sail | ed
    cut       a | ▁sh ‖ ip | ▁sail | ed

A character is a Unicode code point. Only the token that is cut is spelled anew, each half as the tokenizer spells it;
a character is never cut, also where its bytes are spread over several tokens.
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
"""Ids that stand for the text before and after a cut."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Spelling:
    """The halves of every token at every character that begins in it.

    Attributes:
        characters: (V,) how many characters begin in each token.
        first: (V,) number of each token's first cut; cut k of a token is the one before the k-th character in it.
        parts: (2 C + 1,) where in `pool` the left and the right half of each of the C cuts begin, in turn.
        pool: ids of all halves, one after another.
    """

    characters: NDArray[np.int32]
    first: I64
    parts: I64
    pool: NDArray[np.int32]

    @classmethod
    def of(cls, halves: Sequence[Sequence[Halves]]) -> Spelling:
        """From the halves of each token, by id; a token without any stands for no text."""
        characters = np.array([len(cuts) for cuts in halves], np.int32)
        pieces = list(chain.from_iterable(chain.from_iterable(halves)))
        parts = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])
        pool = np.fromiter(chain.from_iterable(pieces), np.int32, int(parts[-1]))
        return cls(characters, np.cumsum(characters, dtype=np.int64) - characters, parts, pool)

    def cut(self, tokens: NDArray[np.int32], places: I64, nth: I64) -> Cut:
        """Cut each token at `places` (D,) before the nth (D,) character that begins in it.

        Args:
            tokens: (N,).
            places: ascending, all different.
        """
        cuts = 2 * (self.first.take(tokens[places]) + nth)
        begin, middle, end = self.parts[cuts], self.parts[cuts + 1], self.parts[cuts + 2]
        sizes = end - begin
        grown = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes - 1)])
        counts = np.ones(len(tokens), dtype=np.int64)
        counts[places] = sizes
        out = np.repeat(tokens, counts)
        moved = places + grown[:-1]
        before = np.cumsum(sizes) - sizes
        index = np.arange(int(sizes.sum()))
        out[index + np.repeat(moved - before, sizes)] = self.pool[index + np.repeat(begin - before, sizes)]
        return Cut(out, moved + middle - begin, places, grown)


@dataclass(frozen=True)
class Cut:
    """Tokens after some were cut.

    Attributes:
        tokens: (N',) with the halves in place of the token.
        between: (D,) place of the first token after each cut.
    """

    tokens: NDArray[np.int32]
    between: I64
    _places: I64
    _grown: I64

    def moved(self, places: I64) -> I64:
        """Where the tokens that stood at `places` (0 … N, any order) begin now."""
        out: I64 = places + self._grown[np.searchsorted(self._places, places)]
        return out


def halves_of(
    tokens: Sequence[str | None],
    spell: Callable[[str, bool], list[int]],
    mark: str = "",
    joined: bool = False,
    inner: Container[str] = "",
) -> list[list[Halves]]:
    """The halves of each token at each character that begins in it.

    Args:
        tokens: by id, as the vocabulary writes them; None for one that stands for no text.
        spell: (text, whether it goes on from what stands before it) → ids.
        mark: what a token that goes on begins with.
        joined: the right half goes on, too.
        inner: letters that begin no character: bytes inside one.
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


def spelling_of(tokenizer: Tokenizer) -> Spelling:
    """That of a tokenizer. Where it cannot spell a half exactly, the cut moves to the token's start.

    Right halves are spelled as a text that begins there, where decoding allows it; with a word-piece tokenizer that
    puts white space between words, they are marked as going on.
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
    return Spelling.of(halves)


def _uncut(tokenizer: Tokenizer, model: dict[str, Any]) -> dict[int, int]:
    """Characters of the tokens that are not written as their text: special and other added ones, and single bytes."""
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
    """Move each cut whose halves do not decode to the token to the token's start."""
    whole = tokenizer.decode_batch([[index] for index in range(len(halves))], skip_special_tokens=False)
    inside = [(i, nth) for i, cuts in enumerate(halves) for nth, cut in enumerate(cuts) if cut != ([], [i])]
    spelled = [halves[index][nth] for index, nth in inside]
    texts = tokenizer.decode_batch([left + right for left, right in spelled], skip_special_tokens=False)
    for (index, nth), (left, right), text in zip(inside, spelled, texts, strict=True):
        if text != whole[index] or not (left and right) or any(i in uncut for i in left + right):
            halves[index][nth] = ([], [index])


def _greedy(text: str, goes_on: bool, ids: dict[str, int], mark: str) -> list[int]:
    """The longest piece that is in the vocabulary, then the longest of the rest; nothing if one is missing."""
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
    """The letters by which byte-level tokenizers write the bytes 0x80 to 0xBF, which go on inside a character.

    Printable Latin-1 letters stand for their own bytes, the other bytes in order for the letters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    return frozenset(chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(0x80, 0xC0))
