"""Stateless randomness: every draw is a function of (seed, epoch, example id, stream, counter).

Nothing is stored and nothing advances, so batch size, worker, rank, order and resume cannot change a draw.
The mixing function is splitmix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195), whose
output passes BigCrush; arithmetic is modulo 2**64, so numpy and torch (int64, wrapping) agree bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK_64 = (1 << 64) - 1
_BLOCK = 8192
"""Words mixed at a time: 64 KiB stay in the cache, which makes a large draw three times faster."""
_SHORT = 4096
"""Columns up to which an order is drawn with 32 bits for each."""


def mix(state: U64) -> U64:
    """splitmix64's output function: a bijection of 64-bit words in which every input bit reaches all others.

    Leaves `state` as it is; shape is kept.
    """
    out = state + GOLDEN
    _scramble(out, np.empty_like(out))
    return out


def _scramble(out: U64, scratch: U64) -> None:
    """The rounds of splitmix64, in place; `scratch` is room of the same shape."""
    np.right_shift(out, np.uint64(30), out=scratch)
    out ^= scratch
    out *= MIX_1
    np.right_shift(out, np.uint64(27), out=scratch)
    out ^= scratch
    out *= MIX_2
    np.right_shift(out, np.uint64(31), out=scratch)
    out ^= scratch


def _words(values: int | NDArray[np.integer]) -> U64:
    if isinstance(values, int):
        return np.asarray([values & _MASK_64], dtype=np.uint64)
    return np.atleast_1d(np.asarray(values)).astype(np.uint64)


@dataclass(frozen=True)
class CounterRNG:
    """Random numbers for a batch of examples.

    Args:
        keys: (B,) one 64-bit key per example; build it with :meth:`of`.
    """

    keys: U64

    @classmethod
    def of(cls, seed: int, epoch: int | NDArray[np.integer], example_ids: int | NDArray[np.integer]) -> CounterRNG:
        """Keys for examples; `epoch` and `example_ids` broadcast against each other."""
        key = mix(_words(seed))
        key = mix(key ^ _words(epoch))
        return cls(mix(key ^ _words(example_ids)))

    def fork(self, stream: int) -> CounterRNG:
        """An independent generator for the same examples, for a part of an objective."""
        return CounterRNG(mix(self.keys ^ mix(_words(stream))))

    def bits(self, stream: int, n: int) -> U64:
        """(B, n) uniform 64-bit words."""
        base = mix(self.keys ^ mix(_words(stream)))
        counters = np.arange(1, n + 1, dtype=np.uint64) * GOLDEN
        out = np.empty((len(base), n), dtype=np.uint64)
        block = max(1, _BLOCK // max(n, 1))
        scratch = np.empty((min(block, len(base)), n), dtype=np.uint64)
        for start in range(0, len(base), block):  # every round of the mixing finds its block still in the cache
            part = out[start : start + block]
            np.add(base[start : start + block, None], counters, out=part)
            _scramble(part, scratch[: len(part)])
        return out

    def uniform(self, stream: int, n: int) -> NDArray[np.float64]:
        """(B, n) uniform in [0, 1), 53 bits."""
        return (self.bits(stream, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, stream: int, n: int, high: int) -> NDArray[np.int64]:
        """(B, n) uniform in 0 … high-1 by multiply-and-shift (Lemire 2019); high < 2**31.

        The deviation from uniform is below high / 2**32 relative: no test of feasible size can see it.
        """
        words = self.bits(stream, n) >> np.uint64(32)
        return ((words * np.uint64(high)) >> np.uint64(32)).astype(np.int64)

    def order(self, stream: int, n: int, k: int, exclude: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(B, k) the first k places of a uniformly random order of the columns 0 … n-1; k ≤ n.

        Args:
            exclude: (B, n) columns that come after all others, themselves in ascending order.

        Random keys carry their column in the lowest bits: sorting values, which numpy does with SIMD instructions,
        replaces sorting indices, and no two keys are equal. Up to 4096 columns, keys of 32 bits leave 20 or more to
        chance: whether two columns are swapped deviates from even by less than one in a million.
        """
        out = np.empty((len(self.keys), k), dtype=np.int64)
        block = max(1, 4 * _BLOCK // max(n, 1))
        for start in range(0, len(out), block):  # all passes over a block find it in the cache
            rows = slice(start, start + block)
            part = None if exclude is None else exclude[rows]
            out[rows] = CounterRNG(self.keys[rows])._order(stream, n, k, part)
        return out

    def _order(self, stream: int, n: int, k: int, exclude: NDArray[np.bool_] | None) -> NDArray[Any]:
        keys: NDArray[Any]
        if n <= _SHORT:
            keys = self.bits(stream, (n + 1) // 2).astype("<u8", copy=False).view("<u4")[:, :n]
        else:
            keys = self.bits(stream, n)
        low = keys.dtype.type((1 << max(n - 1, 0).bit_length()) - 1)
        keys &= ~low
        if exclude is not None:
            np.copyto(keys, ~low, where=exclude)
        keys |= np.arange(n, dtype=keys.dtype)
        if 2 * k < n:
            keys = np.partition(keys, k, axis=1)[:, :k]
        keys.sort(axis=1)
        return keys[:, :k] & low


def permute(indices: NDArray[np.integer], size: int, seed: int | NDArray[np.integer], epoch: int) -> NDArray[np.int64]:
    """A keyed pseudo-random permutation of 0 … size-1, evaluated at `indices` only: O(1) memory, no shuffle buffer.

    A four-round Feistel network over the smallest even number of bits that holds `size`, with cycle-walking for
    the values that fall outside (Black & Rogaway 2002). The result is a bijection for every (size, seed, epoch); the
    seed may differ from index to index.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    key = mix(mix(_words(seed)) ^ _words(epoch))
    value = np.asarray(indices).astype(np.uint64)
    keys = np.broadcast_to(np.stack([mix(key ^ _words(r)) for r in range(4)]), (4, len(value)))

    def feistel(value: U64, rounds: U64) -> U64:
        left, right = value >> shift, value & mask
        for key in rounds:
            left, right = right, left ^ (mix(right ^ key) & mask)
        return (left << shift) | right

    value = feistel(value, keys)
    outside = np.flatnonzero(value >= np.uint64(size))
    while len(outside):
        value[outside] = feistel(value[outside], keys[:, outside])
        outside = outside[value[outside] >= np.uint64(size)]
    return value.astype(np.int64)
