"""Marks around spans of a text, so that a model sees which words a label refers to (Baldini Soares et al. 2019).

    {"sentence1": "He sat by the bank.", "start1": 14, "end1": 18}      start = "start1", end = "end1"

    text      He sat by the [bank].

Columns hold the positions: `start` of the first character; `end` of the character after the span, or `last` of its last
one, or `words` with the words of the span, whose `start` then counts words from 0. The tokenizer reads marks as text.
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
    """A span of a text that is put between marks.

    Args:
        of: the text that holds it.
        start: column of its first position.
        end, last, words: column of its end; one of the three.
        before, behind: the two marks.
    """

    of: Literal["text", "text_pair"] = Field(default="text", description="text that holds the span")
    start: str = Field(description="column of its first position")
    end: str = Field(default="", description="column of the character after it")
    last: str = Field(default="", description="column of its last character")
    words: str = Field(default="", description="column of its words; it then begins at a word, counted from 0")
    before: str = Field(default="[", description="mark before it")
    behind: str = Field(default="]", description="mark after it")

    @model_validator(mode="after")
    def _ends_once(self) -> Self:
        if sum(map(bool, (self.end, self.last, self.words))) != 1:
            raise ValueError("a mark needs one of end, last and words")
        return self

    def columns(self, number: int) -> dict[str, str]:
        """Returns the columns of the mark with this number: role → name."""
        return {f"mark {number} start": self.start, f"mark {number} end": self.end or self.last or self.words}

    def spans(self, records: Records, number: int, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Returns, for each record, the first character of its span and the one after its last.

        Raises:
            UserError: a span is not inside its text; names its row.
        """
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
                message = f"the span {begin:g} to {stop:g} of {self.start!r} is not in the text."
                hint = "Count positions from 0; `last` is the last one, `end` the one after it."
                raise records.fault(index, message, hint)
        return [(int(begin), int(stop)) for begin, stop in found]


def marked(texts: Sequence[str], records: Records, of: str, marks: Sequence[Mark]) -> Sequence[str]:
    """Returns the texts with their marks; spans may be nested."""
    if not any(mark.of == of for mark in marks):
        return texts
    own = [(mark, mark.spans(records, number, texts)) for number, mark in enumerate(marks) if mark.of == of]
    return [_written(text, [(mark, spans[index]) for mark, spans in own]) for index, text in enumerate(texts)]


def _written(text: str, spans: Sequence[tuple[Mark, tuple[int, int]]]) -> str:
    """Returns a text with its marks.

    At one position, closing marks (0) come before opening ones (1); of closing marks the inner span's first (it begins
    later), of opening marks the outer span's first (it ends later).
    """
    put = [(end, 0, -begin, mark.behind) for mark, (begin, end) in spans]
    put += [(begin, 1, -end, mark.before) for mark, (begin, end) in spans]
    written, done = [], 0
    for place, _, _, sign in sorted(put, key=lambda one: one[:3]):
        written += [text[done:place], sign]
        done = place
    return "".join([*written, text[done:]])


def _of_words(text: str, first: float, count: int) -> tuple[float, float]:
    """Returns the character span of `count` words from word `first` on; (-1, -1) if there are fewer."""
    words = [word.span() for word in re.finditer(r"\S+", text)]
    if first != int(first) or first < 0 or first + count > len(words):
        return -1, -1
    return words[int(first)][0], words[int(first) + count - 1][1]
