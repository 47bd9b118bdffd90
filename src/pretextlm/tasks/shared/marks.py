"""Marks around stretches of a text, so that a model sees which words are meant (Baldini Soares et al. 2019).

    {"sentence1": "He sat by the bank.", "start1": 14, "end1": 18}      start = "start1", end = "end1"

    text      He sat by the [bank].

Columns say where a stretch begins and where it ends: `end` is the character behind it, `last` its last one, and `words`
the stretch itself, which then begins at a word, counted from 0, and has as many words. To the tokenizer marks are text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from pretextlm.config import Config

if TYPE_CHECKING:
    from pretextlm.data.records import Records


class Mark(Config):
    """Args:
    of: the text that the stretch is in.
    start: column of the place where it begins.
    end, last, words: column of where it ends; one of the three.
    before, behind: what is put around it.
    """

    of: Literal["text", "text_pair"] = Field(default="text", description="text that the stretch is in")
    start: str = Field(description="column of the place where it begins")
    end: str = Field(default="", description="column of the character behind it")
    last: str = Field(default="", description="column of its last character")
    words: str = Field(default="", description="column of its words; it then begins at a word, counted from 0")
    before: str = Field(default="[", description="what is put before it")
    behind: str = Field(default="]", description="what is put behind it")

    @model_validator(mode="after")
    def _ends_once(self) -> Self:
        if sum(map(bool, (self.end, self.last, self.words))) != 1:
            raise ValueError("a mark needs one of end, last and words")
        return self

    def columns(self, number: int) -> dict[str, str]:
        """What for → column, of the mark with this number."""
        return {f"mark {number} start": self.start, f"mark {number} end": self.end or self.last or self.words}

    def spans(self, records: Records, number: int, texts: Sequence[str]) -> list[tuple[int, int]]:
        """First character of each record's stretch, and the one behind it. Raises UserError by row for one outside."""
        start, end = self.columns(number)
        starts = records.numbers(start)
        if self.words:
            sizes = [len(words.split()) for words in records.texts(end)]
            found = [_of_words(text, begin, size) for text, begin, size in zip(texts, starts, sizes, strict=True)]
        else:
            ends = records.numbers(end) + bool(self.last)
            found = list(zip(starts, ends, strict=True))
        for index, (begin, stop) in enumerate(found):
            if not (0 <= begin < stop <= len(texts[index]) and begin == int(begin) and stop == int(stop)):
                what = f"the stretch {begin:g} to {stop:g} of {self.start!r} is not in the text."
                raise records.fault(index, what, "Places are counted from 0; `last` is the last one, `end` behind it.")
        return [(int(begin), int(stop)) for begin, stop in found]


def marked(texts: Sequence[str], records: Records, of: str, marks: Sequence[Mark]) -> Sequence[str]:
    """Texts with the marks that are theirs; stretches may lie in one another."""
    if not any(mark.of == of for mark in marks):
        return texts
    own = [(mark, mark.spans(records, number, texts)) for number, mark in enumerate(marks) if mark.of == of]
    return [_written(text, [(mark, spans[index]) for mark, spans in own]) for index, text in enumerate(texts)]


def _written(text: str, stretches: Sequence[tuple[Mark, tuple[int, int]]]) -> str:
    """A text with its marks. Where several stand at one place, what ends there comes first, the inner one before."""
    put = [(end, 0, -begin, mark.behind) for mark, (begin, end) in stretches]
    put += [(begin, 1, -end, mark.before) for mark, (begin, end) in stretches]
    written, done = [], 0
    for place, _, _, sign in sorted(put, key=lambda one: one[:3]):
        written += [text[done:place], sign]
        done = place
    return "".join([*written, text[done:]])


def _of_words(text: str, first: float, count: int) -> tuple[float, float]:
    """Characters of so many words from the first on; (-1, -1) where there are not as many."""
    words = [word.span() for word in re.finditer(r"\S+", text)]
    if first != int(first) or first < 0 or first + count > len(words):
        return -1, -1
    return words[int(first)][0], words[int(first) + count - 1][1]
