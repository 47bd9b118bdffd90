"""Several readers in turn: exact shares, each at its own pace."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.data.pair_splits import random_pairs, split_with_pairs
from tests.unit.data.small_splits import AFrame, AVariant, split_of

from pretextlm.data.interleave import InterleavedReader
from pretextlm.data.mixture import Mixture
from pretextlm.data.packed_pairs import PackedPairs, PairFrame, RowCapacity

SPLIT = split_of([list(range(i, i + 37)) for i in range(20)])


def readers():
    pairs = split_with_pairs([random_pairs(60)])
    packed = PackedPairs(pairs, PairFrame(middle=1, end=1), RowCapacity(source=30, target=20), pad=0)
    return [packed, Mixture(SPLIT, AFrame(), [AVariant(16), AVariant(24)])]


def alternating(share=1 / 3):
    return InterleavedReader(readers(), [1 - share, share], [1, 2])


@pytest.mark.parametrize("share", [0.5, 1 / 3, 0.2, 0.137])
def test_any_run_of_a_block_has_the_exact_shares(share):
    mixed = alternating(share)
    numbers, _ = mixed.shuffled(np.arange(3000), 1)
    plain = np.array([mixed.slots[number % len(mixed.slots)] for number in numbers])
    size = len(mixed.slots)
    assert np.count_nonzero(plain) / 3000 == pytest.approx(share, abs=1 / size)
    for first in (0, 7, 1500):
        assert np.count_nonzero(plain[first : first + size]) == round(share * size)


def test_each_reader_gives_what_it_would_alone():
    mixed, alone = alternating(), readers()
    ordinals = np.arange(300)
    numbers, epochs = mixed.shuffled(ordinals, 5)
    assert len(set(zip(numbers.tolist(), epochs.tolist(), strict=True))) == 300
    slots = mixed.slots[ordinals % 3]
    for index, reader in enumerate(alone):
        places = np.flatnonzero(slots == index)
        expected, own_epochs = reader.shuffled(np.arange(len(places)), 5)
        assert (epochs[places] == own_epochs).all()
        for group in reader.groups(expected):
            rows = mixed.read(numbers[places][group], epochs[places][group], 5)
            own = reader.read(expected[group], own_epochs[group], 5)
            assert (rows.tokens == own.tokens).all()
            assert (rows.example_ids == numbers[places][group]).all()
            assert rows.variant == own.variant + index


def test_groups_hold_rows_of_one_variant_and_all_rows():
    mixed = alternating()
    numbers, epochs = mixed.shuffled(np.arange(50, 90), 5)
    groups = mixed.groups(numbers)
    assert sorted(np.concatenate(groups).tolist()) == list(range(40))
    variants = [mixed.read(numbers[group], epochs[group], 5).variant for group in groups]
    assert variants == [0, 1, 2]


def test_one_pass_in_order_reads_nothing_twice():
    mixed, (pairs, plain) = alternating(), readers()
    count = mixed.rows_per_pass
    slots = mixed.slots[np.arange(count) % 3]
    used = [int(np.count_nonzero(slots == 0)), int(np.count_nonzero(slots == 1))]
    assert used[0] <= pairs.rows_per_pass
    assert used[1] <= plain.rows_per_pass
    assert used[0] == pairs.rows_per_pass or used[1] == plain.rows_per_pass
    numbers = np.arange(count)
    for group in mixed.groups(numbers):
        rows = mixed.read(numbers[group], np.zeros(len(group), np.int64), 0, pad=0)
        assert len(rows) == len(group)


def test_tokens_per_row_are_those_of_the_shares():
    mixed, (pairs, plain) = alternating(), readers()
    assert mixed.tokens_per_row == pytest.approx(2 / 3 * pairs.tokens_per_row + 1 / 3 * plain.tokens_per_row)
