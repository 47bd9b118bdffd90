"""Samples of documents and rows that represent a whole split: every source in proportion, by a seed.

A source's documents are sampled without replacement, each with the same probability, so that the sum of a loss over the
sample, divided by the sum of its targets, estimates the loss on all text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import mix
from pretextlm.data.row_reader import DocumentRowReader, RowReader
from pretextlm.data.store import Split

I64 = NDArray[np.int64]

ROWS = 0x726F7773
"""Key that keeps the choice of rows apart from that of documents under the same seed."""


def sample_documents(split: Split, documents: int, tokens: int, seed: int) -> Split:
    """Samples complete documents of a split, in proportion over its sources.

    A limit on tokens is met on average: the number of documents is that of average ones that it has room for. Stopping
    at the limit instead would favour short documents.

    Args:
        split: of a store; documents without a token are left out.
        documents: number of documents at most; 0 for no limit.
        tokens: of all of them together, on average; 0 for no limit.
        seed: of the choice.

    Returns:
        A split of these documents, in their order: at least one of every source.
    """
    with_text = np.flatnonzero(np.diff(split.documents.view(np.int64)))
    count = len(with_text)
    if 0 < tokens < split.num_tokens:
        count = count * tokens // split.num_tokens
    if documents:
        count = min(count, documents)
    sources = split.document_sources[with_text]
    count = max(count, len(np.unique(sources)))
    chosen = np.zeros(split.num_documents, np.bool_)
    chosen[with_text[sampled(sources, count, seed)]] = True
    return split.select(chosen)


def sampled_rows(reader: RowReader, count: int, seed: int) -> I64:
    """Samples rows of one pass, in proportion over the sources in which they begin.

    Returns:
        (count,) row numbers in ascending order, or all of them if there are not more.
    """
    numbers = np.arange(reader.rows_per_pass)
    if count >= len(numbers):
        return numbers
    sources = reader.sources(numbers, seed) if isinstance(reader, DocumentRowReader) else np.zeros_like(numbers)
    return sampled(sources, count, seed ^ ROWS)


def sampled(sources: NDArray[np.integer], count: int, seed: int) -> I64:
    """Samples `count` of N things without replacement, in proportion over their sources (N,).

    Returns:
        (count,) indices in ascending order, or all.
    """
    if count >= len(sources):
        return np.arange(len(sources))
    _, source, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    keys = mix(mix(np.array([seed], np.int64).view(np.uint64)) ^ np.arange(len(sources), dtype=np.uint64))
    order: I64 = np.lexsort((keys, source))  # the things of each source in random order, source by source
    first = np.cumsum(sizes) - sizes
    # The place of each thing among those of its source: sizes 2 and 3 give 0 1 0 1 2.
    nth = np.arange(len(order)) - np.repeat(first, sizes)
    found: I64 = np.sort(order[nth < np.repeat(allotted(sizes, count), sizes)])
    return found


def allotted(sizes: NDArray[np.integer], count: int) -> I64:
    """Divides `count` among sources in proportion to their sizes: at least 1 for each, as far as it goes.

    Largest remainder: sizes 50, 30 and 1 share 8 as 4, 3 and 1 (exactly 4.94, 2.96 and 0.1).

    Args:
        sizes: (S,) at least 1, more than `count` together.
        count: at most their sum.
    """
    exact = sizes * (count / sizes.sum())
    shares: I64 = np.maximum(exact.astype(np.int64), 1)
    while (missing := count - int(shares.sum())) != 0:
        # The sources furthest below their exact share get one more; or those furthest above it one less, while they
        # keep one, or if there are more sources than `count`.
        order = np.argsort(np.sign(missing) * (shares - exact), kind="stable")
        if missing < 0 and shares.max() > 1:
            order = order[shares[order] > 1]
        shares[order[: abs(missing)]] += np.sign(missing)
    return shares
