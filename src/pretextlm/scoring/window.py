"""The text around a blank, cut to what a model can read."""

from __future__ import annotations

from dataclasses import replace

from pretextlm.errors import UserError
from pretextlm.scoring.blank import Blank

FRAME_TOKENS = 8
"""Special tokens that a layout adds to a text with one blank, at most; each further blank takes one more."""


def fitting(blank: Blank, limit: int | None, candidate: int) -> Blank:
    """Returns the blank with the tokens nearest to it, if the text is longer than the model can read.

    Both sides keep half of the room, or what the other side leaves. A room for 10 tokens and 7 before the blank, 20
    after it: 5 and 5; 3 before it, 20 after it: 3 and 7.

    Args:
        blank: with all of its text.
        limit: tokens that the model can read; None for any number.
        candidate: tokens of the longest candidate.

    Raises:
        UserError: the candidate alone fills the model's positions.
    """
    if limit is None:
        return blank
    after = sum(len(piece) for piece in (blank.right, *blank.later))
    room = limit - FRAME_TOKENS - candidate - len(blank.later)
    if len(blank.left) + after <= room:
        return blank
    if room < 2:
        raise UserError(
            f"The model reads {limit:,} tokens: there is no room for a text beside {candidate} hidden ones.",
            "Give fewer blanks, or let an answer have fewer tokens: --max-new-tokens",
        )
    behind = min(after, max(room // 2, room - len(blank.left)))
    before = min(len(blank.left), room - behind)
    pieces: list[tuple[int, ...]] = []
    rest = behind
    for piece in (blank.right, *blank.later):
        if pieces and not rest:
            break
        pieces.append(piece[:rest])
        rest -= len(pieces[-1])
    return replace(
        blank,
        left=blank.left[len(blank.left) - before :],
        right=pieces[0],
        later=tuple(pieces[1:]),
        starts_document=blank.starts_document and before == len(blank.left),
        ends_document=blank.ends_document and behind == after,
    )
