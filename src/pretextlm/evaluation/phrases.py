"""Ordinary words and short phrases of a corpus and their frequencies: the answers and distractors of blanks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.seeded_sample import sample_documents
from pretextlm.data.store import Split
from pretextlm.scoring.token_texts import TokenTexts

MAX_TOKENS = 3
"""Tokens of the longest phrase."""

SAMPLE_TOKENS = 1 << 20
"""About so many tokens of the training split are counted, of documents sampled over all its sources."""

LEAST_COUNT = {1: 5, 2: 2, 3: 2}
"""Occurrences that a phrase of so many words must have to be in a table."""

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class PhraseTable:
    """Phrases of one number of words and of tokens, most frequent first.

    Attributes:
        tokens: (P, L) their ids.
        counts: (P,) occurrences in the sample.
        texts: P texts without outer white space.
    """

    tokens: I64
    counts: I64
    texts: list[str]

    @cached_property
    def places(self) -> dict[tuple[int, ...], int]:
        """Row of each phrase."""
        return {tuple(row): place for place, row in enumerate(self.tokens.tolist())}


def count_phrases(split: Split, texts: TokenTexts, words: int) -> list[PhraseTable]:
    """Returns one table for each number of tokens 1 … MAX_TOKENS (index L - 1), of phrases of `words` words.

    A phrase consists of letters alone (of any script), its words separated by single spaces, within one sentence.
    """
    split = sample_documents(split, 0, SAMPLE_TOKENS, seed=0)
    size = split.num_tokens
    tokens = np.asarray(split.tokens).astype(np.int64)
    starts = np.flatnonzero(split.word_starts(np.arange(size)))
    if len(starts) <= words:
        return [_select(np.zeros((0, n), np.int64), np.zeros(0, np.int64), texts, words) for n in (1, 2, 3)]
    begin, end = starts[:-words], starts[words:]
    sentences = split.sentences.astype(np.int64)
    inside = np.searchsorted(sentences, begin, side="right") == np.searchsorted(sentences, end - 1, side="right")
    begin, lengths = begin[inside], (end - begin)[inside]
    tables = []
    for length in range(1, MAX_TOKENS + 1):
        rows = tokens[begin[lengths == length][:, None] + np.arange(length)]
        first, counts = _distinct(rows)
        known = counts >= LEAST_COUNT[words]
        tables.append(_select(rows[first[known]], counts[known], texts, words))
    return tables


def _distinct(rows: I64) -> tuple[I64, I64]:
    """Returns (index of one occurrence, number of occurrences) of each distinct row of ids."""
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    keys = rows[:, 0]
    for column in rows.T[1:]:  # pairs of small numbers stay small: exact for any vocabulary
        keys = np.unique(keys, return_inverse=True)[1] * (int(rows.max()) + 1) + column
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return first, counts


def _select(rows: I64, counts: I64, texts: TokenTexts, words: int) -> PhraseTable:
    """Returns those that are plain words, the most frequent first; of equally frequent ones, those of lower ids."""
    shown = [text.strip() for text in texts.tokenizer.decode_batch(rows.tolist())] if len(rows) else []
    plain = np.array([is_plain(text, words) for text in shown], bool)
    kept = np.flatnonzero(plain)
    order = kept[np.lexsort((*rows[kept].T[::-1], -counts[kept]))] if len(kept) else kept
    return PhraseTable(rows[order], counts[order], [shown[i] for i in order])


def is_plain(text: str, words: int) -> bool:
    """Returns whether a text is so many words of letters; in a script without spaces, one may hold several."""
    parts = text.split(" ")
    return all(part.isalpha() for part in parts) and len(parts) == words
