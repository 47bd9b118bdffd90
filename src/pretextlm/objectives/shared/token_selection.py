"""Selection of the tokens of a row that are hidden: single tokens, words, n-grams of words, or longer spans.

    tokens    [CLS] 나는 오늘 라면 ##을 먹 ##었다 . [SEP]     four to select
    token             ✓        ✓         ✓    ✓
    word                  ✓   ✓    ✓             ✓
    span                  ✓   ✓    ✓   ✓                     오늘 라면을 먹었다, cut where four are reached

Spans are chosen one after another, since each must know what is selected already. They are chosen in turns: all rows
choose their next span together, in one set of array operations, and a row that has enough leaves the loop.

"Flat position" means an index into the (B, T) matrix read row by row: row b, column t has the flat position b · T + t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.shared.whole_words import Words, expand, take_words

COUNT, ORDER, REPLACE, TURNS = range(4)
"""Streams of random numbers: how many tokens, which ones, their replacements, and spans chosen in turns."""

WORDS_AT_A_TIME = 32
"""Turns for which random numbers are generated at a time."""

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Selection:
    """Selected tokens of a batch of rows.

    Attributes:
        places: (M,) their flat positions, row by row.
        counts: (B,) number of them in each row.
        units: (U,) tokens of each word or span, in the order of `places`; None where every token is a unit.
    """

    places: I64
    counts: I64
    units: NDArray[np.int64] | None = None


def selection_counts(excluded: NDArray[np.bool_], rates: float | NDArray[np.float64], rng: CounterRNG) -> I64:
    """Returns (B,) how many of a row's n tokens to select: ⌊rate · n + U[0, 1)⌋, at least one.

    The random number makes the mean rate exact. For n = 10 and a rate of 0.15, rate · n = 1.5: the sum reaches 2 for
    half of the numbers in [0, 1) and stays below it for the other half, so a row has 1.5 on average.

    Args:
        excluded: (B, T) tokens that may not be selected: n counts the others.
        rates: one for all rows, or (B,).
        rng: one stream per row.
    """
    free = excluded.shape[1] - np.count_nonzero(excluded, axis=1)
    rounded = np.floor(rates * free + rng.uniform(COUNT, 1)[:, 0]).astype(np.int64)
    counts: I64 = np.minimum(np.maximum(rounded, 1), free)
    return counts


def select_tokens(excluded: NDArray[np.bool_], counts: I64, rng: CounterRNG) -> Selection:
    """Selects `counts` (B,) tokens of each row, every set of them with equal probability."""
    width = excluded.shape[1]
    # Columns of each row in random order, the excluded last; a row takes the first counts[b] of them.
    columns = rng.order(ORDER, width, int(counts.max(initial=0)), exclude=excluded)
    columns += (np.arange(len(excluded)) * width)[:, None]
    return Selection(np.compress(first_columns(counts).reshape(-1), columns), counts)


def select_words(words: Words, counts: I64, rng: CounterRNG) -> Selection:
    """Selects words in random order, each unless it would exceed `counts` (B,) tokens (see `take_words`)."""
    rows, width = words.begins.shape
    most = int(np.count_nonzero(words.begins, axis=1).max(initial=0))
    order = rng.order(ORDER, width, most, exclude=~words.begins)
    order += (np.arange(rows) * width)[:, None]
    lengths = words.lengths.take(order)
    taken = take_words(lengths, counts).reshape(-1)
    return _of_words(np.compress(taken, order), np.compress(taken, lengths), rows, width)


def sample_tokens(excluded: NDArray[np.bool_], rates: float | NDArray[np.float64], rng: CounterRNG) -> Selection:
    """Selects each token independently, with probability `rates`."""
    chosen = _bernoulli(rng, excluded.shape[1], rates) & ~excluded
    return Selection(np.flatnonzero(chosen), np.count_nonzero(chosen, axis=1))


def sample_words(words: Words, rates: float | NDArray[np.float64], rng: CounterRNG) -> Selection:
    """Selects each word independently, with probability `rates`."""
    rows, width = words.begins.shape
    chosen = np.flatnonzero(_bernoulli(rng, width, rates) & words.begins)
    return _of_words(chosen, words.lengths.take(chosen), rows, width)


def select_ngrams(rows: Rows, words: Words, counts: I64, longest: int, rng: CounterRNG) -> Selection:
    """Selects n-grams of one to `longest` words, n with probability ∝ 1/n, that begin at words in random order.

    An n-gram that would exceed the rest of `counts`, reach a word already selected or leave its document is shortened
    until it does not. ALBERT's rule is the same but skips an n-gram that reaches a selected word, so that it falls
    short of the count at high rates. Where no word fits at all, one is selected all the same.

    In one turn, for a row with words of 1, 2, 1, 3 tokens (numbers 0 … 3), 4 tokens to go and `longest` 3:

        random word                    1
        run                            1, 2, 3      the words it could be extended to
        sizes                          2, 3, 6      tokens of the n-gram of one, two, three words
        random n                       3
        of at most 4 tokens            2            two of the sizes are ≤ 4
        before a selected word         2            if word 3 is taken, its step 2 is the limit
    """
    runs = _WordRuns.of(rows, words)
    per_row = np.count_nonzero(words.begins, axis=1)
    base = np.cumsum(per_row) - per_row  # number of each row's first word, counted over the batch
    thresholds = _thresholds(1.0 / np.arange(1, longest + 1))
    steps = np.arange(longest)[:, None]
    taken = np.zeros(len(runs.first), dtype=bool)
    opens = np.zeros(len(runs.first), dtype=bool)  # the first word of an n-gram
    remaining = counts.copy()
    shortest, first_drawn = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    has_words = np.flatnonzero(per_row)
    if len(has_words):
        shortest[has_words] = np.minimum.reduceat(runs.stop - runs.first, base[has_words])
    order = RandomOrder(rng.fork(TURNS), per_row)
    active = np.flatnonzero((remaining > 0) & (per_row > 0))
    while len(active):
        number, chance = order.next(active)
        word = base[active] + number
        if order.turn == 1:
            first_drawn[active] = word
        # (longest, R): the words that the n-gram could hold; past the end of a run, its last word again.
        run = np.minimum(word + steps, runs.last.take(word))
        sizes = runs.stop.take(run) - runs.first.take(word)
        # n is the random length, and no more than fit into the rest of the count (sizes grow down the columns) …
        n = np.minimum(1 + np.searchsorted(thresholds, chance, side="right"), (sizes <= remaining[active]).sum(axis=0))
        # … nor than there are words before the first that is taken: its step, or `longest` where none is …
        n = np.minimum(n, np.where(taken.take(run), steps, longest).min(axis=0))
        # … nor than there are words up to the end of the run.
        n = np.minimum(n, runs.last.take(word) - word + 1)
        fitting = np.flatnonzero(n)
        n, word = n[fitting], word[fitting]
        remaining[active[fitting]] -= sizes[n - 1, fitting]
        opens[word] = True
        # Words word[i] … word[i] + n[i] - 1 of all n-grams at once: for word = [4, 9], n = [2, 3], np.cumsum(n) - n
        # is [0, 2], so that repeat([4, 7], [2, 3]) + arange(5) = [4, 4, 7, 7, 7] + [0, 1, 2, 3, 4] = [4, 5, 9, 10, 11].
        taken[np.repeat(word - np.cumsum(n) + n, n) + np.arange(int(n.sum()))] = True
        active = active[(remaining[active] >= shortest[active]) & (order.turn < per_row[active])]
    alone = first_drawn[(counts > 0) & (remaining == counts)]
    taken[alone] = opens[alone] = True
    selected = np.flatnonzero(taken)
    lengths = (runs.stop - runs.first)[selected]
    places, found = expand(runs.first[selected], lengths, len(rows), rows.width)
    units = np.add.reduceat(lengths, np.flatnonzero(opens[selected])) if len(selected) else lengths
    return Selection(places, found, units)


def select_spans(
    rows: Rows, words: Words, excluded: NDArray[np.bool_], counts: I64, longest: int, stop: float, rng: CounterRNG
) -> Selection:
    """Selects spans of one to `longest` words, P(n) ∝ (1 - stop)ⁿ⁻¹, which together have exactly `counts` tokens.

    SpanBERT's rule: a span begins with the word that holds a token chosen uniformly from those not yet selected, ends
    with its document at the latest, may overlap earlier spans (a token counts once), and the last one is cut where
    `counts` is reached, even inside a word. Spans that touch are one unit.

    In one turn, for a row of words [0 1] [2] [3 4 5] with tokens 4, 5 selected and 2 to go:

        anchor                  2             a random token; had it been 4, the row would wait for its next turn
        random n                1             one word beyond the anchor's, so [2] [3 4 5]
        places                  2 3 4 5
        fresh                   2 3           those not selected yet
        selected now            2 3           as many of them as are to go, from the left
    """
    width = rows.width
    runs = _WordRuns.of(rows, words)
    word_at = np.cumsum(words.begins.reshape(-1), dtype=np.int32) - 1  # number of the word at each flat position
    thresholds = _thresholds((1 - stop) ** np.arange(longest))
    taken = excluded.flatten()
    remaining = counts.copy()
    order = RandomOrder(rng.fork(TURNS), np.full(len(rows), width))
    active = np.flatnonzero(remaining > 0)
    while len(active):
        column, chance = order.next(active)
        anchor = active * width + column
        free = np.flatnonzero(~taken.take(anchor))
        row = active[free]
        word = word_at.take(anchor[free])
        n = np.searchsorted(thresholds, chance[free], side="right")
        begin = runs.first.take(word)
        size = runs.stop.take(np.minimum(word + n, runs.last.take(word))) - begin
        # Positions of all spans one after another: begin[i] … begin[i] + size[i] - 1, as in `select_ngrams`.
        before = np.cumsum(size) - size
        places = np.arange(int(size.sum())) + np.repeat(begin - before, size)
        fresh = np.flatnonzero(~taken.take(places))
        of_span = np.searchsorted(before, fresh, side="right") - 1
        gained = np.bincount(of_span, minlength=len(row))
        # Each fresh token's number within its span (0, 1, 2 …): those below the row's remaining count are selected.
        nth = np.arange(len(fresh)) - np.repeat(np.cumsum(gained) - gained, gained)
        taken[places[fresh[nth < remaining[row[of_span]]]]] = True
        remaining[row] -= np.minimum(gained, remaining[row])
        active = active[remaining[active] > 0]
    taken[excluded.reshape(-1)] = False
    selected = np.flatnonzero(taken)
    return Selection(selected, counts, run_lengths(selected, rows))


def run_lengths(places: I64, rows: Rows) -> I64:
    """Returns the lengths of the runs of neighbours among ascending flat positions.

    A run ends with its document and its row: positions 3 4 5 9 10 with a document that begins at 5 give 2, 1, 2.
    """
    opens = np.diff(places, prepend=-2) != 1
    opens |= rows.position_ids.take(places) == 0
    return np.diff(np.flatnonzero(opens), append=len(places))


class RandomOrder:
    """The numbers 0 … sizes[b]-1 of each row in random order, generated in turns and only as far as they are used.

    This is Fisher and Yates' shuffle, interrupted: in turn t the number at a random index ≥ t is returned, and the
    number at index t takes its place.

        turn 0    [0 1 2 3]    index 2 → 2
        turn 1    [. 1 0 3]    index 3 → 3
        turn 2    [. . 0 1]    index 2 → 0

    Attributes:
        turn: number of turns so far.
    """

    def __init__(self, rng: CounterRNG, sizes: I64) -> None:
        self.rng, self.sizes, self.turn = rng, sizes, 0
        self._most = int(sizes.max(initial=0))
        self._numbers = np.tile(np.arange(self._most, dtype=np.int32), len(sizes))
        self._bits = np.empty(0, dtype=np.uint64)
        self._at = np.zeros(len(sizes), dtype=np.int64)

    def next(self, rows: I64) -> tuple[I64, U64]:
        """Returns the next number, and 32 further random bits, of some rows.

        Args:
            rows: (R,) rows that took part in every turn so far and have numbers left.
        """
        chunk, step = divmod(self.turn, WORDS_AT_A_TIME)
        if not step:
            self._bits = CounterRNG(self.rng.keys[rows]).bits(chunk, WORDS_AT_A_TIME).reshape(-1)
            self._at[rows] = np.arange(len(rows)) * WORDS_AT_A_TIME
        words = self._bits.take(self._at.take(rows) + step)
        room = (self.sizes.take(rows) - self.turn).astype(np.uint64)
        base = rows * self._most + self.turn
        # The upper 32 bits u are a fraction u / 2³²; u · room / 2³² is then uniform over 0 … room - 1.
        at = base + ((words >> np.uint64(32)) * room >> np.uint64(32)).astype(np.int64)
        numbers = self._numbers.take(at)
        self._numbers[at] = self._numbers.take(base)
        self.turn += 1
        return numbers.astype(np.int64), words & np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class _WordRuns:
    """All words of a batch, one after another. Arrays are (W,).

    Attributes:
        first: flat position of a word's first token.
        stop: flat position after its last token.
        last: number of the last word that follows without a gap in the same document: an n-gram may reach up to it.
    """

    first: I64
    stop: I64
    last: I64

    @classmethod
    def of(cls, rows: Rows, words: Words) -> _WordRuns:
        first = np.flatnonzero(words.begins)
        stop = first + words.lengths.take(first)
        ends = np.ones(len(first), dtype=bool)
        ends[:-1] = (stop[:-1] != first[1:]) | (rows.position_ids.take(first[1:]) == 0)
        last = np.flatnonzero(ends)
        # Words 0 1 2 3 4 with ends at 1 and 4: last = [1, 4], run lengths [2, 3], so [1, 1, 4, 4, 4].
        return cls(first, stop, np.repeat(last, np.diff(last, prepend=-1)))


def replacements(
    originals: NDArray[np.int32],
    draws: U64,
    mask_share: float,
    random_share: float,
    vocabulary: Vocabulary,
    chance: U64 | None = None,
) -> NDArray[np.int32]:
    """Returns the input at selected positions (M,): [MASK], a random ordinary token, or the original.

    A 64-bit draw is split: its upper half, as a fraction of 2³², decides which of the three, its lower half which
    random token. With mask_share 0.8 and random_share 0.1 a fraction below 0.8 gives [MASK], one from there to 0.9 a
    random token.

    Args:
        originals: (M,) tokens at these positions.
        draws: (M,) 64 random bits for each position.
        mask_share: of the positions, share that becomes [MASK].
        random_share: of the positions, share that becomes a random token.
        vocabulary: for [MASK] and the ordinary tokens.
        chance: (M,) 32 random bits that decide which of the three, where positions do not decide independently.
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
    """Returns (B, max) True in the first counts[b] columns of row b."""
    return np.arange(int(counts.max(initial=0))) < counts[:, None]


def _of_words(first: I64, lengths: NDArray[np.int32], rows: int, width: int) -> Selection:
    places, counts = expand(first, lengths, rows, width)
    return Selection(places, counts, lengths.astype(np.int64))


def _bernoulli(rng: CounterRNG, width: int, rates: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns (B, width) True with the row's rate: 53 random bits, all that a float64 holds, below rate · 2⁵³."""
    limits = np.rint(np.asarray(rates) * 2.0**53).astype(np.uint64)
    below: NDArray[np.bool_] = (rng.bits(ORDER, width) >> np.uint64(11)) < limits.reshape(-1, 1)
    return below


def _thresholds(weights: NDArray[np.floating]) -> U64:
    """Returns the values of 32 random bits at which one outcome ends and the next begins.

    Weights 1, ½, ⅓ have the sums 1, 1.5, 1.83, as shares 0.55, 0.82, 1: outcome 0 below 0.55 · 2³², outcome 1 below
    0.82 · 2³², else 2. `np.searchsorted` finds the outcome.
    """
    limits: U64 = np.rint(np.cumsum(weights)[:-1] / weights.sum() * 2.0**32).astype(np.uint64)
    return limits
