"""Where words begin, from characters alone, so that it is the same for every tokenizer.

A word begins after white space and wherever letters and digits meet other signs; every ideograph is a word of its own,
as in BERT. A Korean eojeol, like an English word, is what stands between white space. A run of white space that has
a token of its own is a word too.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

SPACE, SIGN, LETTER, IDEOGRAPH = 0, 1, 2, 3
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_LAST_LISTED = 0x20000  # above it stand ideographs, tags and private signs only


@cache
def character_classes() -> NDArray[np.uint8]:
    """(0x110000,) SPACE, SIGN, LETTER (also digits and combining marks) or IDEOGRAPH of every code point."""
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


def code_points(text: str) -> NDArray[np.uint32]:
    """(C,) code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def first_visible(classes: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) index of the first character of each token that is no white space, else of its first character.

    Args:
        classes: (C,) class of each character.
        begin, end: (N,) characters [begin, end) of each token.
    """
    places = np.where(classes == SPACE, len(classes), np.arange(len(classes)))
    following = np.append(np.minimum.accumulate(places[::-1])[::-1], len(classes))
    visible: NDArray[np.int64] = following[begin]
    return np.where(visible < end, visible, begin)


def word_boundaries(classes: NDArray[np.uint8], documents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(C,) whether a word begins at each character; `documents` are the offsets of the documents' first characters."""
    boundary: NDArray[np.bool_] = classes == IDEOGRAPH
    boundary[1:] |= classes[1:] != classes[:-1]
    boundary[documents[documents < len(classes)]] = True
    return boundary
