"""A counter-based random number generator: every number is a function of (seed, epoch, example, stream, counter).

Nothing is stored and nothing advances, so batch size, worker, rank, order and resume cannot change a number.

The mixing function is splitmix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195), whose output
passes BigCrush. As a sequential generator, splitmix64 adds the odd constant GOLDEN to its state and scrambles the sum;
its n-th output is therefore scramble(state + n · GOLDEN), which can be computed for any n at once:

    state  = mix(example's key ^ mix(stream))        one starting point per example and stream
    word n = scramble(state + n · GOLDEN)             n = 1, 2, …

Arithmetic is modulo 2**64, so numpy (uint64) and torch (int64, wrapping) agree bit for bit.
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
"""Words mixed at a time: 64 KiB stay in the cache, which makes a large array three times faster."""
_SHORT = 4096
"""Columns up to which a random order takes 32 bits for each."""


def mix(state: U64) -> U64:
    """Computes splitmix64's output function, a bijection of 64-bit words in which every input bit affects all others.

    Args:
        state: Words of any shape; not changed.

    Returns:
        Words of the same shape.
    """
    out = state + GOLDEN
    _scramble(out, np.empty_like(out))
    return out


def _scramble(out: U64, scratch: U64) -> None:
    """Applies the rounds of splitmix64 in place; `scratch` is an array of the same shape.

    Each round is invertible: x ^= x >> k leaves the top k bits as they are, from which the others can be recovered, and
    a multiplication by an odd number has an inverse modulo 2**64. So the function is a bijection.
    """
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

    Attributes:
        keys: (B,) one 64-bit key per example; built with :meth:`of`.
    """

    keys: U64

    @classmethod
    def of(cls, seed: int, epoch: int | NDArray[np.integer], example_ids: int | NDArray[np.integer]) -> CounterRNG:
        """Builds the generator of some examples.

        Args:
            seed: Seed of the run.
            epoch: Epoch of each example.
            example_ids: Number of each example; it broadcasts against `epoch`.
        """
        key = mix(_words(seed))
        key = mix(key ^ _words(epoch))
        return cls(mix(key ^ _words(example_ids)))

    def fork(self, stream: int) -> CounterRNG:
        """Returns an independent generator for the same examples, for a part of an objective."""
        return CounterRNG(mix(self.keys ^ mix(_words(stream))))

    def bits(self, stream: int, n: int) -> U64:
        """Returns (B, n) uniform 64-bit words."""
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
        """Returns (B, n) float64 uniform in [0, 1): the upper 53 bits, the precision of a float64, times 2⁻⁵³."""
        return (self.bits(stream, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, stream: int, n: int, high: int) -> NDArray[np.int64]:
        """Returns (B, n) integers uniform in 0 … high-1 by multiply-and-shift (Lemire 2019); high < 2**31.

        A 32-bit word w is a fraction w / 2³² of the range, so w · high >> 32 is its integer part: for high = 6, words
        below 2³² / 6 give 0. Some results have one word more than others, a relative deviation from uniform of at most
        high / 2³²: no test of feasible size can detect it.
        """
        words = self.bits(stream, n) >> np.uint64(32)
        return ((words * np.uint64(high)) >> np.uint64(32)).astype(np.int64)

    def order(self, stream: int, n: int, k: int, exclude: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Returns the beginning of a uniformly random order of the columns.

        Every column gets a random key, and the keys are sorted. A key carries its column in its lowest bits: so values
        are sorted, which numpy does with SIMD instructions, instead of indices, and no two keys are equal. For four
        columns with keys of 8 bits,

            random bits     1011 01..   0010 11..   1011 00..   0110 10..
            with columns    101101 00   001011 01   101100 10   011010 11
            sorted          001011 01   011010 11   101100 10   101101 00    → order 1 3 2 0

        Up to 4096 columns, keys of 32 bits leave 20 or more random ones: the probability that two columns are swapped
        deviates from ½ by less than one in a million.

        Args:
            stream: Stream of the random numbers.
            n: Number of columns.
            k: Length of the beginning; k ≤ n.
            exclude: (B, n) columns that come after all others, themselves in ascending order.

        Returns:
            (B, k) columns.
        """
        out = np.empty((len(self.keys), k), dtype=np.int64)
        block = max(1, 4 * _BLOCK // max(n, 1))
        for start in range(0, len(out), block):  # every pass over a block finds it in the cache
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
        low = keys.dtype.type((1 << max(n - 1, 0).bit_length()) - 1)  # the bits that hold a column
        keys &= ~low
        if exclude is not None:
            np.copyto(keys, ~low, where=exclude)  # the largest key there is, before the column
        keys |= np.arange(n, dtype=keys.dtype)
        if 2 * k < n:
            keys = np.partition(keys, k, axis=1)[:, :k]
        keys.sort(axis=1)
        return keys[:, :k] & low


def permute(indices: NDArray[np.integer], size: int, seed: int | NDArray[np.integer], epoch: int) -> NDArray[np.int64]:
    """Evaluates a pseudo-random permutation of 0 … size-1 at some indices: O(1) memory, no shuffle buffer.

    A Feistel network splits a word into halves and, in each of four rounds, replaces (left, right) by
    (right, left ^ f(right)). Whatever f is, a round can be undone: right is still there, and so f(right). So the
    network is a bijection of the words of 2·half bits, the smallest even number of bits that holds `size`.

    Of these, those from `size` on are not wanted. Cycle-walking (Black & Rogaway 2002) applies the network again until
    the value is below `size`: following a cycle of a permutation from an allowed value, the first allowed value that
    comes is different for every start. For size = 5, words have 4 bits; if the network maps 3 → 12 → 7 → 1, then 3 → 1.
    At most ¾ of the words are outside, so it takes 4 steps or fewer on average.

    Args:
        indices: Where to evaluate it.
        size: Number of elements.
        seed: Seed; it may differ from index to index.
        epoch: Epoch; each has a permutation of its own.

    Returns:
        The image of each index; a bijection for every (size, seed, epoch).
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
