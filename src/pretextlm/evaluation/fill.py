"""Fill the blanks of a text, marked by [MASK] and ____.

fill("runs/mine", "The [MASK] of the United ____.", top=5)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from pretextlm.data.tokenizer import parsing_one
from pretextlm.errors import UserError
from pretextlm.evaluation.trained_model import open_scorer
from pretextlm.files import AnyPath
from pretextlm.memory import memory_errors
from pretextlm.objectives.masked import MaskedLayout
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.token_texts import TokenTexts
from pretextlm.scoring.window import fitting
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device

MASK = "[MASK]"
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


@memory_errors("while filling a text", "Give a shorter one.")
def fill(
    run: AnyPath,
    text: str,
    *,
    top: int = 5,
    max_new_tokens: int = 4,
    parse_special_tokens: bool = False,
    device: Device = "cpu",
) -> Filled:
    """Fills the blanks of a text with the newest model of a run, in the way it was trained for.

    Args:
        run: the run, or its directory.
        text: with [MASK] (or the model's own name for it) or ____ for each blank; k adjacent [MASK] are exactly k
            tokens to a masked model. Of a text that is longer than the model can read, each blank sees the tokens
            nearest to it.
        top: answers per blank.
        max_new_tokens: of an answer.
        parse_special_tokens: the name of a special token in a text ("[SEP]", "<|im_start|>") is that token, as in
            transformers; otherwise it is text.
        device: "cpu", "cuda" or "auto".

    Returns:
        The filled text, and for each blank its answers with their scores, best first.

    Raises:
        UserError: the run has no checkpoint, its model does not fill blanks, or the text has no blank or too many.
    """
    scorer = open_scorer(Run.open(run), as_device(device), parse_special_tokens)
    return fill_blanks(scorer, text, top, max_new_tokens)


def fill_blanks(scorer: Scorer, text: str, top: int = 5, max_new_tokens: int = 4) -> Filled:
    """Fills every blank, from left to right; each answer sees the ones before it.

    A run of k times [MASK] is k tokens to a model whose input shows hidden tokens one by one, such as a masked one.
    Four or more underscores are a blank of unknown length, and so is every blank to the other kinds. A space before a
    blank is part of it: its answer begins with a word.

    A published masked model reads [MASK] as in transformers, with the space before it, and any token may fill it; for a
    single one, the answers are those of the pipeline "fill-mask".

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
    texts = scorer.texts
    mask = str(texts.tokenizer.id_to_token(texts.vocabulary.mask))
    pieces, blanks = _parse(text, mask)
    as_published = texts.vocabulary.template is not None and isinstance(scorer.layout, MaskedLayout)
    ids = (as_published and _read_with_masks(texts, pieces, blanks)) or [tuple(texts.encode(one)) for one in pieces]
    if as_published and all(blank["masks"] for blank in blanks):
        scorer.allow_all_tokens()
    filled, left = pieces[0], ids[0]
    found, notes = [], []
    positions = scorer.model.config.positions
    size = sum(map(len, ids))
    if positions.length is not None and positions.limit is None and size > positions.length:
        notes.append(f"The text has {size:,} tokens; the model was made for {positions.length:,}.")
    for nth, match in enumerate(blanks):
        masks = match.group().count(MASK) or match.group().count(mask)
        later = tuple(ids[nth + 2 :])
        starts_word = bool(match["space"]) and not (as_published and masks)
        blank = Blank(left, ids[nth + 1], later, num_tokens=masks or None, starts_word=starts_word)
        seen = fitting(blank, positions.limit, masks or max_new_tokens)
        if seen != blank:
            kept = sum(map(len, seen.pieces))
            notes.append(f"Blank {nth + 1} sees the {kept:,} tokens around it: the model reads {positions.limit:,}.")
        candidates = scorer.best_candidates([seen], top, max_new_tokens)[0]
        answers = tuple((_new_text(texts, left, c.tokens), c.score) for c in candidates)
        found.append(FilledBlank(answers))
        filled += match["space"] + answers[0][0] + pieces[nth + 1]
        left = (*left, *candidates[0].tokens, *ids[nth + 1])
    return Filled(filled, tuple(found), tuple(notes))


def _new_text(texts: TokenTexts, left: tuple[int, ...], tokens: tuple[int, ...]) -> str:
    """Returns the text of an answer, or the names of tokens that have none, such as [SEP]."""
    found = texts.decode([*left, *tokens])[len(texts.decode(left)) :].strip()
    return found or "".join(str(texts.tokenizer.id_to_token(token)) for token in tokens)


def _read_with_masks(texts: TokenTexts, pieces: list[str], blanks: list[re.Match[str]]) -> list[tuple[int, ...]] | None:
    """Returns the ids between the blanks of a text that is encoded with its masks; None if they are not found in it.

    A mask may take the space before it along, and a piece of text that follows it does not begin the text.
    """
    mask = texts.vocabulary.mask
    name = str(texts.tokenizer.id_to_token(mask))
    written = [pieces[0]]
    for blank, piece in zip(blanks, pieces[1:], strict=True):
        written += [blank["space"] if blank["masks"] else "", name, piece]
    parser = texts.parser or parsing_one(texts.tokenizer, mask)
    ids = parser.encode("".join(written), add_special_tokens=False).ids
    cuts = [-1, *(place for place, token in enumerate(ids) if token == mask), len(ids)]
    if len(cuts) != len(blanks) + 2:
        return None
    return [tuple(ids[begin + 1 : end]) for begin, end in pairwise(cuts)]


def _parse(text: str, mask: str) -> tuple[list[str], list[re.Match[str]]]:
    """Returns the text between the blanks, first to last, and the blanks; the model's mask is one, too."""
    masks = "|".join(rf"{name}(?: ?{name})*" for name in map(re.escape, dict.fromkeys((MASK, mask))))
    blanks = list(re.finditer(rf"(?P<space> ?)(?:_{{4,}}|(?P<masks>{masks}))", text))
    if not blanks:
        raise UserError(
            "The text has no blank.", "Mark what is missing by [MASK] or ____, as in: 'The ____ of the people.'"
        )
    if len(blanks) > MAX_BLANKS:
        raise UserError(f"The text has {len(blanks)} blanks; the most is {MAX_BLANKS}.", "Give a shorter text.")
    cuts = [0, *(place for blank in blanks for place in blank.span()), len(text)]
    return [text[begin:end] for begin, end in zip(cuts[::2], cuts[1::2], strict=True)], blanks
