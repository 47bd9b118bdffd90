"""Rows and a vocabulary made by hand, for tests that need exact tokens rather than a store."""

from __future__ import annotations

import numpy as np

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.special_tokens import NAMED, sentinel
from pretextlm.data.vocabulary import Vocabulary

FIRST_TEXT = 20
"""Ordinary ids of `vocabulary()` begin here, but for one special id in their midst."""
ODD_SPECIAL = 25


def vocabulary(size: int = 400, sentinels: int = 12) -> Vocabulary:
    """Special ids out of order, sentinels counting down, and one special id of the tokenizer's own among the words."""
    named = dict(zip(NAMED, (3, 1, 5, 0, 2, 6, 4), strict=True))
    return Vocabulary.resolve(
        named | {sentinel(i): FIRST_TEXT - 1 - i for i in range(sentinels)}, size, frozenset({ODD_SPECIAL})
    )


def text(rows: int, width: int, vocab: Vocabulary, seed: int = 0) -> np.ndarray:
    """(rows, width) random ordinary tokens."""
    return np.random.default_rng(seed).choice(vocab.ordinary, (rows, width)).astype(np.int32)


def rows_of(
    tokens: np.ndarray, starts: np.ndarray | None = None, segments: np.ndarray | None = None, first_id: int = 0
) -> Rows:
    """Rows from (B, T) matrices; by default each row is one document and every token a word."""
    tokens = np.asarray(tokens, dtype=np.int32)
    count, width = tokens.shape
    segments = np.zeros_like(tokens) if segments is None else np.asarray(segments, dtype=np.int32)
    starts = np.ones(tokens.shape, bool) if starts is None else np.asarray(starts, dtype=bool)
    column = np.tile(np.arange(width, dtype=np.int32), (count, 1))
    opens = np.diff(segments, axis=1, prepend=-2) != 0
    positions = column - np.maximum.accumulate(np.where(opens, column, 0), axis=1)
    positions[segments < 0] = 0
    return Rows(
        tokens.reshape(-1),
        np.arange(count + 1) * width,
        segments.reshape(-1),
        positions.astype(np.int32).reshape(-1),
        starts.reshape(-1),
        np.arange(first_id, first_id + count),
    )


def framed(rows: int, width: int, vocab: Vocabulary, seed: int = 0) -> Rows:
    """Rows as the masked objective reads them: [CLS], text, a [SEP] somewhere inside, words of one to four tokens."""
    rng = np.random.default_rng(seed)
    tokens = text(rows, width, vocab, seed)
    tokens[:, 0] = vocab.cls
    middle = rng.integers(2, width - 2, rows)
    tokens[np.arange(rows), middle] = vocab.sep
    segments = (np.arange(width) > middle[:, None]).astype(np.int32)
    starts = rng.random((rows, width)) < 0.6
    starts |= vocab.is_special[tokens]
    return rows_of(tokens, starts, segments)


def take(rows: Rows, which: np.ndarray) -> Rows:
    """Some of the rows, in the order asked for."""
    parts = [rows.matrix(a)[which].reshape(-1) for a in (rows.tokens, rows.segment_ids, rows.position_ids)]
    starts = rows.matrix(rows.word_starts)[which].reshape(-1)
    return Rows(parts[0], np.arange(len(which) + 1) * rows.width, parts[1], parts[2], starts, rows.example_ids[which])


def keyed(rows: Rows, seed: int = 1, epoch: int = 0) -> CounterRNG:
    return CounterRNG.of(seed, epoch, rows.example_ids)


def selected(batch: Batch) -> np.ndarray:
    return batch.labels != IGNORE
