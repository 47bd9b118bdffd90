"""Fill the blanks of a text that somebody wrote: [MASK] and ____ mark them.

fill(filler, "The [MASK] of the United ____.", top=5)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import Cloze, Filler

BLANK = re.compile(r"(?P<space> ?)(?:_{4,}|\[MASK\](?: ?\[MASK\])*)")
MAX_BLANKS = 64


@dataclass(frozen=True)
class FilledBlank:
    """One blank: its answers as (text, score), best first; the best stands in the filled text."""

    answers: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Filled:
    """The text with every blank filled, and what else could have stood there."""

    text: str
    blanks: tuple[FilledBlank, ...]


def fill(filler: Filler, text: str, top: int = 5, max_tokens: int = 4) -> Filled:
    """Fill every blank, from left to right; each answer sees the ones before it.

    A run of k times [MASK] is k tokens to a model that knows of hidden tokens one by one, as a masked one does. Four
    or more underscores are a blank of unknown length, and to the other kinds every blank is. A space before a blank is
    part of it: its answer begins with a word.

    Raises:
        UserError: there is no blank, or there are too many.
    """
    pieces, blanks = _parse(text)
    texts = filler.texts
    ids = [tuple(texts.encode(piece)) for piece in pieces]
    filled, left = pieces[0], ids[0]
    found = []
    for nth, blank in enumerate(blanks):
        masks = blank.group().count("[MASK]")
        later = tuple(ids[nth + 2 :])
        cloze = Cloze(left, ids[nth + 1], later, length=masks or None, new_word=bool(blank["space"]))
        answers = filler.answers([cloze], top, max_tokens)[0]
        before = texts.decode(left)
        shown = tuple(
            (texts.decode([*left, *answer.tokens])[len(before) :].strip(), answer.score) for answer in answers
        )
        found.append(FilledBlank(shown))
        filled += blank["space"] + shown[0][0] + pieces[nth + 1]
        left = (*left, *answers[0].tokens, *ids[nth + 1])
    return Filled(filled, tuple(found))


def _parse(text: str) -> tuple[list[str], list[re.Match[str]]]:
    blanks = list(BLANK.finditer(text))
    if not blanks:
        raise UserError(
            "The text has no blank.", "Mark what is missing by [MASK] or ____, as in: 'The ____ of the people.'"
        )
    if len(blanks) > MAX_BLANKS:
        raise UserError(f"The text has {len(blanks)} blanks; the most is {MAX_BLANKS}.", "Give a shorter text.")
    cuts = [0, *(place for blank in blanks for place in blank.span()), len(text)]
    return [text[begin:end] for begin, end in zip(cuts[::2], cuts[1::2], strict=True)], blanks
