"""Word boundaries computed from characters alone, and therefore the same for every tokenizer.

A word begins after white space and wherever letters or digits meet other characters. Every ideograph is a word of its
own, as in BERT. A Korean eojeol, like an English word, is the text between two spaces. White space other than the one
space before a word forms a word of its own.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

SPACE, SIGN, LETTER, IDEOGRAPH = 0, 1, 2, 3
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_JAMO = ((0x1160, 0x11FF), (0xD7B0, 0xD7FB))
"""Conjoining Hangul vowels and finals."""
_JOINERS, _ZERO_WIDTH = [0x200C, 0x200D], [0x200B, 0x2060, 0xFEFF]
_TAGS = range(0xE0100, 0xE01F0)
"""Variation selectors above `_LAST_LISTED`."""
_LAST_LISTED = 0x20000  # above it stand ideographs, tags and private signs only


@cache
def character_classes() -> NDArray[np.uint8]:
    """Returns (0x110000,) the class of every code point: SPACE, SIGN, LETTER (letters, digits, marks) or IDEOGRAPH."""
    table = np.full(0x110000, SIGN, np.uint8)
    for code in range(_LAST_LISTED):
        character = chr(code)
        if character.isspace():
            table[code] = SPACE
        elif unicodedata.category(character)[0] in "LNM":
            table[code] = LETTER
    for first, last in _IDEOGRAPHS:
        table[first : last + 1] = IDEOGRAPH
    return table


@cache
def continues_character() -> NDArray[np.bool_]:
    """Returns (0x110000,) whether a code point is part of the character before it: marks, Hangul vowels and finals."""
    table = np.zeros(0x110000, bool)
    for code in [*range(_LAST_LISTED), *_TAGS]:
        table[code] = unicodedata.category(chr(code))[0] == "M"
    for first, last in _JAMO:
        table[first : last + 1] = True
    table[_JOINERS] = True
    return table


@cache
def is_white() -> NDArray[np.bool_]:
    """Returns (0x110000,) whether a code point is white space, also of no width."""
    table: NDArray[np.bool_] = character_classes() == SPACE
    table[_ZERO_WIDTH] = True
    return table


def without_white_space(text: str, begin: int, end: int) -> tuple[int, int]:
    """Returns a range of characters without the white space at its ends; an empty one stays empty."""
    seen = np.flatnonzero(~is_white()[code_points(text[begin:end])])
    return (begin + int(seen[0]), begin + int(seen[-1]) + 1) if len(seen) else (begin, begin)


def code_points(text: str) -> NDArray[np.uint32]:
    """Returns (C,) the code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def first_visible(codes: NDArray[np.uint32], begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the first visible character of each token.

    Args:
        codes: (C,) code points.
        begin, end: (N,) character range [begin, end) of each token.

    Returns:
        (N,) offset of the first character that is not white space; `begin` for a token of white space only.
    """
    places = np.where(character_classes()[codes] == SPACE, len(codes), np.arange(len(codes)))
    following = np.append(np.minimum.accumulate(places[::-1])[::-1], len(codes))
    visible: NDArray[np.int64] = following[begin]
    return np.where(visible < end, visible, begin)


def word_numbers(
    codes: NDArray[np.uint32], documents: NDArray[np.int64], sentences: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number the words of a text.

    Args:
        codes: (C,) code points.
        documents, sentences: character offsets of documents and sentences; a word begins at each.

    Returns:
        (C,) ascending number of each character's word. One space before a word belongs to that word.
    """
    classes = character_classes()[codes]
    first = np.zeros(len(codes) + 1, bool)
    first[documents] = True
    begins: NDArray[np.bool_] = classes == IDEOGRAPH
    begins[1:] |= classes[1:] != classes[:-1]
    begins |= first[:-1]
    begins[sentences] = True
    after_space = begins[1:] & (codes[:-1] == ord(" ")) & (classes[1:] != SPACE) & ~first[1:-1]
    begins[1:][after_space] = False
    begins[:-1][after_space] = True
    return np.cumsum(begins)
