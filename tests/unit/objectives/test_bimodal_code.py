"""Masked text and code: the masked objective over packed pairs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.unit.data.pair_splits import random_pairs, split_with_pairs
from tests.unit.objectives.hand_rows import framed, keyed, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.data.loader import Loader
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

V = vocabulary()
PAIRS = random_pairs(120)
SPLIT = split_with_pairs([PAIRS], [[9] * 20])


def batch_of(length=48, **options):
    objective = build("bimodal_code", options)
    reader = objective.reader(SPLIT, V, length)
    numbers = np.arange(reader.rows_per_pass)
    rows = reader.read(numbers, np.zeros(len(numbers), np.int64), 1)
    return rows, objective.collate(rows, V, keyed(rows))


@pytest.mark.parametrize("options", [{}, {"masked": {"unit": "word", "rate": 0.4}}, {"masked": {"count": "bernoulli"}}])
def test_every_pair_comes_back_from_input_and_labels(options):
    _, batch = batch_of(**options)
    originals = np.where(batch.labels == IGNORE, batch.input_ids, batch.labels)
    found = []
    for row, segments, types in zip(originals, batch.segment_ids, batch.token_type_ids, strict=True):
        for segment in range(segments.max() + 1):
            words, code = (row[(segments == segment) & (types == part)].tolist() for part in (0, 1))
            assert (words.pop(0), words.pop(), code.pop()) == (V.cls, V.sep, V.sep)
            found.append((words, code))
    assert sorted(found) == sorted(PAIRS)


def test_the_batch_is_the_masked_objectives_with_types():
    rows, batch = batch_of(masked={"rate": 0.3})
    masked = build("masked", {"rate": 0.3}).collate(rows, V, keyed(rows))
    for name in ("input_ids", "labels", "segment_ids", "position_ids"):
        assert (getattr(batch, name) == getattr(masked, name)).all()
    assert (batch.token_type_ids == rows.matrix(rows.token_type_ids)).all()
    assert batch.attention == "bidirectional"
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, np.ndarray) and value.ndim == 2:
            assert value.shape == (len(rows), 48)
            assert value.dtype == np.int32
            assert value.flags.c_contiguous


def test_both_parts_are_hidden_at_the_same_rate_and_special_tokens_never():
    """Forty epochs; the share of a part within four standard deviations of 30 %."""
    objective = build("bimodal_code", {"masked": {"rate": 0.3}})
    reader = objective.reader(SPLIT, V, 48)
    count = 40 * reader.rows_per_pass
    loader = Loader(reader, lambda rows, rng: objective.collate(rows, V, rng), seed=1)
    (batch,) = loader.step(0, count, count)
    originals = np.where(batch.labels == IGNORE, batch.input_ids, batch.labels)
    hidden = batch.labels != IGNORE
    assert not V.is_special[originals[hidden]].any()
    assert not hidden[batch.segment_ids < 0].any()
    ordinary = ~V.is_special[originals]
    for part in (0, 1):
        of_part = ordinary & (batch.token_type_ids == part)
        n = np.count_nonzero(of_part)
        assert abs(hidden[of_part].mean() - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5


def test_pairs_of_a_row_do_not_see_each_other():
    _, batch = batch_of()
    seen = may_attend(batch.segment_ids, batch.segment_ids)
    for b, segments in enumerate(batch.segment_ids):
        assert segments.max() > 0
        for place in np.flatnonzero(segments >= 0):
            assert np.flatnonzero(seen[b, place]).tolist() == np.flatnonzero(segments == segments[place]).tolist()


def test_a_row_comes_out_the_same_alone_or_in_any_batch():
    objective = build("bimodal_code")
    reader = objective.reader(SPLIT, V, 48)
    _, whole = batch_of()
    for numbers in (np.array([3]), np.arange(reader.rows_per_pass)[::-2]):
        rows = reader.read(numbers, np.zeros(len(numbers), np.int64), 8)
        some = objective.collate(rows, V, keyed(rows))
        assert (some.input_ids == whole.input_ids[numbers]).all()
        assert (some.labels == whole.labels[numbers]).all()


def test_static_masks_come_again_with_their_rows():
    objective = build("bimodal_code", {"masked": {"static_masks": 2}})
    assert objective.noise_period == 2
    reader = objective.reader(SPLIT, V, 48)
    sizes = [len(reader.packing(epoch)) for epoch in range(3)]
    loader = Loader(reader, lambda rows, rng: objective.collate(rows, V, rng), seed=1, copies=objective.noise_period)

    def rows_of_epoch(epoch):
        (batch,) = loader.step(sum(sizes[:epoch]), sizes[epoch], 10_000)
        return sorted(zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True))

    assert rows_of_epoch(0) == rows_of_epoch(2)
    assert rows_of_epoch(0) != rows_of_epoch(1)


def test_plain_rows_are_masked_as_they_are():
    rows = framed(4, 40, V)
    batch = build("bimodal_code").collate(rows, V, keyed(rows))
    assert batch.token_type_ids is None
    assert (batch.input_ids == build("masked").collate(rows, V, keyed(rows)).input_ids).all()


def test_it_looks_like_a_masked_objective_to_what_is_built_around_one():
    objective = build("replaced_token", {"inner": {"name": "bimodal_code", "masked": {"rate": 0.2}}})
    assert objective.num_token_types() == 2
    reader = objective.reader(SPLIT, V, 48)
    rows = reader.read(np.arange(3), np.zeros(3, np.int64), 1)
    batch = objective.collate(rows, V, keyed(rows))
    assert batch.token_type_ids.any()
    assert objective.counts(batch)["lm"] == np.count_nonzero(batch.labels != IGNORE) > 0
    with pytest.raises(UserError, match="predict"):
        build("replaced_token", {"inner": {"name": "bimodal_code", "masked": {"predict": "next"}}})


def test_lengths_and_stores_that_cannot_do_are_refused():
    with pytest.raises(UserError, match="at least 5"):
        build("bimodal_code").variants(V, 4)
    with pytest.raises(UserError, match="holds no pairs"):
        build("bimodal_code").reader(split_with_pairs([], [[9, 9]]), V, 40)
