"""Fill the blanks of a text, marked by [MASK] and ____.

fill("runs/mine", "The [MASK] of the United ____.", top=5)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pretextlm.errors import UserError
from pretextlm.evaluation.trained_model import open_scorer
from pretextlm.files import AnyPath
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.window import fitting
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device

BLANK = re.compile(r"(?P<space> ?)(?:_{4,}|\[MASK\](?: ?\[MASK\])*)")
MAX_BLANKS = 64


@dataclass(frozen=True)
class FilledBlank:
    """One blank: its answers as (text, score), best first; the best is in the filled text."""

    answers: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Filled:
    """The text with every blank filled by its best answer, and the blanks with all of theirs.

    Attributes:
        notes: what is to be said about a text that is longer than the model was made for.
    """

    text: str
    blanks: tuple[FilledBlank, ...]
    notes: tuple[str, ...] = ()


def fill(run: AnyPath, text: str, *, top: int = 5, max_new_tokens: int = 4, device: Device = "cpu") -> Filled:
    """Fills the blanks of a text with the newest model of a run, in the way it was trained for.

    Args:
        run: the run, or its directory.
        text: with [MASK] or ____ for each blank; k adjacent [MASK] are exactly k tokens to a masked model. Of a text
            that is longer than the model can read, each blank sees the tokens nearest to it.
        top: answers per blank.
        max_new_tokens: of an answer.
        device: "cpu", "cuda" or "auto".

    Returns:
        The filled text, and for each blank its answers with their scores, best first.

    Raises:
        UserError: the run has no checkpoint, its model does not fill blanks, or the text has no blank or too many.
    """
    return fill_blanks(open_scorer(Run.open(run), as_device(device)), text, top, max_new_tokens)


def fill_blanks(scorer: Scorer, text: str, top: int = 5, max_new_tokens: int = 4) -> Filled:
    """Fills every blank, from left to right; each answer sees the ones before it.

    A run of k times [MASK] is k tokens to a model whose input shows hidden tokens one by one, such as a masked one.
    Four or more underscores are a blank of unknown length, and so is every blank to the other kinds. A space before a
    blank is part of it: its answer begins with a word.

    Args:
        scorer: the model.
        text: with at least one blank.
        top: answers per blank.
        max_new_tokens: of an answer.

    Returns:
        The filled text, and for each blank its answers with their scores.

    Raises:
        UserError: there is no blank, or there are too many.
    """
    pieces, blanks = _parse(text)
    texts = scorer.texts
    ids = [tuple(texts.encode(piece)) for piece in pieces]
    filled, left = pieces[0], ids[0]
    found, notes = [], []
    positions = scorer.model.config.positions
    size = sum(map(len, ids))
    if positions.length is not None and positions.limit is None and size > positions.length:
        notes.append(f"The text has {size:,} tokens; the model was made for {positions.length:,}.")
    for nth, match in enumerate(blanks):
        masks = match.group().count("[MASK]")
        later = tuple(ids[nth + 2 :])
        blank = Blank(left, ids[nth + 1], later, num_tokens=masks or None, starts_word=bool(match["space"]))
        seen = fitting(blank, positions.limit, masks or max_new_tokens)
        if seen != blank:
            kept = sum(map(len, seen.pieces))
            notes.append(f"Blank {nth + 1} sees the {kept:,} tokens around it: the model reads {positions.limit:,}.")
        candidates = scorer.best_candidates([seen], top, max_new_tokens)[0]
        before = texts.decode(left)
        answers = tuple((texts.decode([*left, *c.tokens])[len(before) :].strip(), c.score) for c in candidates)
        found.append(FilledBlank(answers))
        filled += match["space"] + answers[0][0] + pieces[nth + 1]
        left = (*left, *candidates[0].tokens, *ids[nth + 1])
    return Filled(filled, tuple(found), tuple(notes))


def _parse(text: str) -> tuple[list[str], list[re.Match[str]]]:
    """Returns the text between the blanks, first to last, and the blanks."""
    blanks = list(BLANK.finditer(text))
    if not blanks:
        raise UserError(
            "The text has no blank.", "Mark what is missing by [MASK] or ____, as in: 'The ____ of the people.'"
        )
    if len(blanks) > MAX_BLANKS:
        raise UserError(f"The text has {len(blanks)} blanks; the most is {MAX_BLANKS}.", "Give a shorter text.")
    cuts = [0, *(place for blank in blanks for place in blank.span()), len(text)]
    return [text[begin:end] for begin, end in zip(cuts[::2], cuts[1::2], strict=True)], blanks
