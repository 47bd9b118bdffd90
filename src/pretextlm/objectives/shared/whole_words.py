"""Whole words in rows of tokens: where they are, and choosing them under a budget of tokens, without a loop over them.

tokens    [CLS] 나는 오늘 라면 ##을 먹 ##었다 . [SEP]
begins      -    ✓    ✓   ✓    -   ✓    -   ✓   -
lengths          1    1   2        2        1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Words:
    """Words of a batch of rows; special tokens belong to none.

    Attributes:
        begins: (B, T) True at a word's first token; a word cut by the row's start begins there.
        lengths: (B, T) tokens of the word that begins there; T + 1, more than any budget, where none does.
    """

    begins: NDArray[np.bool_]
    lengths: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Rows, special: NDArray[np.bool_]) -> Words:
        """From the rows' word starts. A special token, a new document and a new row end a word."""
        flat = special.reshape(-1)
        borders = rows.word_starts | flat | (rows.position_ids == 0)
        borders[1:] |= flat[:-1]
        places = np.flatnonzero(borders)
        lengths = np.full(len(flat), rows.width + 1, dtype=np.int32)
        lengths[places] = np.diff(places, append=len(flat))
        np.copyto(lengths, rows.width + 1, where=flat)
        return cls(rows.matrix(borders & ~flat), rows.matrix(lengths))


def greedy(lengths: NDArray[np.int32], budget: I64) -> NDArray[np.bool_]:
    """(B, W) which words are taken when each row takes its words from left to right unless one is over what is left.

    A row takes at least one word: the first, if none fits. Equal to the loop over words, but done in a few rounds:
    each takes the longest run of words that fit, then drops those that no longer do.

    Args:
        lengths: (B, W) tokens of each word, ≥ 1; a number above every budget where there is no word.
        budget: (B,) tokens to take.
    """
    taken = np.zeros(lengths.shape, dtype=bool)
    left = budget.copy()
    columns = int(budget.max(initial=0))  # no row takes more words in its first round: each has a token at least
    rows = np.arange(len(lengths))
    while len(rows):
        part, room = lengths[rows, :columns], left[rows, None]
        fits = (part <= room) & ~taken[rows, :columns]
        total = np.cumsum(np.where(fits, part, 0), axis=1)
        fits &= total <= room
        taken[rows, :columns] |= fits
        gained = np.where(fits, total, 0).max(axis=1, initial=0)
        left[rows] -= gained
        all_seen = columns >= lengths.shape[1]
        rows = rows[(left[rows] > 0) & ((gained > 0) | (not all_seen))]
        columns = lengths.shape[1]
    nothing = (budget > 0) & ~taken.any(axis=1)
    taken[nothing, 0] = True
    return taken


def expand(first: I64, lengths: NDArray[np.int32], rows: int, width: int) -> tuple[I64, I64]:
    """Flat places of all tokens of the words that begin at flat places `first`, and how many each row has (rows,).

    `first` goes row by row; so does the result.
    """
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    places = np.arange(int(lengths.sum(dtype=np.int64))) + np.repeat(first - before, lengths)
    counts = np.bincount(first // width, weights=lengths, minlength=rows).astype(np.int64)
    return places, counts
