"""The loader: a pure function of the place in training, whatever the number of workers."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from tests.unit.data.small_splits import AFrame, AVariant, split_of

from pretextlm.batch import Batch
from pretextlm.data.loader import Loader
from pretextlm.data.mixture import Mixture


def noisy(rows, rng):
    return Batch(
        input_ids=rows.matrix(rows.tokens), labels=rng.integers(1, rows.width, 1000), example_ids=rows.example_ids
    )


def reader():
    return Mixture(split_of([list(range(i, i + 37)) for i in range(20)]), AFrame(end=999), [AVariant(16)])


def same(a: Batch, b: Batch) -> bool:
    return np.array_equal(a.input_ids, b.input_ids) and np.array_equal(a.labels, b.labels)


def test_steps_are_the_same_for_any_number_of_workers():
    expected = [Loader(reader(), noisy, 3).step(i * 8, 8, 8)[0] for i in range(20)]
    for workers in (1, 2, 5):
        with Loader(reader(), noisy, 3, workers) as loader:
            found = [step for (step,) in itertools.islice(loader.steps(0, 8, 8), 20)]
            assert all(map(same, expected, found))


def test_a_step_is_the_sum_of_smaller_batches_and_resumes_anywhere():
    loader = Loader(reader(), noisy, 3)
    (whole,) = loader.step(40, 16, 16)
    for cut in ([*loader.step(40, 8, 8), *loader.step(48, 8, 8)], loader.step(40, 16, 8), loader.step(40, 16, 5)):
        assert np.array_equal(whole.labels, np.concatenate([part.labels for part in cut]))
    with loader:
        assert same(next(loader.steps(40, 16, 16))[0], whole)


def test_copies_repeat_their_draws_and_progress_runs_from_nought_to_one():
    seen = []

    def record(rows, rng):
        seen.append((rows.progress, rng.keys))
        return noisy(rows, rng)

    variants = [AVariant(16, restart=True)]
    source = Mixture(split_of([list(range(i, i + 37)) for i in range(20)]), AFrame(end=999), variants)
    rows = source.rows_per_pass
    loader = Loader(source, record, 3, copies=2, total_rows=4 * rows)
    for epoch in range(4):
        loader.step(epoch * rows, rows, rows)
    keys = [set(k.tolist()) for _, k in seen]
    assert keys[0] == keys[2]
    assert keys[1] == keys[3]
    assert not keys[0] & keys[1]
    assert np.concatenate([progress for progress, _ in seen]).tolist() == [i / (4 * rows) for i in range(4 * rows)]


def test_an_exception_of_a_worker_reaches_the_consumer():
    def fails(rows, rng):
        raise ZeroDivisionError("in a worker")

    with Loader(reader(), fails, 3, workers=2) as loader, pytest.raises(ZeroDivisionError, match="in a worker"):
        next(loader.steps(0, 8, 8))


def test_the_queue_is_bounded_and_closing_ends_the_threads():
    done = []
    loader = Loader(reader(), lambda rows, rng: done.append(1) or noisy(rows, rng), 3, workers=2)
    steps = loader.steps(0, 8, 8)
    for _ in range(5):
        next(steps)
    loader.close()
    assert len(done) <= 5 + 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
