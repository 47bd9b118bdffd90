"""The keyed generator: equal draws for equal keys, and draws that statistics cannot tell from chance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from pretextlm.counter_rng import CounterRNG, mix, permute

POSSIBLE = 1e-4
"""A p-value below this fails: with fixed seeds, a sound generator passes always."""


def splitmix64(state: int) -> int:
    """One step in Python's own integers, from the published recurrence."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_mix_is_splitmix64_and_leaves_its_input_alone():
    states = np.array([0, 1, 42, 2**63, 2**64 - 1], dtype=np.uint64)
    before = states.copy()
    assert mix(states).tolist() == [splitmix64(int(s)) for s in states]
    assert (states == before).all()


def test_bits_follow_the_documented_recurrence_from_each_key():
    rng = CounterRNG.of(7, 3, np.array([5, 11]))
    for key, row in zip(rng.keys.tolist(), rng.bits(2, 6).tolist(), strict=True):
        base = splitmix64(key ^ splitmix64(2))
        assert row == [splitmix64((base + c * 0x9E3779B97F4A7C15) % 2**64) for c in range(6)]


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (3, 0), (1, 20_000), (5000, 3), (17, 511), (0, 4)])
def test_a_draw_does_not_depend_on_how_many_others_are_drawn_with_it(rows, n):
    ids = np.arange(rows)
    together = CounterRNG.of(1, 0, ids).bits(4, n)
    assert together.shape == (rows, n)
    assert (CounterRNG.of(1, 0, ids).bits(4, n + 5)[:, :n] == together).all()
    for row in range(0, rows, max(1, rows // 5)):
        assert (CounterRNG.of(1, 0, row).bits(4, n)[0] == together[row]).all()


def test_every_part_of_the_key_changes_the_draw():
    draws = {
        tuple(rng.bits(stream, 2)[0].tolist())
        for rng in [CounterRNG.of(s, e, i) for s in range(5) for e in range(5) for i in range(5)]
        + [CounterRNG.of(0, 0, i).fork(f) for i in range(5) for f in range(5)]
        for stream in range(5)
    }
    assert len(draws) == (125 + 25) * 5


def test_uniform_draws_fill_the_unit_interval_evenly():
    values = CounterRNG.of(3, 0, np.arange(2000)).uniform(0, 100)
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values.reshape(-1), "uniform").pvalue > POSSIBLE


@pytest.mark.parametrize("high", [1, 2, 3, 10, 1000])
def test_integers_are_uniform(high):
    values = CounterRNG.of(3, 1, np.arange(1000)).integers(0, 200, high)
    counts = np.bincount(values.reshape(-1), minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts).pvalue > POSSIBLE


def test_every_bit_is_set_half_the_time():
    words = CounterRNG.of(9, 0, np.arange(1000)).bits(0, 100).reshape(-1)
    ones = np.array([np.count_nonzero(words >> np.uint64(b) & np.uint64(1)) for b in range(64)])
    z = (ones - len(words) / 2) / np.sqrt(len(words) / 4)
    assert stats.chi2.sf((z**2).sum(), 64) > POSSIBLE


@pytest.mark.parametrize(
    "pair",
    [
        lambda: (
            CounterRNG.of(1, 0, np.arange(4000)).bits(0, 51)[:, :-1],
            CounterRNG.of(1, 0, np.arange(4000)).bits(0, 51)[:, 1:],
        ),
        lambda: (CounterRNG.of(1, 0, np.arange(4000)).bits(0, 50), CounterRNG.of(1, 0, np.arange(1, 4001)).bits(0, 50)),
        lambda: (CounterRNG.of(1, 0, np.arange(4000)).bits(0, 50), CounterRNG.of(1, 0, np.arange(4000)).bits(1, 50)),
        lambda: (CounterRNG.of(1, 0, np.arange(4000)).bits(0, 50), CounterRNG.of(1, 1, np.arange(4000)).bits(0, 50)),
        lambda: (CounterRNG.of(1, 0, np.arange(4000)).bits(0, 50), CounterRNG.of(2, 0, np.arange(4000)).bits(0, 50)),
        lambda: (CounterRNG.of(1, 5, np.arange(4000)).bits(0, 50), CounterRNG.of(5, 1, np.arange(4000)).bits(0, 50)),
    ],
    ids=["next counter", "next example", "next stream", "next epoch", "next seed", "seed and epoch swapped"],
)
@pytest.mark.parametrize("shift", [60, 0], ids=["high bits", "low bits"])
def test_neighbouring_draws_are_independent(pair, shift):
    first, second = (((a >> np.uint64(shift)) & np.uint64(15)).astype(int).reshape(-1) for a in pair())
    table = np.bincount(first * 16 + second, minlength=256)
    assert stats.chisquare(table).pvalue > POSSIBLE


def test_an_order_of_all_columns_is_each_permutation_equally_often():
    orders = CounterRNG.of(5, 0, np.arange(48_000)).order(0, 4, 4)
    codes = orders @ np.array([1000, 100, 10, 1])
    counts = [np.count_nonzero(codes == int("".join(map(str, p)))) for p in permutations(range(4))]
    assert sum(counts) == 48_000
    assert stats.chisquare(counts).pvalue > POSSIBLE


@pytest.mark.parametrize("n", [1, 2, 99, 100, 4096, 4097, 5001])
def test_the_first_columns_of_an_order_are_the_same_however_many_are_asked_for(n):
    rng = CounterRNG.of(5, 0, np.arange(50))
    whole = rng.order(0, n, n)
    assert (np.sort(whole, axis=1) == np.arange(n)).all()
    for k in {0, 1, n // 2 - 1, n // 2, n // 2 + 1, n - 1} & set(range(n)):
        assert (rng.order(0, n, k) == whole[:, :k]).all()
    for row in (0, 31, 49):
        assert (CounterRNG.of(5, 0, row).order(0, n, n)[0] == whole[row]).all()


def test_the_last_columns_of_a_long_order_are_chosen_as_often_as_the_first():
    chosen = CounterRNG.of(8, 0, np.arange(3000)).order(0, 4096, 400)
    assert stats.chisquare(np.bincount(chosen.reshape(-1) // 128, minlength=32)).pvalue > POSSIBLE


def test_excluded_columns_come_after_all_others():
    exclude = np.random.default_rng(0).random((200, 30)) < 0.5
    order = CounterRNG.of(5, 0, np.arange(200)).order(0, 30, 30, exclude=exclude)
    ranked = np.take_along_axis(exclude, order, axis=1)
    assert (np.diff(ranked.astype(int), axis=1) >= 0).all()
    assert (np.sort(order, axis=1) == np.arange(30)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100, 255, 256, 257, 1000, 4096, 65_537])
@pytest.mark.parametrize("epoch", [0, 1, 12])
def test_permute_is_a_bijection(size, epoch):
    image = permute(np.arange(size), size, seed=3, epoch=epoch)
    assert (np.sort(image) == np.arange(size)).all()


def test_permute_needs_no_neighbours_and_leaves_its_input_alone():
    indices = np.array([999, 0, 500, 999])
    image = permute(indices, 1000, 1, 2)
    assert indices.tolist() == [999, 0, 500, 999]
    assert (image == permute(np.arange(1000), 1000, 1, 2)[indices]).all()


def test_permutations_of_large_sets_look_random():
    size = 20_000
    images = [permute(np.arange(size), size, seed, 0) for seed in range(20)]
    fixed = sum(np.count_nonzero(image == np.arange(size)) for image in images)
    assert stats.poisson.cdf(fixed, 20) > POSSIBLE
    assert stats.poisson.sf(fixed - 1, 20) > POSSIBLE
    blocks = np.stack([image.reshape(20, -1) * 20 // size for image in images])
    table = sum(np.bincount(np.repeat(np.arange(20), size // 20) * 20 + b.reshape(-1), minlength=400) for b in blocks)
    assert stats.chi2.sf(((table - 1000) ** 2 / 1000).sum(), 19 * 19) > POSSIBLE
    steps = np.diff(images[0]) % size
    assert stats.chisquare(np.bincount(steps * 20 // size, minlength=20)).pvalue > POSSIBLE


def test_the_epoch_and_the_seed_change_the_permutation():
    kinds = {tuple(permute(np.arange(50), 50, seed, epoch).tolist()) for seed in range(6) for epoch in range(6)}
    assert len(kinds) == 36
