"""Examples lie side by side whole, in order, and know their own tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pretextlm.attention_mask import AttentionKind
from pretextlm.batch import IGNORE, Batch
from pretextlm.data.examples import (
    STEP,
    ExampleReader,
    Examples,
    expense,
    filled,
    first_places,
    last_places,
    side_by_side,
    widths,
)

PAD = 0


def examples_of(lengths: list[int]) -> Examples:
    """Tokens that are all different, so that each can be found again."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return Examples(
        tokens=tokens,
        offsets=offsets,
        records=np.arange(len(lengths)),
        types=(tokens % 2).astype(np.int32),
        labels=np.arange(len(lengths), dtype=np.int32) * 10,
        token_labels=np.where(tokens % 3 == 0, tokens, IGNORE).astype(np.int32),
    )


def laid_out(lengths: list[int], attention: AttentionKind) -> tuple[Examples, Batch]:
    examples = examples_of(lengths)
    rows = ExampleReader(examples).read(np.arange(len(lengths)), np.zeros(len(lengths), np.int64), 0)
    return examples, side_by_side(rows, PAD, attention)


some_lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@settings(deadline=None)
@given(some_lengths)
def test_every_token_is_laid_out_once_with_its_own_label_type_and_position(lengths):
    examples, batch = laid_out(lengths, "bidirectional")
    inside = batch.segment_ids >= 0
    assert np.array_equal(batch.input_ids[inside], examples.tokens)
    assert np.array_equal(batch.labels[inside], examples.token_labels)
    assert np.array_equal(batch.token_type_ids[inside], examples.types)
    assert np.array_equal(batch.position_ids[inside], np.concatenate([np.arange(n) for n in lengths]))
    assert (batch.input_ids[~inside] == PAD).all()
    assert (batch.labels[~inside] == IGNORE).all()
    assert batch.input_ids.shape[1] % STEP == 0


@settings(deadline=None)
@given(some_lengths)
def test_an_example_lies_whole_in_one_row_as_one_segment_and_its_ends_are_found(lengths):
    examples, batch = laid_out(lengths, "causal")
    width = batch.input_ids.shape[1]
    first, last = first_places(batch), last_places(batch)
    assert np.array_equal(batch.input_ids.reshape(-1)[first], examples.tokens[examples.offsets[:-1]])
    assert np.array_equal(batch.input_ids.reshape(-1)[last], examples.tokens[examples.offsets[1:] - 1])
    assert np.array_equal(first // width, last // width)
    flat = batch.segment_ids.reshape(-1)
    assert all(len(set(flat[a : b + 1])) == 1 for a, b in zip(first, last, strict=True))
    assert np.array_equal(batch.row_labels, examples.labels)


@settings(deadline=None)
@given(some_lengths, st.integers(0, 5))
def test_an_epoch_reads_every_example_once_and_no_two_epochs_alike(lengths, seed):
    reader, count = ExampleReader(examples_of(lengths)), len(lengths)
    numbers, epochs = reader.shuffled(np.arange(3 * count), seed)
    for epoch in range(3):
        assert sorted(numbers[epochs == epoch]) == list(range(count))
    if count > 12:
        assert not np.array_equal(numbers[:count], numbers[count : 2 * count])


@settings(deadline=None)
@given(some_lengths)
def test_a_batch_has_every_example_once_in_no_more_rows_than_the_best_filling_found(lengths):
    examples = examples_of(lengths)
    reader = ExampleReader(examples)
    (order,) = reader.groups(np.arange(len(lengths)))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    batch = side_by_side(reader.read(order, np.zeros_like(order), 0), PAD, "bidirectional")
    found = {width: len(filled(lengths, width)) for width in widths(max(lengths))}
    assert expense(*batch.input_ids.shape) <= min(expense(rows, width) for width, rows in found.items())
    assert np.array_equal(batch.row_labels, order * 10)


@settings(deadline=None)
@given(some_lengths)
def test_answers_are_asked_for_in_the_order_of_the_examples(lengths):
    (order,) = ExampleReader(examples_of(lengths), in_order=True).groups(np.arange(len(lengths)))
    assert order.tolist() == list(range(len(lengths)))


def test_a_row_takes_the_longest_example_that_still_fits():
    assert filled([4, 9, 3, 5, 1], 10) == [[1, 4], [3, 0], [2]]
