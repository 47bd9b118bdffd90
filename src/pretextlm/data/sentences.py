"""Sentence boundaries in English, Korean and other languages that share their punctuation.

A sentence ends after . ! ? … or their full-width forms, with any closing quotes and brackets, before white space
(full-width marks need none), and at a blank line. No sentence ends after a known abbreviation, an initial, a list
number, or before a lower-case letter.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_CLOSING = "\"'”’»)\\]}」』】》〉"
_ENDING = re.compile(
    rf"[.…]+[{_CLOSING}]*(?=\s)|[!?]+[.!?…]*[{_CLOSING}]*(?=\s)|[。！？]+[{_CLOSING}]*|(?P<blank>\n[ \t]*\n)"
)
_NEXT = re.compile(r"\S")
_ABBREVIATION_LIST = """
mr mrs ms dr prof rev hon gen col capt lt sgt gov sen rep pres st jr sr messrs mt ft vs etc cf viz al ed eds vol
no nos pp fig figs eq sec ch inc ltd co corp dept univ assn bros e.g i.e u.s u.k u.n u.s.a d.c a.m p.m b.c a.d
jan feb mar apr jun jul aug sep sept oct nov dec
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
_LAST_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*$|\d+$")
_LONGEST_WORD = 24


def sentence_starts(text: str) -> NDArray[np.int64]:
    """Returns (S,) ascending character offsets at which sentences begin, each at a character that is not white
    space.
    """
    first = _NEXT.search(text)
    if first is None:
        return np.zeros(0, np.int64)
    starts = [first.start()]
    for ending in _ENDING.finditer(text, first.start()):
        following = _NEXT.search(text, ending.end())
        if following is None:
            break
        start = following.start()
        if start > starts[-1] and (ending["blank"] or not _goes_on(text, ending.start(), start)):
            starts.append(start)
    return np.array(starts, np.int64)


def _goes_on(text: str, dot: int, following: int) -> bool:
    """Returns whether the sentence continues after the mark at `dot`; `following` is the next visible character."""
    if text[following].islower() and "\n\n" not in text[dot:following]:
        return True
    if text[dot] != ".":
        return False
    before = text[max(0, dot - _LONGEST_WORD) : dot]
    word = _LAST_WORD.search(before)
    if word is None:
        return False
    if word[0].isdigit():  # "1. Introduction" at the start of a line is a number, "in 1948. Then" an end
        return before[: word.start()].rstrip(" ").endswith("\n") or dot == len(word[0])
    if len(word[0]) == 1 and word[0].isupper() and word[0] != "I":
        return True
    return word[0].lower() in _ABBREVIATIONS
