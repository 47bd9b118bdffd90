"""The sentence pairs of an epoch: BERT's data builder (Devlin et al. 2019) without its loop over the text.

A document is read in chunks of complete sentences, each as long as a row; a chunk is split at a random sentence. The
first part is A. B is the second part or, for a random pair, sentences of another document; the second part then begins
the next chunk:

    document    [7 8 9] [4 5] [6] [3 2 1 1] …      a chunk of at least 6 tokens: [7 8 9] [4 5] [6], split after [7 8 9]
    next        A 7 8 9   B 4 5 6                  the next chunk begins at [3 2 1 1]
    previous    A 4 5 6   B 7 8 9                  the same
    random      A 7 8 9   B from another document  the next chunk begins at [4 5]: no sentence is lost

Every random number belongs to a sentence or a document, not to an iteration of a loop. Therefore the end of the chunk
that would begin at a sentence is known for all sentences at once, and the actual chunks follow from the documents'
first sentences by pointer doubling: k rounds find the first 2ᵏ chunks of every document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import CounterRNG, mix
from pretextlm.data.store import Split
from pretextlm.errors import UserError

I64 = NDArray[np.int64]
Relation = Literal["next", "previous", "random"]

TARGET, CHUNK, PARTNER, CUT_A, CUT_B = range(1000, 1005)
"""Streams of random numbers, disjoint from those of any noise: chunk size of a document; split point and relation of a
chunk; partner document; number of tokens truncated at the front of A and of B."""

SENTENCES_AT_ONCE = 1 << 16
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Kind:
    """A relation of B to A.

    Attributes:
        relation: B is the text after A, the text before it, or text of another document.
        share: of the pairs; the shares of all kinds sum to 1.
        label: of the row.
        name: of the label, for people.
    """

    relation: Relation
    share: float
    label: int
    name: str = ""


@dataclass(frozen=True)
class Pairs:
    """Pairs of an epoch in the order of their text; all arrays are (R,).

    Attributes:
        a, b: token offsets of the first tokens of A and B.
        a_length, b_length: number of tokens, at least 1 each.
        label: of the kind.
    """

    a: I64
    a_length: NDArray[np.int32]
    b: I64
    b_length: NDArray[np.int32]
    label: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True)
class _Chunks:
    """Sentences [first, end) of a document, split before `cut`, and the index of the kind; in order, all arrays
    (R,).
    """

    first: I64
    cut: I64
    end: I64
    document: I64
    kind: NDArray[np.int64]


class PairIndex:
    """Computes the pairs of any epoch of a split.

    With a "random" kind, a chunk of one sentence can only have a random partner, so that this label is more frequent by
    the share of such chunks. Without one, every chunk has at least two sentences: a long sentence is joined with the
    next one, a last sentence that would be alone is joined with the chunk before it, and documents of one sentence are
    skipped.

    Args:
        split: the text.
        room: maximum tokens of A and B together.
        kinds: relations of B to A.
        short: share of the documents whose chunks have a random size, 2 … room, instead of `room`.

    Raises:
        UserError: there is no text, or no pairs can be made from it.
    """

    def __init__(self, split: Split, room: int, kinds: Sequence[Kind], short: float) -> None:
        self.room, self.kinds, self.short = room, tuple(kinds), short
        relations = [kind.relation for kind in self.kinds]
        self._random = relations.index("random") if "random" in relations else -1
        self._previous = relations.index("previous") if "previous" in relations else -1
        shares = np.cumsum([kind.share for kind in self.kinds])[:-1]
        self._thresholds = np.round(shares * 2**32).astype(np.uint64)
        self._labels = np.array([kind.label for kind in self.kinds], np.int32)
        self._num_tokens = split.num_tokens
        self._sentences, self._firsts = _sentences(split)
        self._check()

    def pairs(self, seed: int, epoch: int) -> Pairs:
        """Returns all pairs of an epoch."""
        targets = self._targets(seed, epoch)
        blocks = [self._pairs(seed, epoch, targets, chunks) for chunks in self._blocks(seed, epoch, targets)]
        return Pairs(*(np.concatenate([getattr(block, f.name) for block in blocks]) for f in fields(Pairs)))

    def _check(self) -> None:
        documents = len(self._firsts) - 1
        if not documents:
            raise UserError("The split holds no text.", "Prepare a store with more documents.")
        if self._random >= 0 and documents < 2:
            raise UserError(
                "A split of one document has no other to take a random sentence from: it needs at least two documents.",
                "Prepare a store with more documents, or a larger share for validation.",
            )
        if self._random < 0 and (np.diff(self._firsts) < 2).all():
            raise UserError(
                "No document of the split has two sentences, so that there are no pairs in it.",
                "Prepare a store with longer documents.",
            )

    def check_relations(self) -> None:
        """Checks that not all pairs are random ones, which have one label.

        Raises:
            UserError: no sentence is followed by another one within a row.
        """
        if self._random >= 0 and not self._has_successors():
            raise UserError(
                "No document of the split has a sentence that another one follows within a row: all pairs would be "
                "random, and there is nothing to learn.",
                "Prepare a store with documents of several sentences, or give a larger data.length.",
            )

    def _has_successors(self) -> bool:
        """Returns whether some sentence leaves room for a following one of its document."""
        for begin in range(0, int(self._firsts[-1]), SENTENCES_AT_ONCE):
            numbers = np.arange(begin, min(begin + SENTENCES_AT_ONCE, int(self._firsts[-1])))
            lengths = np.diff(self._offsets(np.append(numbers, numbers[-1] + 1)))
            last = np.isin(numbers + 1, self._firsts)
            if ((lengths < self.room) & ~last).any():
                return True
        return False

    def _targets(self, seed: int, epoch: int) -> I64:
        """Returns (D,) the chunk size of each document in tokens."""
        words = CounterRNG.of(seed, epoch, np.arange(len(self._firsts) - 1)).bits(TARGET, 1)[:, 0]
        short = (words >> _HALF) < np.uint64(round(self.short * 2**32))
        return np.where(short, 2 + _below(words, self.room - 1), self.room)

    def _blocks(self, seed: int, epoch: int, targets: I64) -> Iterator[_Chunks]:
        """Yields the chunks of blocks of documents, so that all passes over a block find it in the cache."""
        firsts = self._firsts
        cuts = np.searchsorted(firsts, np.arange(0, firsts[-1], SENTENCES_AT_ONCE)).tolist()
        cuts = sorted({*cuts, len(firsts) - 1})
        return (self._chunks(seed, epoch, targets, low, high) for low, high in pairwise(cuts))

    def _chunks(self, seed: int, epoch: int, targets: I64, low: int, high: int) -> _Chunks:
        """Returns the chunks of documents low … high-1."""
        firsts = self._firsts[low : high + 1] - self._firsts[low]
        numbers = np.arange(self._firsts[low], self._firsts[high])
        starts = self._offsets(np.append(numbers, self._firsts[high]))
        sizes = np.diff(firsts)
        last, here = np.repeat(firsts[1:], sizes), np.arange(len(numbers))
        # end[i]: first sentence that starts at least `target` tokens after sentence i, within the document.
        end = np.minimum(np.searchsorted(starts, starts[:-1] + np.repeat(targets[low:high], sizes)), last)
        if self._random < 0:
            end = _with_company(here, end, last)
        words = CounterRNG.of(seed, epoch, numbers).bits(CHUNK, 1)[:, 0]
        cut = here + 1 + _below(words, np.maximum(end - here, 2) - 1)
        # One random word serves two draws: its lower half chose the split point, its upper half the relation.
        kind = np.searchsorted(self._thresholds, words >> _HALF, side="right")
        onward = end
        if self._random >= 0:
            kind[end - here == 1] = self._random
            onward = np.where(kind == self._random, cut, end)
        chosen = reachable(onward, firsts[:-1])
        if self._random < 0:
            chosen = chosen[end[chosen] - chosen > 1]
        first = self._firsts[low]
        document = low + np.searchsorted(firsts, chosen, side="right") - 1
        return _Chunks(first + chosen, first + cut[chosen], first + end[chosen], document, kind[chosen])

    def _pairs(self, seed: int, epoch: int, targets: I64, chunks: _Chunks) -> Pairs:
        """Returns the pairs of these chunks."""
        rng = CounterRNG.of(seed, epoch, chunks.first)
        a, b, end = (self._offsets(places) for places in (chunks.first, chunks.cut, chunks.end))
        a_length, b_length = b - a, end - b
        random = np.flatnonzero(chunks.kind == self._random)
        wanted = targets[chunks.document[random]] - a_length[random]
        b[random], b_length[random] = self._partners(CounterRNG(rng.keys[random]), chunks.document[random], wanted)
        swapped = chunks.kind == self._previous
        a, b = np.where(swapped, b, a), np.where(swapped, a, b)
        a_length, b_length = np.where(swapped, b_length, a_length), np.where(swapped, a_length, b_length)
        a_kept, b_kept = truncated(a_length, b_length, self.room)
        a += heads(rng, CUT_A, a_length - a_kept)
        b += heads(rng, CUT_B, b_length - b_kept)
        return Pairs(a, a_kept.astype(np.int32), b, b_kept.astype(np.int32), self._labels[chunks.kind])

    def _partners(self, rng: CounterRNG, documents: I64, wanted: I64) -> tuple[I64, I64]:
        """Choose a partner from any other document, from any sentence on.

        Args:
            rng: one key per pair.
            documents: (R,) documents of A.
            wanted: (R,) minimum tokens; the partner ends with the sentence that reaches it, or with its document.

        Returns:
            Token offset and length of each partner.
        """
        words = rng.bits(PARTNER, 1)[:, 0]
        other = _below(words >> _HALF, len(self._firsts) - 2)
        other += other >= documents  # skips the pair's own document: uniform over all others
        first, after = self._firsts[other], self._firsts[other + 1]
        sentence = first + _below(words, after - first)
        start = self._offsets(sentence)
        end = np.searchsorted(self._sentences, start + np.maximum(wanted, 1))
        return start, self._offsets(np.minimum(end, after)) - start

    def _offsets(self, sentences: I64) -> I64:
        """Returns the token offsets of sentences; the number after the last sentence gives the end of the text."""
        inside = self._sentences.take(sentences, mode="clip")
        return np.where(sentences < len(self._sentences), inside, self._num_tokens)


def reachable(onward: I64, roots: I64) -> I64:
    """Find all places that are reached from `roots` by repeatedly moving from place i to onward[i].

    Pointer doubling: after k rounds, `jump` moves 2**k places at once and the first 2**k places of every path are
        known.
    With onward = [2, 3, 3, 5, 5] and root 0, the path is 0 → 2 → 3 → 5 (the end): the result is [0, 2, 3].

    Args:
        onward: (n,) successor of each place, greater than the place; n for the end.
        roots: ascending; no path jumps over a root.

    Returns:
        The reached places, ascending.
    """
    jump = np.append(onward, len(onward))  # in round k: 2**k steps at once
    reached = np.zeros(len(jump), dtype=bool)
    reached[roots] = True
    found, places = 0, np.asarray(roots)
    while len(places) > found:
        found = len(places)
        reached[jump[places]] = True
        places = np.flatnonzero(reached[:-1])
        jump = jump[jump]
    return places


def truncated(a: I64, b: I64, room: int) -> tuple[I64, I64]:
    """Returns the lengths of A and B after the longer one (B if equal) loses tokens one by one until both fit."""
    a_kept = np.minimum(a, np.maximum(room - b, (room + 1) // 2))
    return a_kept, np.minimum(b, room - a_kept)


def heads(rng: CounterRNG, stream: int, tosses: I64) -> I64:
    """Count heads among fair coins: how many of the tokens that each row loses are removed at its front.

    Args:
        rng: one key per row.
        stream: of the random numbers.
        tosses: (R,) number of coins of each row.

    Returns:
        (R,) heads of each row. 64 coins are the bits of one random word, counted by popcount.
    """
    words = -(-tosses // 64)
    rows = np.flatnonzero(words)
    of = np.repeat(rows, words[rows])
    nth = np.arange(len(of)) - np.repeat(np.cumsum(words[rows]) - words[rows], words[rows])
    coins = CounterRNG(mix(rng.keys[of] ^ nth.astype(np.uint64))).bits(stream, 1)[:, 0]
    spare = np.maximum(64 * (nth + 1) - tosses[of], 0)  # of a row's last word
    shown = np.bitwise_count(coins >> spare.astype(np.uint64))
    return np.bincount(of, weights=shown, minlength=len(tosses)).astype(np.int64)


def _below(words: NDArray[np.uint64], high: int | I64) -> I64:
    """Returns integers uniform in 0 … high-1 from the lower half of each word; `high` may differ from word to word."""
    return ((words & _LOW) * np.asarray(high).astype(np.uint64) >> _HALF).astype(np.int64)


def _with_company(here: I64, end: I64, last: I64) -> I64:
    """Returns chunk ends moved so that a chunk has two sentences and leaves none or at least two of its document."""
    end = np.minimum(np.maximum(end, here + 2), last)
    lonely = last - end == 1
    return np.where(lonely, np.where(end - here > 2, end - 1, last), end)


def _sentences(split: Split) -> tuple[NDArray[Any], I64]:
    """Returns (S,) the sentence starts, and (D+1,) the number of the first sentence of each document that has text.

    The split's own sentences are used if each of those documents begins a sentence and no sentence is empty; otherwise
    they are corrected.
    """
    documents = split.documents.view(np.int64)
    documents = documents[:-1][np.diff(documents) > 0]
    starts: NDArray[Any] = split.sentences.view(np.int64)
    firsts = np.searchsorted(starts, documents)
    if (np.diff(starts) <= 0).any() or not np.array_equal(starts[firsts[firsts < len(starts)]], documents):
        starts = np.unique(np.concatenate([starts[starts < split.num_tokens], documents]))
        firsts = np.searchsorted(starts, documents)
    return starts, np.append(firsts, len(starts))
