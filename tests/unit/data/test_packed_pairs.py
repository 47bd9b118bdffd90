"""Packed pairs: every pair once an epoch, inside its capacity, whoever asks and in whatever order."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.unit.data.pair_splits import random_pairs, split_with_pairs

from pretextlm.data.packed_pairs import MixingRates, PackedPairs, PairFrame, RowCapacity
from pretextlm.errors import UserError

PAD, LEAD, MIDDLE, END = 3, 5, 6, 7
FRAME = PairFrame(middle=MIDDLE, end=END)
WHOLE = PairFrame(LEAD, MIDDLE, END)
PAIRS = random_pairs(200)
CAPACITIES = [
    (FRAME, RowCapacity(source=40, target=25)),
    (FRAME, RowCapacity(source=13, target=60)),
    (WHOLE, RowCapacity(total=48)),
]


def reader(pairs=(PAIRS,), plain=(), frame=FRAME, capacity=CAPACITIES[0][1], **options):
    return PackedPairs(split_with_pairs(pairs, plain), frame, capacity, PAD, **options)


def all_rows(packed, epoch=0):
    numbers = np.arange(len(packed.packing(epoch)))
    return packed.read(numbers, np.full(len(numbers), epoch), seed=0)


def pairs_of(rows, frame=FRAME):
    """[(source, target)] of every row, read off its arrays, special tokens checked and dropped."""
    arrays = (rows.tokens, rows.segment_ids, rows.token_type_ids)
    found = []
    for tokens, segments, types in zip(*map(rows.matrix, arrays), strict=True):
        inside = []
        for segment in range(segments.max() + 1):
            source, target = (tokens[(segments == segment) & (types == part)].tolist() for part in (0, 1))
            if frame.lead is not None:
                assert source.pop(0) == frame.lead
            assert (source.pop(), target.pop()) == (frame.middle, frame.end)
            inside.append((source, target))
        found.append(inside)
    return found


def next_fit(lengths, capacity):
    """Rows of a plain loop: [number of pairs]."""
    rows, source, target, count = [], 0, 0, 0
    for a, b in lengths:
        over = (
            source + a + target + b > capacity.total
            if capacity.total
            else source + a > capacity.source or target + b > capacity.target
        )
        if count and over:
            rows.append(count)
            source = target = count = 0
        source, target, count = source + a, target + b, count + 1
    return [*rows, count]


def test_the_example_of_the_file():
    pairs = [([7, 8], [30]), ([50], [40, 40, 20])]
    options = {"frame": PairFrame(middle=1, end=1), "capacity": RowCapacity(source=6, target=7)}
    shuffled = [pairs[place] for place in np.argsort(reader([pairs], **options).packing(0).order)]
    rows = all_rows(reader([shuffled], **options))
    assert rows.tokens.tolist() == [7, 8, 1, 30, 1, 50, 1, 40, 40, 20, 1, PAD, PAD]
    assert rows.token_type_ids.tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0]
    assert rows.segment_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1, -1]
    assert rows.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 0]
    assert rows.word_starts.tolist() == [True] * 11 + [False] * 2


@pytest.mark.parametrize(("frame", "capacity"), CAPACITIES)
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_pair_is_in_exactly_one_row_of_an_epoch(frame, capacity, epoch):
    packed = reader(frame=frame, capacity=capacity)
    found = [pair for row in pairs_of(all_rows(packed, epoch), frame) for pair in row]
    assert sorted(found) == sorted(PAIRS)
    assert packed.cut == packed.unusable == 0
    assert packed.num_pairs == len(PAIRS)


@pytest.mark.parametrize(("frame", "capacity"), CAPACITIES)
def test_rows_hold_what_next_fit_puts_there_and_no_more(frame, capacity):
    packed = reader(frame=frame, capacity=capacity)
    for epoch in range(3):
        rows = pairs_of(all_rows(packed, epoch), frame)
        lengths = [(len(a) + frame.source, len(b) + frame.target) for row in rows for a, b in row]
        assert [len(row) for row in rows] == next_fit(lengths, capacity)
        for row in rows:
            source, target = (sum(len(pair[part]) for pair in row) for part in (0, 1))
            source, target = source + frame.source * len(row), target + frame.target * len(row)
            assert source <= (capacity.source or capacity.total)
            assert target <= (capacity.target or capacity.total)
            assert source + target <= capacity.width


@pytest.mark.parametrize(("frame", "capacity"), CAPACITIES)
def test_rows_have_one_width_and_end_in_padding(frame, capacity):
    rows = all_rows(reader(frame=frame, capacity=capacity))
    assert rows.width == capacity.width
    segments = rows.matrix(rows.segment_ids)
    padding = segments < 0
    assert (np.diff(padding.astype(int), axis=1) >= 0).all()
    assert (rows.matrix(rows.tokens)[padding] == PAD).all()
    for array in (rows.position_ids, rows.token_type_ids, rows.word_starts):
        assert not rows.matrix(array)[padding].any()
    assert (np.diff(segments, axis=1)[~padding[:, 1:]] >= 0).all()
    for array in (rows.tokens, rows.segment_ids, rows.position_ids, rows.token_type_ids):
        assert array.dtype == np.int32
        assert len(array) == rows.offsets[-1]


def test_an_epoch_packs_anew_and_a_seed_only_changes_the_order_of_the_rows():
    packed = reader()
    first, second = ([sorted(row) for row in pairs_of(all_rows(packed, epoch))] for epoch in (0, 1))
    assert first != second
    size = packed.rows_per_pass
    orders = []
    for seed in (1, 2):
        numbers, epochs = packed.shuffled(np.arange(size), seed)
        assert (epochs == 0).all()
        assert sorted(numbers.tolist()) == list(range(size))
        orders.append(numbers.tolist())
    assert orders[0] != orders[1]


def test_training_goes_from_epoch_to_epoch_wherever_it_starts():
    packed = reader()
    sizes = [len(packed.packing(epoch)) for epoch in range(4)]
    numbers, epochs = packed.shuffled(np.arange(sum(sizes)), seed=3)
    assert np.bincount(epochs).tolist() == sizes
    for epoch in range(4):
        assert sorted(numbers[epochs == epoch].tolist()) == list(range(sizes[epoch]))
    fresh, place = reader(), sum(sizes) - 1  # a resumed training begins here
    assert [a[0] for a in fresh.shuffled(np.array([place]), 3)] == [numbers[place], epochs[place]]


def test_a_row_is_the_same_alone_in_any_batch_and_in_any_thread():
    packed = reader()
    ordinals = np.arange(3 * packed.rows_per_pass)
    numbers, epochs = packed.shuffled(ordinals, 7)
    whole = packed.read(numbers, epochs, 7)
    fields = [f.name for f in dataclasses.fields(whole) if isinstance(getattr(whole, f.name), np.ndarray)]

    def same(places):
        some = reader().read(numbers[places], epochs[places], 7)
        for name in set(fields) - {"offsets", "example_ids"}:
            assert (some.matrix(getattr(some, name)) == whole.matrix(getattr(whole, name))[places]).all(), name
        assert (some.example_ids == numbers[places]).all()
        return True

    some = [np.array([i]) for i in range(0, len(ordinals), 7)] + [ordinals[::-3], ordinals[5:20]]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, some))


def test_plain_documents_and_halves_of_pairs_are_passed_over():
    packed = reader([PAIRS[:20], [([400], []), ([], [401])]], plain=[[9, 9, 9], [8]])
    assert packed.num_pairs == 20
    assert packed.unusable == 2
    assert sorted(itertools.chain(*pairs_of(all_rows(packed)))) == sorted(PAIRS[:20])


def test_a_pair_longer_than_its_row_is_cut_at_the_ends_and_counted():
    pairs = [(list(range(30, 60)), list(range(60, 90))), ([30], list(range(60, 90))), ([31], [61])]
    packed = reader([pairs], capacity=RowCapacity(source=11, target=21))
    assert packed.cut == 2
    assert sorted(itertools.chain(*pairs_of(all_rows(packed)))) == sorted(
        [(pairs[0][0][:10], pairs[0][1][:20]), ([30], pairs[1][1][:20]), ([31], [61])]
    )
    packed = reader(
        [pairs], frame=WHOLE, capacity=RowCapacity(total=24)
    )  # 21 for text: the longer loses until both fit
    assert packed.cut == 2
    assert sorted(itertools.chain(*pairs_of(all_rows(packed), WHOLE))) == sorted(
        [(pairs[0][0][:11], pairs[0][1][:10]), ([30], pairs[1][1][:20]), ([31], [61])]
    )


def test_the_fill_is_the_share_of_the_room_that_is_taken():
    packed = reader()
    rows = all_rows(packed)
    source, target = (np.count_nonzero((rows.segment_ids >= 0) & (rows.token_type_ids == part)) for part in (0, 1))
    assert packed.fill == (source / (40 * len(rows)), target / (25 * len(rows)))
    text = np.count_nonzero(rows.segment_ids >= 0) - 2 * len(PAIRS)
    assert packed.tokens_per_row == text / len(rows)


def test_rows_come_again_after_some_epochs_where_that_is_asked_for():
    packed = reader(copies=2)
    assert (all_rows(packed, 0).tokens == all_rows(packed, 2).tokens).all()
    assert packed.packing(0).order.tolist() != packed.packing(1).order.tolist()


@pytest.mark.parametrize(
    ("counts", "mixing", "expected"),
    [
        ([100, 50, 10], MixingRates(), [100, 50, 10]),
        ([100, 50, 10], MixingRates(limit=40), [40, 40, 10]),
        ([100, 0, 1], MixingRates(), [100, 0, 1]),
        ([400, 100], MixingRates(temperature=2), [333, 167]),  # 20 : 10
        ([400, 100, 100], MixingRates(limit=100, temperature=3), [100, 100, 100]),
        ([10_000, 1], MixingRates(temperature=1.0001), [10_000, 1]),
        ([300, 0, 3], MixingRates(temperature=1e9), [152, 0, 151]),
    ],
)
def test_sources_are_mixed_in_proportion_to_a_root_of_what_counts_of_them(counts, mixing, expected):
    assert mixing.quotas(np.array(counts)).tolist() == expected


def test_a_limited_source_gives_every_pair_equally_often_over_the_epochs():
    few, many = PAIRS[:10], PAIRS[10:70]
    packed = reader([few, many], mixing=MixingRates(limit=24))  # 10 of 10, 24 of 60
    seen = [sorted(itertools.chain(*pairs_of(all_rows(packed, epoch)))) for epoch in range(5)]
    for pairs in seen:
        assert len(pairs) == 34
        assert [pair for pair in pairs if pair in few] == sorted(few)
        assert len([pair for pair in pairs if pair in many]) == 24
    times = [list(itertools.chain(*seen)).count(pair) for pair in many]
    assert times == [2] * 60  # 5 · 24 = 2 · 60


def test_a_small_source_comes_several_times_in_an_epoch_and_evenly():
    few, many = PAIRS[:10], PAIRS[10:170]
    packed = reader([few, many], mixing=MixingRates(temperature=2))
    quotas = MixingRates(temperature=2).quotas(np.array([10, 160]))
    assert quotas.tolist() == [34, 136]  # √10 : √160 = 1 : 4
    found = list(itertools.chain(*pairs_of(all_rows(packed))))
    assert sorted(found.count(pair) for pair in few) == [3] * 6 + [4] * 4
    assert sum(found.count(pair) for pair in many) == 136


@pytest.mark.slow
def test_the_order_of_an_epoch_is_uniform():
    """Places of the first of 20 pairs over 2,000 epochs; χ² with 19 degrees of freedom, one false alarm in 10,000."""
    packed = reader([PAIRS[:20]], capacity=RowCapacity(source=13, target=9))
    places = [int(np.flatnonzero(packed.packing(epoch).order == 0)[0]) for epoch in range(2000)]
    counts = np.bincount(places, minlength=20)
    assert ((counts - 100) ** 2 / 100).sum() < 50.8


def test_a_split_without_pairs_is_refused():
    with pytest.raises(UserError, match="holds no pairs") as caught:
        reader([], plain=[[9, 9]])
    assert "source=FIELD&target=FIELD" in caught.value.hint


@pytest.mark.parametrize("plain_first", [True, False])
def test_the_plain_documents_of_a_split_can_be_read_by_themselves(plain_first):
    plain = [[9, 8, 7], [6], [5, 5]]
    split = split_with_pairs([PAIRS[:5]], plain, plain_first)
    alone = split.plain()
    assert [alone.document(i).tolist() for i in range(alone.num_documents)] == plain
    assert alone.sentences.tolist() == [0, 3, 4]
    assert alone.word_starts(np.arange(6)).all()
    assert alone.text_bytes == 6
    assert np.shares_memory(alone.tokens, split.tokens) == plain_first
    assert split.plain().plain().num_documents == 3
