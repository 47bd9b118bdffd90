"""What holds for every objective: pure, stateless, int32, and ready for the model."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, take, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.keyed import Keyed
from pretextlm.objectives.base import OBJECTIVES, build

V = vocabulary()
CASES = [
    ("causal", {}),
    ("causal", {"isolate": False}),
    ("masked", {}),
    ("masked", {"count": "bernoulli"}),
    ("masked", {"unit": "word", "rate": 0.3}),
    ("masked", {"unit": "word", "count": "bernoulli"}),
    ("span_corruption", {}),
    ("span_corruption", {"rate": 0.5, "mean_span_length": 4.0}),
    ("span_corruption", {"layout": "prefix"}),
]
DRAWS = [case for case in CASES if case[0] != "causal"]


def rows_for(name, count=24, width=40):
    return framed(count, width, V) if name != "span_corruption" else rows_of(text(count, width, V))


def arrays(batch):
    return {
        f.name: getattr(batch, f.name)
        for f in dataclasses.fields(batch)
        if f.name != "attention" and getattr(batch, f.name) is not None
    }


@pytest.mark.parametrize(("name", "options"), CASES)
def test_corrupting_changes_no_input(name, options):
    rows = rows_for(name)
    rng = keyed(rows)
    before, keys = copy.deepcopy(rows), rng.keys.copy()
    for array in vars(rows).values():
        array.flags.writeable = False
    build(name, options).corrupt(rows, V, rng)
    for field, array in vars(before).items():
        assert (getattr(rows, field) == array).all()
    assert (rng.keys == keys).all()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_row_comes_out_the_same_alone_or_in_any_batch(name, options):
    rows, objective = rows_for(name), build(name, options)
    whole = arrays(objective.corrupt(rows, V, keyed(rows)))
    for which in (np.array([5]), np.arange(24)[::-1].copy(), np.array([3, 17, 4]), np.arange(7, 20)):
        some = take(rows, which)
        for field, array in arrays(objective.corrupt(some, V, keyed(some))).items():
            assert (array == whole[field][which]).all(), field


@pytest.mark.parametrize(("name", "options"), DRAWS)
def test_a_new_epoch_or_seed_draws_anew_and_the_same_key_does_not(name, options):
    rows, objective = rows_for(name), build(name, options)

    def inputs(seed, epoch):
        return objective.corrupt(rows, V, Keyed.of(seed, epoch, rows.example_ids)).input_ids

    assert (inputs(1, 0) == inputs(1, 0)).all()
    for other in (inputs(1, 1), inputs(2, 0), inputs(0, 1)):
        assert np.count_nonzero((other != inputs(1, 0)).any(axis=1)) >= 20  # of 24 rows; equal ones are chance


@pytest.mark.parametrize(("name", "options"), CASES)
def test_draws_use_no_global_generator(name, options):
    rows, objective = rows_for(name), build(name, options)
    np.random.seed(0)  # noqa: NPY002 - the state that must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = objective.corrupt(rows, V, keyed(rows)).input_ids
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert (objective.corrupt(rows, V, keyed(rows)).input_ids == first).all()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_batches_are_contiguous_int32_of_the_declared_widths(name, options):
    objective = build(name, options)
    (variant,) = objective.variants(V, 40)
    width = variant.raw + (objective.frame(V).lead is not None)
    rows = rows_for(name, 6, width)
    batch = objective.corrupt(rows, V, keyed(rows))
    for field, array in arrays(batch).items():
        assert array.dtype == (np.int64 if field == "example_ids" else np.int32), field
        assert array.flags.c_contiguous, field
    assert batch.input_ids.shape == (6, variant.length)
    if variant.decoder_length:
        assert batch.decoder_labels.shape == batch.decoder_input_ids.shape == (6, variant.decoder_length)
    else:
        assert batch.labels.shape == batch.input_ids.shape
        assert batch.decoder_input_ids is None
    assert variant.length <= 40
    assert (batch.example_ids == rows.example_ids).all()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_counts_are_the_labelled_positions(name, options):
    rows, objective = rows_for(name), build(name, options)
    batch = objective.corrupt(rows, V, keyed(rows))
    assert objective.counts(batch) == {"lm": int((batch.targets != IGNORE).sum())}


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_objectives_describe_themselves(name):
    cls = OBJECTIVES[name]
    assert cls.name == name
    assert "https://" in cls.paper
    assert cls.learns.endswith(".")
    assert set(cls.parse({}).suits()) <= set(cls.architectures)
    assert all(field.description for field in cls.model_fields.values())
