"""Peers for objectives that hide tokens in place: plain loops over examples, in the manner of the papers' code.

Rows come as lists or arrays, whichever suits the loop; what is hidden, and what stands there instead, is drawn row by
row; the batch is two or more padded arrays. Written for this benchmark.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from benchmarks.objectives.timing import Peer, Sample
from transformers import DataCollatorForLanguageModeling

from pretextlm.batch import IGNORE
from pretextlm.data.vocabulary import Vocabulary

ROWS = 256
"""Rows that a loop is timed with: its time for each is the same with more."""

Words = list[list[int]]
"""Of a row: the places of each word's tokens."""


def words_of(ids: Sequence[int], starts: Sequence[bool], special: frozenset[int]) -> Words:
    """Places of the tokens of each word; special tokens belong to none."""
    words: Words = []
    opens = True
    for place, (token, begins) in enumerate(zip(ids, starts, strict=True)):
        if token in special:
            opens = True
        elif begins or opens:
            words.append([place])
            opens = False
        else:
            words[-1].append(place)
    return words


def instead(token: int, vocab: Vocabulary, rng: random.Random) -> int:
    """[MASK] in 80 %, a random token in 10 %, and the token itself."""
    chance = rng.random()
    if chance < 0.8:
        return vocab.mask
    return token if chance < 0.9 else rng.randrange(vocab.size)


def take_words(words: Words, budget: int, rng: random.Random) -> list[list[int]]:
    """BERT: words in random order; one that would go over the budget is passed over."""
    order = words[:]
    rng.shuffle(order)
    taken, count = [], 0
    for word in order:
        if count >= budget:
            break
        if count + len(word) <= budget:
            taken.append(word)
            count += len(word)
    return taken


def take_ngrams(words: Words, budget: int, rng: random.Random) -> list[list[int]]:
    """ALBERT: up to three words, n with probability in proportion to 1/n, shorter where they would not fit."""
    order = list(range(len(words)))
    rng.shuffle(order)
    taken, count, used = [], 0, [False] * len(words)
    for first in order:
        if count >= budget:
            break
        for n in range(rng.choices((1, 2, 3), (6, 3, 2))[0], 0, -1):
            run = range(first, min(first + n, len(words)))
            places = [place for word in run for place in words[word]]
            if count + len(places) <= budget and not any(used[word] for word in run):
                taken.append(places)
                count += len(places)
                for word in run:
                    used[word] = True
                break
    return taken


SPAN_WEIGHTS = [0.2 * 0.8**n for n in range(10)]


def take_spans(words: Words, budget: int, rng: random.Random) -> list[list[int]]:
    """SpanBERT: geometric lengths in words from the word of a random token; the last span is cut at the budget."""
    of = {place: number for number, word in enumerate(words) for place in word}
    places = list(of)
    hidden: set[int] = set()
    while len(hidden) < budget:
        n = rng.choices(range(1, 11), SPAN_WEIGHTS)[0]
        anchor = places[rng.randrange(len(places))]
        if anchor in hidden:
            continue
        for word in words[of[anchor] : of[anchor] + n]:
            for place in word:
                if len(hidden) < budget:
                    hidden.add(place)
    runs: list[list[int]] = []
    for place in sorted(hidden):
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


Take = Callable[[Words, int, random.Random], list[list[int]]]


def _lists(sample: Sample) -> tuple[list[list[int]], list[list[bool]], int]:
    """Rows as lists, with their word starts, and their tokens of text."""
    count = min(ROWS, len(sample.rows))
    starts = sample.rows.matrix(sample.rows.word_starts)[:count]
    return sample.matrix(count).tolist(), starts.tolist(), sample.tokens_in(count)


def _hidden_in_place(sample: Sample, label: str, take: Take, alike: bool = False, ends: bool = False) -> list[Peer]:
    """A loop that takes words, and replaces each token, or all of a run `alike`.

    Args:
        ends: also note for each token of a run the places beside it, as SpanBERT's second loss wants.
    """
    rows, starts, tokens = _lists(sample)
    vocab = sample.vocabulary
    special = vocab.special - {vocab.unk}

    def work() -> Any:
        rng = random.Random(0)
        inputs, labels, beside = [], [], []
        for ids, begins in zip(rows, starts, strict=True):
            words = words_of(ids, begins, special)
            budget = max(1, round(0.15 * sum(map(len, words))))
            row, targets, pairs = ids[:], [IGNORE] * len(ids), []
            for places in take(words, budget, rng):
                chance = rng.random()
                for place in places:
                    targets[place] = ids[place]
                    if not alike:
                        row[place] = instead(ids[place], vocab, rng)
                    elif chance < 0.8:
                        row[place] = vocab.mask
                    elif chance >= 0.9:
                        row[place] = rng.randrange(vocab.size)
                if ends and ids[places[0] - 1] not in special and ids[places[-1] + 1 - len(ids)] not in special:
                    pairs.append([places[0] - 1, places[-1] + 1, *[ids[place] for place in places[:20]]])
            inputs.append(row)
            labels.append(targets)
            beside.append(pairs)
        most = max(map(len, beside))
        around = np.full((len(rows), most, 22), IGNORE, np.int64)
        for number, pairs in enumerate(beside):
            for nth, pair in enumerate(pairs):
                around[number, nth, : len(pair)] = pair
        return np.array(inputs), np.array(labels), around

    return [Peer(label, work, tokens)]


def words(sample: Sample) -> list[Peer]:
    return _hidden_in_place(sample, "loop as in BERT's code", take_words)


def ngrams(sample: Sample) -> list[Peer]:
    return _hidden_in_place(sample, "loop as in ALBERT's code", take_ngrams)


def spans(sample: Sample) -> list[Peer]:
    return _hidden_in_place(sample, "loop as in SpanBERT's code", take_spans)


def span_boundary(sample: Sample) -> list[Peer]:
    return _hidden_in_place(sample, "loop as in SpanBERT's code", take_spans, alike=True, ends=True)


def trigrams(sample: Sample) -> list[Peer]:
    """Transformers' masking of ready matrices, then trigrams shuffled row by row."""
    count = min(ROWS, len(sample.rows))
    matrix = sample.matrix(count).astype(np.int64)
    special = sample.vocabulary.is_special[matrix]
    collator = DataCollatorForLanguageModeling(sample.text.peer_tokenizer, return_tensors="np", seed=0)
    collator(list(matrix[:2]))  # makes its generator

    def work() -> Any:
        rng = np.random.default_rng(0)
        ids, labels = collator.numpy_mask_tokens(matrix.copy(), special)
        order = np.full(ids.shape, IGNORE)
        for row, original, target, bars, shuffled in zip(ids, matrix, labels, special, order, strict=True):
            free = (target == IGNORE) & ~bars
            starts = np.flatnonzero(free[:-2] & free[1:-1] & free[2:])
            left = round(0.05 * np.count_nonzero(free) / 3)
            taken: set[int] = set()
            for start in rng.permutation(starts).tolist():
                if not left:
                    break
                if taken.isdisjoint((start - 2, start - 1, start, start + 1, start + 2)):
                    taken.add(start)
                    left -= 1
            for start in taken:
                shuffled[start : start + 3] = original[start : start + 3]
                row[start : start + 3] = original[start + rng.permutation(3)]
        return ids, labels, order

    return [Peer("Transformers' masks, loop for trigrams", work, sample.tokens_in(count))]


def masked_arrays(sample: Sample) -> list[Peer]:
    """Masks of an exact number of tokens, drawn with numpy row by row, as data sets for PyTorch do in `__getitem__`.

    With next tokens to be predicted, labels are moved by one, and one row in 16 is plain causal text (GPT-BERT).
    """
    count = min(ROWS, len(sample.rows))
    rows = list(sample.matrix(count).astype(np.int64))
    vocab, following = sample.vocabulary, getattr(sample.objective, "predict", "here") == "next"
    causal = following and sample.objective.name == "mixed_visibility"
    is_special = vocab.is_special

    def one(ids: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        free = np.flatnonzero(~is_special[ids])
        chosen = rng.choice(free, max(1, round(0.15 * len(free))), replace=False, shuffle=False)
        chance = rng.random(len(chosen))
        row, labels = ids.copy(), np.full(len(ids), IGNORE)
        labels[chosen] = ids[chosen]
        row[chosen[chance < 0.8]] = vocab.mask
        other = chosen[chance >= 0.9]
        row[other] = rng.integers(vocab.size, size=len(other))
        return row, labels

    def work() -> Any:
        rng = np.random.default_rng(0)
        inputs, labels = [], []
        for number, ids in enumerate(rows):
            row, targets = (ids, ids) if causal and number % 16 == 0 else one(ids, rng)
            inputs.append(row[:-1] if following else row)
            labels.append(targets[1:] if following else targets)
        return np.stack(inputs), np.stack(labels)

    return [Peer("numpy row by row", work, sample.tokens_in(count))]
