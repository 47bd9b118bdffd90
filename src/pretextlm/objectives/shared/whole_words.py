"""Words in rows of tokens: where they are, and choosing them up to a number of tokens, without a loop over words.

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
        lengths: (B, T) tokens of the word that begins there; T + 1, more than any count, where none does.
    """

    begins: NDArray[np.bool_]
    lengths: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Rows, special: NDArray[np.bool_]) -> Words:
        """Returns the words of the rows. A special token, a new document and a new row end a word.

        Args:
            rows: with the positions where words start.
            special: (B, T) True at special tokens.
        """
        flat = special.reshape(-1)
        # A border is every word start, every special token and the token after one: [CLS] a ##b [SEP] has borders at
        # [CLS], a and [SEP], so the word "a ##b" has the length 3 - 1 = 2.
        borders = rows.word_starts | flat | (rows.position_ids == 0)
        borders[1:] |= flat[:-1]
        places = np.flatnonzero(borders)
        lengths = np.full(len(flat), rows.width + 1, dtype=np.int32)
        lengths[places] = np.diff(places, append=len(flat))
        np.copyto(lengths, rows.width + 1, where=flat)
        return cls(rows.matrix(borders & ~flat), rows.matrix(lengths))


def take_words(lengths: NDArray[np.int32], counts: I64) -> NDArray[np.bool_]:
    """Returns (B, W) which words a row takes from left to right when it skips those that exceed the rest of its count.

    A row takes at least one word: the first, if none fits. The result is that of the loop over words, found in a few
    rounds. Each round looks at the words that fit by themselves, takes the longest prefix of them whose sum fits, and
    reduces what remains. For the lengths 2, 5, 1, 3, 1 and a count of 5:

        round 1    fits by itself (≤ 5)    2 5 1 3 1     sums  2 7 8 11 12     taken: 2          remaining 3
        round 2    fits by itself (≤ 3)    - - 1 3 1     sums  0 0 1  4  5     taken: 1          remaining 2
        round 3    fits by itself (≤ 2)    - - - - 1     sums  0 0 0  0  1     taken: 1          remaining 1

    Args:
        lengths: (B, W) tokens of each word, ≥ 1; a number above every count where there is no word.
        counts: (B,) tokens to take.
    """
    taken = np.zeros(lengths.shape, dtype=bool)
    remaining = counts.copy()
    columns = int(counts.max(initial=0))  # no row takes more words in its first round: each has a token at least
    rows = np.arange(len(lengths))
    while len(rows):
        part, room = lengths[rows, :columns], remaining[rows, None]
        fits = (part <= room) & ~taken[rows, :columns]
        total = np.cumsum(np.where(fits, part, 0), axis=1)
        fits &= total <= room
        taken[rows, :columns] |= fits
        gained = np.where(fits, total, 0).max(axis=1, initial=0)
        remaining[rows] -= gained
        all_seen = columns >= lengths.shape[1]
        rows = rows[(remaining[rows] > 0) & ((gained > 0) | (not all_seen))]
        columns = lengths.shape[1]
    empty = (counts > 0) & ~taken.any(axis=1)
    taken[empty, 0] = True
    return taken


def expand(first: I64, lengths: NDArray[np.int32], rows: int, width: int) -> tuple[I64, I64]:
    """Returns the flat positions of all tokens of some words, and their number in each row (rows,).

    Words that begin at 4 and 9 with 2 and 3 tokens: before = [0, 2], first - before = [4, 7], repeated by the lengths
    [4, 4, 7, 7, 7], plus 0 … 4 gives [4, 5, 9, 10, 11].

    Args:
        first: flat positions of the words' first tokens, row by row, as the result is.
        lengths: tokens of each.
        rows: number of rows.
        width: of a row.
    """
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    places = np.arange(int(lengths.sum(dtype=np.int64))) + np.repeat(first - before, lengths)
    counts = np.bincount(first // width, weights=lengths, minlength=rows).astype(np.int64)
    return places, counts
