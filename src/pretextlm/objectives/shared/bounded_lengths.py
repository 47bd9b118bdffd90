"""Random integers within bounds: uniform ones, and sequences with a given sum."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import CounterRNG

I64 = NDArray[np.int64]


def between(words: NDArray[np.uint64], low: int | NDArray[np.integer], high: int | NDArray[np.integer]) -> I64:
    """Returns integers uniform in low … high, from 64-bit words; `low` and `high` broadcast.

    The upper 32 bits u of a word are a fraction u / 2³²; u · count / 2³², rounded down, is uniform over 0 … count - 1.
    """
    count = np.asarray(high - low + 1).astype(np.uint64)
    drawn: I64 = ((words >> np.uint64(32)) * count >> np.uint64(32)).astype(np.int64)
    return drawn + low


def lengths_in_range(rng: CounterRNG, stream: int, total: int, parts: int, shortest: int, longest: int) -> I64:
    """Returns (B, parts) lengths within the range that sum to `total`, uniform over all such sequences.

    Subtracting `shortest` from each leaves numbers in 0 … most with a known sum. The sum is divided between the first
    and the second half of the parts, with a probability in proportion to the number of sequences that each division
    allows, then each half is divided again, down to single parts. All halves of one size are divided at once, so that
    a text of hundreds of spans takes eight rounds.

        4 parts    7
        2 parts    3        4
        1 part     1   2    4   0
    """
    if parts < 2:
        return np.full((len(rng.keys), parts), total, dtype=np.int64)
    most = longest - shortest
    draws = rng.bits(stream, parts - 1)
    groups = {parts: np.full((len(draws), 1), total - parts * shortest)}  # (B, C) sums of so many parts each
    done = 0
    while max(groups) > 1:
        halves: dict[int, list[I64]] = {}
        for size, sums in groups.items():
            if size == 1:
                halves.setdefault(1, []).append(sums)
                continue
            words = draws[:, done : done + sums.shape[1]]
            done += sums.shape[1]
            first = _first_half(words, sums, size, most)
            halves.setdefault(size // 2, []).append(first)
            halves.setdefault(size - size // 2, []).append(sums - first)
        groups = {size: np.concatenate(found, axis=1) for size, found in halves.items()}
    return groups[1] + shortest


def _first_half(words: NDArray[np.uint64], sums: I64, size: int, most: int) -> I64:
    """Returns the sum of the first half of `size` numbers in 0 … most with a known sum; arrays are (B, C).

    P(first half sums to a) ∝ ways(half, a) · ways(rest, sum - a): the product of the row of `_ways` and a window of it
    read backwards. A uniform number picks a by the cumulative weights.
    """
    if size == 2:
        return between(words, np.maximum(sums - most, 0), np.minimum(sums, most))
    half = size // 2
    weights = _ways(half, most) * _windows(size - half, most, half * most + 1)[sums]
    np.cumsum(weights, axis=2, out=weights)
    chance = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * weights[:, :, -1]
    first: I64 = np.count_nonzero(weights <= chance[:, :, None], axis=2)
    return first


@lru_cache(maxsize=256)
def _ways(parts: int, most: int) -> NDArray[np.float64]:
    """Returns, for each sum, the share of the sequences of `parts` numbers in 0 … most that have it.

    The distribution of a sum is the convolution of those of its halves: for two numbers in 0 … 1, [¼, ½, ¼].
    """
    if parts == 1:
        return np.full(most + 1, 1 / (most + 1))
    return np.convolve(_ways(parts // 2, most), _ways(parts - parts // 2, most))


@lru_cache(maxsize=256)
def _windows(parts: int, most: int, count: int) -> NDArray[np.float64]:
    """Returns a view whose row s holds the ways of `parts` numbers to sum to s, s - 1, … s - count + 1."""
    ways = np.pad(_ways(parts, most), count - 1)
    return np.lib.stride_tricks.sliding_window_view(ways, count)[:, ::-1]
