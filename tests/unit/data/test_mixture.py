"""Mixtures of row shapes: exact proportions, every token once, the same wherever one begins to read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.data.small_splits import AFrame, AVariant, split_of

from pretextlm.data.mixture import LARGEST_BLOCK, Mixture, quotas

THREE = [AVariant(5, weight=0.5), AVariant(3, weight=0.25), AVariant(11, overlap=1, weight=0.25)]


def mixture(size: int, variants=THREE) -> Mixture:
    return Mixture(split_of([list(range(size))]), AFrame(), variants)


def of_epoch(reader: Mixture, epoch: int) -> np.ndarray:
    """Ordinals of an epoch."""
    slots = len(reader.slots)
    return np.arange(reader.first_block(epoch) * slots, reader.first_block(epoch + 1) * slots)


def reads(reader: Mixture, numbers: np.ndarray, size: int) -> np.ndarray:
    """(size,) how often each token is read, a token of look-ahead not counted."""
    counts = np.zeros(size, int)
    for group in reader.groups(numbers):
        rows = reader.read(numbers[group], np.zeros(len(group), np.int64), 0)
        variant = reader.readers[rows.variant].variant
        stride = variant.raw - variant.overlap
        np.add.at(counts, rows.matrix(rows.tokens)[:, :stride].reshape(-1), 1)
    return counts


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 2), st.integers(0, 1000))
def test_with_one_variant_every_epoch_is_a_permutation_of_its_rows_and_reads_each_entry_once(size, raw, overlap, seed):
    reader = mixture(size, [AVariant(raw, min(overlap, raw - 1))])
    epochs = 4
    total = reader.first_block(epochs)
    numbers, of = reader.shuffled(np.arange(total), seed)
    for epoch in range(epochs):
        first, after = reader.first_block(epoch), reader.first_block(epoch + 1)
        assert sorted(numbers[of == epoch].tolist()) == list(range(first, after))
        assert np.array_equal(np.flatnonzero(of == epoch), np.arange(first, after))
    counts = reads(reader, numbers, size)
    assert counts.sum() == total * reader.block
    assert counts.min() >= epochs
    assert counts.max() - counts.min() <= 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(0, 1000))
def test_a_mixture_reads_every_token_once_in_an_epoch(size, seed):
    reader = mixture(size)
    total = sum(len(of_epoch(reader, epoch)) for epoch in range(3))
    numbers, _ = reader.shuffled(np.arange(total), seed)
    assert len(set(numbers.tolist())) == total
    counts = reads(reader, numbers, size)
    assert counts.min() >= 3
    assert counts.max() - counts.min() <= 1 + reader.block // size


def test_any_block_of_consecutive_rows_has_the_exact_proportions():
    reader = mixture(10_000)
    numbers, _ = reader.shuffled(np.arange(4000), seed=3)
    variants = reader.slots[numbers % len(reader.slots)]
    assert len(reader.slots) == 4
    for first in range(0, 3996):
        assert np.bincount(variants[first : first + 4], minlength=3).tolist() == [2, 1, 1]


def test_the_texts_of_a_block_lie_apart():
    """A step's rows are not neighbours: each slot has an order of its own."""
    reader = mixture(60_000)
    numbers, _ = reader.shuffled(np.arange(4000), seed=3)
    blocks = (numbers // 4).reshape(-1, 4)
    assert np.mean(blocks[:, :1] == blocks[:, 1:]) < 0.01


@pytest.mark.parametrize("variants", [THREE, [AVariant(16)]])
def test_the_order_does_not_depend_on_how_the_ordinals_are_batched(variants):
    reader = mixture(1000, variants)
    whole, epochs = reader.shuffled(np.arange(200), seed=7)
    parts = [reader.shuffled(np.arange(first, first + 8), seed=7) for first in range(0, 200, 8)]
    assert np.array_equal(whole, np.concatenate([numbers for numbers, _ in parts]))
    assert np.array_equal(epochs, np.concatenate([of for _, of in parts]))
    assert not np.array_equal(whole, reader.shuffled(np.arange(200), seed=8)[0])
    assert not np.array_equal(whole, np.arange(200))


@pytest.mark.parametrize("size", [1, 4, 6, 23, 24, 100])
def test_one_pass_for_evaluation_reads_every_token_once_and_no_row_of_padding_alone(size):
    reader = mixture(size, [AVariant(5, weight=0.5), AVariant(3, weight=0.5)])
    numbers = np.arange(reader.rows_per_pass)
    counts = np.zeros(size, int)
    for group in reader.groups(numbers):
        rows = reader.read(numbers[group], np.zeros(len(group), np.int64), 0, pad=9999)
        real = rows.segment_ids >= 0
        assert rows.matrix(real).any(axis=1).all()
        np.add.at(counts, rows.tokens[real], 1)
    assert (counts == 1).all()


def test_rows_that_restart_come_again_in_every_epoch():
    reader = mixture(100, [AVariant(16, restart=True)])
    numbers, epochs = reader.shuffled(np.arange(21), seed=5)
    assert epochs.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    orders = numbers.reshape(3, 7)
    assert (np.sort(orders, axis=1) == np.arange(7)).all()
    assert not (orders[0] == orders[1]).all()


def test_quotas_are_exact_where_a_block_can_be_and_else_within_a_row():
    assert quotas([1.0]) == [1]
    assert quotas([1 / 7] * 7) == [1] * 7
    assert quotas([0.5, 0.25, 0.25]) == [2, 1, 1]
    assert quotas([0.33, 0.34, 0.33]) == [33, 34, 33]
    assert quotas([3, 1]) == [3, 1]
    odd = [2**-0.5, 3**-0.5, 5**-0.5]
    found = quotas(odd)
    assert sum(found) == LARGEST_BLOCK
    assert all(abs(n - LARGEST_BLOCK * w / sum(odd)) < 1 for n, w in zip(found, odd, strict=True))
