"""Splits with pairs made from plain lists, for tests that need exact tokens rather than text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretextlm.data.store import Split

Pair = tuple[list[int], list[int]]


def split_with_pairs(
    sources: Sequence[Sequence[Pair]], plain: Sequence[list[int]] = (), plain_first: bool = True
) -> Split:
    """A split with one source of plain documents, row 0, and sources of pairs, rows 1, 2 …; every token is a word."""
    documents = [([document], 0) for document in plain]
    pairs = [(list(pair), row) for row, source in enumerate(sources, 1) for pair in source]
    every = documents + pairs if plain_first else pairs + documents
    flat = [token for parts, _ in every for part in parts for token in part]
    lengths = [sum(map(len, parts)) for parts, _ in every]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    starts = [
        offset + before
        for offset, (parts, _) in zip(offsets, every, strict=False)
        for before in (0, len(parts[0]))[: len(parts)]
    ]
    return Split(
        tokens=np.array(flat, np.uint16),
        documents=offsets.astype(np.uint64),
        document_bytes=np.array(lengths, np.uint32),
        document_sources=np.array([row for _, row in every], np.uint32),
        sentences=np.unique(np.array([start for start in starts if start < len(flat)], np.uint64)),
        word_bits=np.packbits(np.ones(len(flat), bool), bitorder="little"),
        parts=(1, *(2 for _ in sources)),
    )


def random_pairs(count: int, seed: int = 0, longest: tuple[int, int] = (12, 8), first: int = 30) -> list[Pair]:
    """Pairs of random lengths whose tokens are all from `first` on; the source's first token tells the pair."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        a, b = rng.integers(1, longest[0] + 1), rng.integers(1, longest[1] + 1)
        source = [first + number, *rng.integers(first, 390, a - 1).tolist()]
        made.append((source, rng.integers(first, 390, b).tolist()))
    return made
