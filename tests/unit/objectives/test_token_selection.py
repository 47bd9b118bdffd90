"""Spans, n-grams and random order: exact counts, the published rules, and equal to the loops that they replace.

Draws are fixed by their seed; a test with a p-value would fail by chance once in ten thousand seeds.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, selected, take, text, vocabulary

from pretextlm.counter_rng import CounterRNG
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.token_selection import (
    TURNS,
    RandomOrder,
    run_lengths,
    select_ngrams,
    select_spans,
    selection_counts,
)
from pretextlm.objectives.shared.whole_words import Words

V = vocabulary()
POSSIBLE = 1e-4


def collate(rows, **options):
    return build("masked", options).collate(rows, V, keyed(rows))


def rows_with_padding(count, width, seed):
    """Framed rows of words of several tokens, the last of which end in padding or are nothing else."""
    rows = framed(count, width, V, seed)
    tokens, segments = rows.matrix(rows.tokens).copy(), rows.matrix(rows.segment_ids).copy()
    starts = rows.matrix(rows.word_starts).copy()
    for row, kept in ((count - 1, 0), (count - 2, width // 3)):
        tokens[row, kept:], segments[row, kept:], starts[row, kept:] = V.pad, -1, False
    return rows_of(tokens, starts, segments)


def words_of(rows, special):
    """[(first, stop, document)] of each row's words, by a loop."""
    width, out = rows.width, []
    starts, documents = rows.matrix(rows.word_starts), rows.matrix(rows.segment_ids)
    for row in range(len(rows)):
        words = []
        for t in range(width):
            if special[row, t]:
                continue
            opens = t == 0 or special[row, t - 1] or documents[row, t] != documents[row, t - 1] or starts[row, t]
            if opens:
                words.append([t, t, documents[row, t]])
            words[-1][1] = t + 1
        out.append(words)
    return out


def outcome(chance, weights):
    """Which of the weighted outcomes 32 random bits stand for."""
    limits = np.rint(np.cumsum(weights)[:-1] / np.sum(weights) * 2.0**32)
    return sum(float(chance) >= limit for limit in limits)


def follow(words, first, count):
    """The words that begin with number `first`: at most `count` without a gap inside one document."""
    taken = [words[first]]
    for word in words[first + 1 : first + count]:
        if word[0] != taken[-1][1] or word[2] != taken[-1][2]:
            break
        taken.append(word)
    return taken


def spans_by_loop(words, barred, wanted, longest, stop, rng):
    """SpanBERT's loop for one row: (column, bits) drawn in turns until enough is taken."""
    random_order, taken = RandomOrder(rng.fork(TURNS), np.array([len(barred)])), set()
    while len(taken) < wanted:
        (column,), (chance,) = random_order.next(np.array([0]))
        if barred[column] or column in taken:
            continue
        length = 1 + outcome(chance, [(1 - stop) ** n for n in range(longest)])
        first = max(i for i, word in enumerate(words) if word[0] <= column)
        for begin, end, _ in follow(words, first, length):
            for place in range(begin, end):
                if len(taken) < wanted:
                    taken.add(place)
    return sorted(taken)


def ngrams_by_loop(words, wanted, longest, rng):
    """The loop over n-grams for one row: each in turn, shortened until it fits."""
    random_order, taken, held, total = RandomOrder(rng.fork(TURNS), np.array([len(words)])), set(), [], 0
    order = []
    for _ in words:
        (number,), (chance,) = random_order.next(np.array([0]))
        order.append(number)
        length = 1 + outcome(chance, [1 / n for n in range(1, longest + 1)])
        for count in range(length, 0, -1):
            run = follow(words, number, count)
            size = sum(stop - first for first, stop, _ in run)
            if total + size <= wanted and not {w[0] for w in run} & taken:
                taken |= {w[0] for w in run}
                total += size
                held.append((run[0][0], run[-1][1]))
                break
    if wanted and words and not held:
        held = [tuple(words[order[0]][:2])]
    return sorted(held)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.15, 0.4, 1.0]), st.integers(1, 12), st.floats(0.05, 0.9))
def test_spans_in_turns_equal_the_loop_over_spans(seed, rate, longest, stop):
    rows = rows_with_padding(6, 30, seed)
    special = V.is_special[rows.matrix(rows.tokens)]
    rng = keyed(rows, seed)
    wanted = selection_counts(special, rate, rng)
    got = select_spans(rows, Words.of(rows, special), special, wanted, longest, stop, rng)
    expected = []
    for row, words in enumerate(words_of(rows, special)):
        alone = CounterRNG(rng.keys[row : row + 1])
        expected += [row * 30 + t for t in spans_by_loop(words, special[row], wanted[row], longest, stop, alone)]
    assert got.places.tolist() == expected
    assert got.counts.tolist() == wanted.tolist()
    assert got.units.tolist() == run_lengths(got.places, rows).tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.15, 0.4, 1.0]), st.integers(1, 6))
def test_ngrams_in_turns_equal_the_loop_over_ngrams(seed, rate, longest):
    rows = rows_with_padding(6, 30, seed)
    special = V.is_special[rows.matrix(rows.tokens)]
    rng = keyed(rows, seed)
    wanted = selection_counts(special, rate, rng)
    got = select_ngrams(rows, Words.of(rows, special), wanted, longest, rng)
    held = [
        (row, first, stop)
        for row, words in enumerate(words_of(rows, special))
        for first, stop in ngrams_by_loop(words, wanted[row], longest, CounterRNG(rng.keys[row : row + 1]))
    ]
    assert got.places.tolist() == [row * 30 + t for row, first, stop in held for t in range(first, stop)]
    assert got.units.tolist() == [stop - first for _, first, stop in held]
    assert got.counts.tolist() == np.bincount(got.places // 30, minlength=6).tolist()


def test_lots_are_permutations_and_every_one_is_equally_likely():
    sizes = np.full(24_000, 4)
    random_order = RandomOrder(CounterRNG.of(3, 0, np.arange(24_000)), sizes)
    drawn = np.stack([random_order.next(np.arange(24_000))[0] for _ in range(4)], axis=1)
    codes = {p: i for i, p in enumerate(permutations(range(4)))}
    counts = np.bincount([codes[tuple(row)] for row in drawn.tolist()], minlength=24)
    assert stats.chisquare(counts).pvalue > POSSIBLE


def test_a_row_draws_the_same_order_alone_and_among_rows_that_drop_out():
    keys = CounterRNG.of(5, 0, np.arange(3))
    random_order = RandomOrder(keys, np.array([100, 7, 70]))
    active, together = np.arange(3), {0: [], 1: [], 2: []}
    while len(active):
        numbers, bits = random_order.next(active)
        for row, number, chance in zip(active.tolist(), numbers.tolist(), bits.tolist(), strict=True):
            together[row].append((number, chance))
        active = active[random_order.turn < random_order.sizes[active]]
    for row, size in enumerate([100, 7, 70]):
        alone = RandomOrder(CounterRNG(keys.keys[row : row + 1]), np.array([size]))
        drawn = [tuple(int(x[0]) for x in alone.next(np.array([0]))) for _ in range(size)]
        assert drawn == together[row]
        assert sorted(number for number, _ in drawn) == list(range(size))


@pytest.mark.parametrize("rate", [0.001, 0.15, 0.5, 1.0])
def test_spans_meet_the_count_to_the_token(rate):
    rows = framed(200, 70, V)
    by_span = selected(collate(rows, unit="span", rate=rate)).sum(axis=1)
    by_token = selected(collate(rows, rate=rate)).sum(axis=1)
    assert (by_span == by_token).all()


@pytest.mark.parametrize("rate", [0.001, 0.15, 0.5, 1.0])
def test_ngrams_are_whole_words_and_never_over_the_count_unless_one_word_is(rate):
    rows = framed(200, 70, V)
    special = V.is_special[rows.matrix(rows.tokens)]
    chosen = selected(collate(rows, unit="ngram", rate=rate))
    wanted = selection_counts(special, rate, keyed(rows))
    for row, words in enumerate(words_of(rows, special)):
        held = [chosen[row, first:stop] for first, stop, _ in words]
        assert all(word.all() or not word.any() for word in held)
        assert chosen[row].sum() <= wanted[row] or sum(word.any() for word in held) == 1
    assert not chosen[special].any()
    if rate == 1.0:
        assert (chosen == ~special).all()


def tally(selection, width, with_units=False):
    """How often each set of columns (and cut into units) was selected."""
    bounds = np.cumsum(selection.counts)[:-1]
    columns = [tuple(row.tolist()) for row in np.split(selection.places % width, bounds)]
    if not with_units:
        return Counter(columns)
    rows = np.split(selection.places // width, np.cumsum(selection.units)[:-1])
    units: dict[int, tuple[int, ...]] = {}
    for unit in rows:
        units[int(unit[0])] = (*units.get(int(unit[0]), ()), len(unit))
    return Counter((row, units[i]) for i, row in enumerate(columns))


def agrees(found, expected):
    """Chi-squared test of the tally against probabilities; nothing else may occur."""
    assert set(found) == set(expected)
    total = sum(found.values())
    return stats.chisquare([found[k] for k in expected], [p * total for p in expected.values()]).pvalue > POSSIBLE


def test_spans_have_the_probabilities_of_the_published_loop():
    """Two of three tokens by spans of one or two words, 1 : 0.8, worked out by hand over first and second anchor."""
    rows = rows_of(text(30_000, 3, V))
    none = np.zeros((30_000, 3), bool)
    got = select_spans(rows, Words.of(rows, none), none, np.full(30_000, 2), 2, 0.2, keyed(rows))
    one, two = 1 / 1.8, 0.8 / 1.8
    expected = {(0, 1): 1 / 3, (1, 2): (two + one / 2 + 1 / 2) / 3, (0, 2): (one / 2 + 1 / 2) / 3}
    assert agrees(tally(got, 3), expected)


def test_ngrams_have_the_probabilities_of_the_published_loop():
    """Two of three words by n-grams of one or two, 1 : 1/2, worked out by hand over first and second word."""
    rows = rows_of(text(30_000, 3, V))
    words = Words.of(rows, np.zeros((30_000, 3), bool))
    got = select_ngrams(rows, words, np.full(30_000, 2), 2, keyed(rows))
    expected = {
        ((0, 1), (2,)): 1 / 9,
        ((1, 2), (2,)): 1 / 9,
        ((0, 1), (1, 1)): 2 / 9,
        ((1, 2), (1, 1)): 5 / 18,
        ((0, 2), (1, 1)): 5 / 18,
    }
    assert agrees(tally(got, 3, with_units=True), expected)


def test_spans_have_3_8_words_on_average_before_they_are_cut():
    """The first span of each row, read from its draw; the number of words has no other source."""
    rows = rows_of(text(20_000, 200, V))
    none = np.zeros((20_000, 200), bool)
    words = Words.of(rows, none)
    (column, _), wanted = (
        RandomOrder(keyed(rows).fork(TURNS), np.full(20_000, 200)).next(np.arange(20_000)),
        np.full(20_000, 10),
    )
    got = select_spans(rows, words, none, wanted, 10, 0.2, keyed(rows))
    hidden = np.isin(np.arange(20_000 * 200), got.places).reshape(20_000, 200)
    kept = np.flatnonzero(column <= 190)
    run = np.array([np.argmin(np.append(hidden[row, column[row] :], False)) for row in kept])
    # a run of ten is a span of ten, or shorter spans that touch by chance: nearly none in so long a row
    weights = 0.8 ** np.arange(10)
    assert abs((weights * np.arange(1, 11)).sum() / weights.sum() - 3.8) < 0.01
    assert abs(run.mean() - 3.8) < 0.1
    assert abs((run == 10).mean() - weights[9] / weights.sum()) < 0.01


def test_the_first_anchor_of_a_span_is_uniform_over_tokens_so_that_long_words_are_chosen_more_often():
    starts = np.zeros((30_000, 8), bool)
    starts[:, [0, 1, 4]] = True  # words of 1, 3 and 4 tokens
    rows = rows_of(text(30_000, 8, V), starts)
    words = Words.of(rows, np.zeros((30_000, 8), bool))
    got = select_spans(rows, words, np.zeros((30_000, 8), bool), np.ones(30_000, np.int64), 1, 0.2, keyed(rows))
    counts = np.bincount(got.places % 8, minlength=8)  # the span is cut after one token, the word's first
    assert counts[[2, 3, 5, 6, 7]].sum() == 0
    assert stats.chisquare(counts[[0, 1, 4]], np.array([1, 3, 4]) / 8 * 30_000).pvalue > POSSIBLE


def test_spans_do_not_cross_documents_and_touch_without_becoming_one():
    segments = np.repeat([[0] * 5 + [1] * 5], 2000, axis=0)  # no special token between the two
    rows = rows_of(text(2000, 10, V), segments=segments)
    places = np.flatnonzero(selected(collate(rows, unit="span", rate=1.0)))
    assert run_lengths(places, rows).tolist() == [5, 5] * 2000
    words = Words.of(rows, np.zeros((2000, 10), bool))
    got = select_ngrams(rows, words, np.full(2000, 3), 3, keyed(rows))
    threes = got.places[(np.cumsum(got.units) - got.units)[got.units == 3]] % 10
    assert set(threes.tolist()) == {0, 1, 2, 5, 6, 7}


@pytest.mark.parametrize("unit", ["ngram", "span"])
def test_a_row_selects_the_same_alone_or_in_any_batch(unit):
    rows = framed(30, 60, V)
    whole = collate(rows, unit=unit, rate=0.3)
    for which in (np.array([7]), np.arange(30)[::-1].copy(), np.array([3, 17, 4])):
        some = collate(take(rows, which), unit=unit, rate=0.3)
        assert (some.input_ids == whole.input_ids[which]).all()
        assert (some.labels == whole.labels[which]).all()


@pytest.mark.parametrize("unit", ["token", "word", "ngram", "span"])
def test_rows_without_an_ordinary_token_have_no_target(unit):
    rows = rows_of(
        np.array([[V.cls, V.sep, V.sep], [V.cls, 30, V.sep], [V.pad] * 3]), segments=[[0] * 3] * 2 + [[-1] * 3]
    )
    chosen = selected(collate(rows, unit=unit, rate=1.0))
    assert chosen.tolist() == [[False] * 3, [False, True, False], [False] * 3]


def test_a_span_hides_every_position_of_a_row_but_its_edges_about_equally_often():
    """A span begins anywhere, so the first positions are reached from fewer sides than the middle."""
    chosen = selected(collate(rows_of(text(20_000, 60, V)), unit="span"))
    share = chosen.mean(axis=0)
    assert abs(share.mean() - 0.15) < 0.001
    assert (abs(share[12:48] / share[12:48].mean() - 1) < 0.05).all()
    assert (share[:3] < share[12:48].mean()).all()
