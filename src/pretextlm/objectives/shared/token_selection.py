"""Which tokens of a row are hidden: so many tokens, whole words, n-grams of words or longer spans, at random places.

    tokens    [CLS] 나는 오늘 라면 ##을 먹 ##었다 . [SEP]     four to hide
    token             ✓        ✓         ✓    ✓
    word                  ✓   ✓    ✓             ✓
    span                  ✓   ✓    ✓   ✓                     오늘 라면을 먹었다, cut where four are reached

Spans are drawn one after another, since each must know what is taken. Here they are drawn in turns: all rows draw their
next span together, and a row that has enough drops out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.shared.whole_words import Words, expand, greedy

COUNT, ORDER, REPLACE, TURNS = range(4)
"""Streams of random numbers: how many, which, what stands there instead, and spans drawn in turns."""

DRAWS = 32
"""Turns for which random numbers are made at a time."""

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Selection:
    """Selected tokens of a batch of rows.

    Attributes:
        places: (M,) their flat places, row by row.
        counts: (B,) how many each row has.
        units: (U,) tokens of each word or span, in the order of `places`; None where every token is one.
    """

    places: I64
    counts: I64
    units: NDArray[np.int64] | None = None


def budget(barred: NDArray[np.bool_], rates: float | NDArray[np.float64], rng: CounterRNG) -> I64:
    """(B,) how many of a row's n tokens to select: ⌊rate · n + U[0, 1)⌋, so that the mean rate is exact; one at least.

    Args:
        barred: (B, T) tokens that may not be selected: n counts the others.
        rates: one for all rows, or (B,).
    """
    free = barred.shape[1] - np.count_nonzero(barred, axis=1)
    wanted = np.floor(rates * free + rng.uniform(COUNT, 1)[:, 0]).astype(np.int64)
    counts: I64 = np.minimum(np.maximum(wanted, 1), free)
    return counts


def select_tokens(barred: NDArray[np.bool_], wanted: I64, rng: CounterRNG) -> Selection:
    """`wanted` (B,) tokens of each row, every set of them equally likely."""
    width = barred.shape[1]
    columns = rng.order(ORDER, width, int(wanted.max(initial=0)), exclude=barred)
    columns += (np.arange(len(barred)) * width)[:, None]
    return Selection(np.compress(first_columns(wanted).reshape(-1), columns), wanted)


def select_words(some: Words, wanted: I64, rng: CounterRNG) -> Selection:
    """Whole words in random order; one that would go over `wanted` is passed over, unless none fits (see `greedy`)."""
    rows, width = some.begins.shape
    most = int(np.count_nonzero(some.begins, axis=1).max(initial=0))
    order = rng.order(ORDER, width, most, exclude=~some.begins)
    order += (np.arange(rows) * width)[:, None]
    lengths = some.lengths.take(order)
    taken = greedy(lengths, wanted).reshape(-1)
    return _whole(np.compress(taken, order), np.compress(taken, lengths), rows, width)


def toss_tokens(barred: NDArray[np.bool_], rates: float | NDArray[np.float64], rng: CounterRNG) -> Selection:
    """Each token by itself, with probability `rates`."""
    chosen = _toss(rng, barred.shape[1], rates) & ~barred
    return Selection(np.flatnonzero(chosen), np.count_nonzero(chosen, axis=1))


def toss_words(some: Words, rates: float | NDArray[np.float64], rng: CounterRNG) -> Selection:
    """Each word by itself, with probability `rates`."""
    rows, width = some.begins.shape
    chosen = np.flatnonzero(_toss(rng, width, rates) & some.begins)
    return _whole(chosen, some.lengths.take(chosen), rows, width)


def select_ngrams(rows: Rows, some: Words, wanted: I64, longest: int, rng: CounterRNG) -> Selection:
    """One to `longest` words in a row, n with probability ∝ 1/n, beginning at words in random order.

    An n-gram that would go over what is left of `wanted`, into a word already taken or out of its document is shortened
    until it does not. ALBERT's rule is the same, but passes over what runs into a taken word; so at high rates it would
    fall short of the count. Where no word fits at all, one is taken all the same.
    """
    runs = _Runs.of(rows, some)
    per_row = np.count_nonzero(some.begins, axis=1)
    base = np.cumsum(per_row) - per_row
    shares = _thresholds(1.0 / np.arange(1, longest + 1))
    steps = np.arange(longest)[:, None]
    taken = np.zeros(len(runs.first), dtype=bool)
    opens = np.zeros(len(runs.first), dtype=bool)
    left = wanted.copy()
    shortest, drawn_first = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    has_words = np.flatnonzero(per_row)
    if len(has_words):
        shortest[has_words] = np.minimum.reduceat(runs.stop - runs.first, base[has_words])
    lots = Lots(rng.fork(TURNS), per_row)
    active = np.flatnonzero((left > 0) & (per_row > 0))
    while len(active):
        number, chance = lots.draw(active)
        word = base[active] + number
        if lots.turn == 1:
            drawn_first[active] = word
        run = np.minimum(word + steps, runs.last.take(word))
        sizes = runs.stop.take(run) - runs.first.take(word)
        n = np.minimum(1 + np.searchsorted(shares, chance, side="right"), (sizes <= left[active]).sum(axis=0))
        n = np.minimum(n, np.where(taken.take(run), steps, longest).min(axis=0))
        n = np.minimum(n, runs.last.take(word) - word + 1)
        some_fit = np.flatnonzero(n)
        n, word = n[some_fit], word[some_fit]
        left[active[some_fit]] -= sizes[n - 1, some_fit]
        opens[word] = True
        taken[np.repeat(word - np.cumsum(n) + n, n) + np.arange(int(n.sum()))] = True
        active = active[(left[active] >= shortest[active]) & (lots.turn < per_row[active])]
    alone = drawn_first[(wanted > 0) & (left == wanted)]
    taken[alone] = opens[alone] = True
    held = np.flatnonzero(taken)
    lengths = (runs.stop - runs.first)[held]
    places, counts = expand(runs.first[held], lengths, len(rows), rows.width)
    units = np.add.reduceat(lengths, np.flatnonzero(opens[held])) if len(held) else lengths
    return Selection(places, counts, units)


def select_spans(
    rows: Rows, some: Words, barred: NDArray[np.bool_], wanted: I64, longest: int, stop: float, rng: CounterRNG
) -> Selection:
    """Spans of one to `longest` words, their number geometric: P(n) ∝ (1 - stop)ⁿ⁻¹; together `wanted` tokens exactly.

    SpanBERT's rule: a span begins with the word that holds a token drawn from those not yet taken, all equally likely,
    ends with its document at the latest, may run into spans drawn before (what is taken counts once), and the last is
    cut where `wanted` is reached, be it inside a word. Spans that touch are one unit.
    """
    width = rows.width
    runs = _Runs.of(rows, some)
    word_at = np.cumsum(some.begins.reshape(-1), dtype=np.int32) - 1
    shares = _thresholds((1 - stop) ** np.arange(longest))
    taken = barred.flatten()
    left = wanted.copy()
    lots = Lots(rng.fork(TURNS), np.full(len(rows), width))
    active = np.flatnonzero(left > 0)
    while len(active):
        column, chance = lots.draw(active)
        anchor = active * width + column
        free = np.flatnonzero(~taken.take(anchor))
        row = active[free]
        word = word_at.take(anchor[free])
        n = np.searchsorted(shares, chance[free], side="right")
        begin = runs.first.take(word)
        size = runs.stop.take(np.minimum(word + n, runs.last.take(word))) - begin
        before = np.cumsum(size) - size
        places = np.arange(int(size.sum())) + np.repeat(begin - before, size)
        fresh = np.flatnonzero(~taken.take(places))
        of_span = np.searchsorted(before, fresh, side="right") - 1
        gained = np.bincount(of_span, minlength=len(row))
        nth = np.arange(len(fresh)) - np.repeat(np.cumsum(gained) - gained, gained)
        taken[places[fresh[nth < left[row[of_span]]]]] = True
        left[row] -= np.minimum(gained, left[row])
        active = active[left[active] > 0]
    taken[barred.reshape(-1)] = False
    held = np.flatnonzero(taken)
    return Selection(held, wanted, run_lengths(held, rows))


def run_lengths(places: I64, rows: Rows) -> I64:
    """Lengths of the runs of neighbours among ascending flat places; a run ends with its document and its row."""
    opens = np.diff(places, prepend=-2) != 1
    opens |= rows.position_ids.take(places) == 0
    return np.diff(np.flatnonzero(opens), append=len(places))


class Lots:
    """The numbers 0 … sizes[b]-1 of each row in random order, drawn in turns and only as far as they are asked for.

    Attributes:
        turn: draws made so far.
    """

    def __init__(self, rng: CounterRNG, sizes: I64) -> None:
        self.rng, self.sizes, self.turn = rng, sizes, 0
        self._most = int(sizes.max(initial=0))
        self._numbers = np.tile(np.arange(self._most, dtype=np.int32), len(sizes))
        self._bits = np.empty(0, dtype=np.uint64)
        self._at = np.zeros(len(sizes), dtype=np.int64)

    def draw(self, rows: I64) -> tuple[I64, U64]:
        """(next number, 32 further random bits) of each of `rows` (R,), which have drawn in every turn and have more.

        Fisher and Yates' shuffle, as far as it has come: a number is swapped with the first that is not yet drawn.
        """
        chunk, step = divmod(self.turn, DRAWS)
        if not step:
            self._bits = CounterRNG(self.rng.keys[rows]).bits(chunk, DRAWS).reshape(-1)
            self._at[rows] = np.arange(len(rows)) * DRAWS
        words = self._bits.take(self._at.take(rows) + step)
        room = (self.sizes.take(rows) - self.turn).astype(np.uint64)
        base = rows * self._most + self.turn
        at = base + ((words >> np.uint64(32)) * room >> np.uint64(32)).astype(np.int64)
        numbers = self._numbers.take(at)
        self._numbers[at] = self._numbers.take(base)
        self.turn += 1
        return numbers.astype(np.int64), words & np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class _Runs:
    """All words of a batch, one after another. Arrays are (W,).

    Attributes:
        first, stop: flat place of a word's first token, and after its last.
        last: number of the last word that follows on this one without a gap, in the same document.
    """

    first: I64
    stop: I64
    last: I64

    @classmethod
    def of(cls, rows: Rows, some: Words) -> _Runs:
        first = np.flatnonzero(some.begins)
        stop = first + some.lengths.take(first)
        ends = np.ones(len(first), dtype=bool)
        ends[:-1] = (stop[:-1] != first[1:]) | (rows.position_ids.take(first[1:]) == 0)
        last = np.flatnonzero(ends)
        return cls(first, stop, np.repeat(last, np.diff(last, prepend=-1)))


def replacements(
    originals: NDArray[np.int32],
    draws: U64,
    mask_share: float,
    random_share: float,
    vocabulary: Vocabulary,
    chance: U64 | None = None,
) -> NDArray[np.int32]:
    """What stands in the input at selected places (M,): [MASK], a random ordinary token, or what stood there.

    Args:
        draws: (M,) one 64-bit draw for each place, its halves used apart.
        chance: (M,) 32 random bits that say which of the three, where not each place decides for itself.
    """
    chance = draws >> np.uint64(32) if chance is None else chance
    masked = chance < np.uint64(round(mask_share * 2**32))
    replaced = chance < np.uint64(round(min(mask_share + random_share, 1) * 2**32))
    values = np.where(masked, np.int32(vocabulary.mask), originals)
    random = np.flatnonzero(replaced & ~masked)
    choice = (draws[random] & np.uint64(0xFFFFFFFF)) * np.uint64(len(vocabulary.ordinary)) >> np.uint64(32)
    values[random] = vocabulary.ordinary.take(choice.astype(np.int64))
    return values


def first_columns(counts: I64) -> NDArray[np.bool_]:
    """(B, max) True in the first counts[b] columns of row b."""
    return np.arange(int(counts.max(initial=0))) < counts[:, None]


def _whole(first: I64, lengths: NDArray[np.int32], rows: int, width: int) -> Selection:
    places, counts = expand(first, lengths, rows, width)
    return Selection(places, counts, lengths.astype(np.int64))


def _toss(rng: CounterRNG, width: int, rates: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """(B, width) a coin for each position that shows True with the row's rate."""
    limits = np.rint(np.asarray(rates) * 2.0**53).astype(np.uint64)
    shown: NDArray[np.bool_] = (rng.bits(ORDER, width) >> np.uint64(11)) < limits.reshape(-1, 1)
    return shown


def _thresholds(weights: NDArray[np.floating]) -> U64:
    """Where 32 random bits pass from one outcome to the next; an outcome is how many thresholds they reach."""
    limits: U64 = np.rint(np.cumsum(weights)[:-1] / weights.sum() * 2.0**32).astype(np.uint64)
    return limits
