"""The loader: a pure function of the place in training, whatever the number of workers."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from tests.unit.data.small_splits import AFrame, AVariant, split_of

from pretextlm.batch import Batch
from pretextlm.data.loader import Loader
from pretextlm.data.rows import StreamReader


def noisy(rows, rng):
    return Batch(
        input_ids=rows.matrix(rows.tokens), labels=rng.integers(1, rows.width, 1000), example_ids=rows.example_ids
    )


def reader():
    return StreamReader(split_of([list(range(i, i + 37)) for i in range(20)]), AFrame(end=999), AVariant(16))


def same(a: Batch, b: Batch) -> bool:
    return np.array_equal(a.input_ids, b.input_ids) and np.array_equal(a.labels, b.labels)


def test_batches_are_the_same_for_any_number_of_workers():
    expected = [Loader(reader(), noisy, 3, 8).batch(i * 8, 8) for i in range(20)]
    for workers in (1, 2, 5):
        with Loader(reader(), noisy, 3, 8, workers) as loader:
            assert all(map(same, expected, itertools.islice(loader.batches(0), 20)))


def test_a_batch_is_the_sum_of_smaller_batches_and_resumes_anywhere():
    loader = Loader(reader(), noisy, 3, 8)
    whole = loader.batch(40, 16)
    halves = [loader.batch(40, 8), loader.batch(48, 8)]
    assert np.array_equal(whole.labels, np.concatenate([half.labels for half in halves]))
    with loader:
        assert same(next(loader.batches(40, 16)), whole)


def test_an_exception_of_a_worker_reaches_the_consumer():
    def fails(rows, rng):
        raise ZeroDivisionError("in a worker")

    with Loader(reader(), fails, 3, 8, workers=2) as loader, pytest.raises(ZeroDivisionError, match="in a worker"):
        next(loader.batches(0))


def test_the_queue_is_bounded_and_closing_ends_the_threads():
    done = []
    loader = Loader(reader(), lambda rows, rng: done.append(1) or noisy(rows, rng), 3, 8, workers=2)
    batches = loader.batches(0)
    for _ in range(5):
        next(batches)
    loader.close()
    assert len(done) <= 5 + 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
