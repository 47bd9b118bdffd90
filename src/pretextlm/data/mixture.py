"""Rows of several shapes from one stream, in exact proportions, with random access and no table.

Variants take turns in blocks of Q rows: a block holds a fixed quota of each variant, spread evenly, and reads a run of
text of constant length. For example, shares ½, ¼, ¼ of variants R, S, X make blocks of four:

    slot          0  1  2  3
    variant       R  S  X  R
    stream        |--R--|-S-|----X----|--R--|  next block …

Row number n is slot n mod Q of block n div Q, so its place in the stream is arithmetic. Training shuffles each slot's
rows over the epoch by a keyed permutation of its own: any Q consecutive rows have exact proportions, their texts lie
apart, and an epoch reads every token once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.counter_rng import mix, permute
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.rows import StreamReader
from pretextlm.data.store import Split

I64 = NDArray[np.int64]

LARGEST_BLOCK = 1000
"""Rows of a block at most; shares that no such block holds exactly are met to one row in a block."""


class Mixture:
    """Reads the variants of an objective from a split; with one variant, plain rows of the stream.

    Args:
        split, frame: as for :class:`StreamReader`.
        variants: their weights are their shares of the rows.

    Raises:
        UserError: the split holds no entry.
    """

    def __init__(self, split: Split, frame: Frame, variants: Sequence[Variant]) -> None:
        self.readers = [StreamReader(split, frame, variant) for variant in variants]
        self.size = self.readers[0].size
        self.slots = interleaved(quotas([v.weight for v in variants]))
        strides = np.array([reader.stride for reader in self.readers], dtype=np.int64)[self.slots]
        self._before = np.cumsum(strides) - strides
        self.block = int(strides.sum())
        self.restart = any(variant.restart for variant in variants)

    @property
    def rows_per_pass(self) -> int:
        return self.rows_before(self.size)

    @property
    def tokens_per_row(self) -> float:
        return self.block / len(self.slots)

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        blocks, slots = np.divmod(np.asarray(ordinals, dtype=np.int64), len(self.slots))
        epochs = blocks // self.first_block(1) if self.restart else blocks * self.block // self.size
        seeds = np.where(slots == 0, seed, (mix(np.uint64(seed) ^ mix(slots.astype(np.uint64))) >> np.uint64(1)))
        out = np.empty_like(blocks)
        for epoch in np.unique(epochs).tolist():
            first, after = self.first_block(epoch), self.first_block(epoch + 1)
            inside = epochs == epoch
            out[inside] = first + permute(blocks[inside] - first, after - first, seeds[inside], epoch)
        if self.restart:
            out -= epochs * self.first_block(1)
        return out * len(self.slots) + slots, epochs

    def groups(self, numbers: I64) -> list[I64]:
        variants = self.slots[numbers % len(self.slots)]
        places = (np.flatnonzero(variants == index) for index in range(len(self.readers)))
        return [group for group in places if len(group)]

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        numbers = np.asarray(numbers, dtype=np.int64)
        return self.read_at(self.entries_before(numbers) % self.size, numbers, pad)

    def read_at(self, starts: I64, numbers: I64, pad: int | None, ends: I64 | None = None) -> Rows:
        """The rows with these numbers (B,), all of one variant, at other places; see :meth:`StreamReader.read_at`."""
        variants = self.slots[numbers % len(self.slots)]
        variant = int(variants[0])
        assert (variants == variant).all(), "rows of one variant are read together"
        return dataclasses.replace(self.readers[variant].read_at(starts, numbers, pad, ends), variant=variant)

    def documents(self, numbers: I64, seed: int) -> I64:
        return self.readers[0].documents_at(self.entries_before(numbers) % self.size)

    def sources(self, numbers: I64, seed: int) -> I64:
        return self.readers[0].split.document_sources[self.documents(numbers, seed)].astype(np.int64)

    def entries_before(self, numbers: I64) -> I64:
        """(B,) stream entries before these rows (B,) since row 0: each row accounts for one stride."""
        blocks, slots = np.divmod(np.asarray(numbers, dtype=np.int64), len(self.slots))
        found: I64 = blocks * self.block + self._before[slots]
        return found

    def rows_before(self, entries: int) -> int:
        """Rows from row 0 on that together account for at least so many stream entries."""
        blocks, rest = divmod(entries, self.block)
        return blocks * len(self.slots) + int(np.searchsorted(self._before, rest))

    def first_block(self, epoch: int) -> int:
        """Number of the first block that an epoch owns."""
        if self.restart:
            return epoch * -(-self.size // self.block)
        return -(-epoch * self.size // self.block)


def quotas(weights: Sequence[float]) -> list[int]:
    """Rows of each variant in a block: exact where a block of at most LARGEST_BLOCK rows can be, else to one row.

    Largest remainder; every variant with a weight above 0 has a row.
    """
    total = sum(weights)
    shares = [Fraction(weight / total).limit_denominator(LARGEST_BLOCK) for weight in weights]
    size = lcm(*(share.denominator for share in shares))
    if sum(shares) == 1 and size <= LARGEST_BLOCK:
        return [int(share * size) for share in shares]
    exact = [weight / total * LARGEST_BLOCK for weight in weights]
    rows = [max(int(value), 1) if value > 0 else 0 for value in exact]
    order = sorted(range(len(rows)), key=lambda i: rows[i] - exact[i])
    for index in order[: max(0, LARGEST_BLOCK - sum(rows))]:
        rows[index] += 1
    return rows


def interleaved(rows: Sequence[int]) -> I64:
    """(Q,) variant of each slot, every variant's slots spread evenly over the block."""
    variants = np.repeat(np.arange(len(rows)), rows)
    at = np.concatenate([(np.arange(n) + 0.5) / n for n in rows if n] or [np.zeros(0)])
    return variants[np.argsort(at, kind="stable")].astype(np.int64)
