"""A text in which every token occurs once, and the rows and batches that an objective makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.special_tokens import FURTHER, NAMED, sentinel
from pretextlm.data.store import Split
from pretextlm.data.token_splits import TokenSplits
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective
from pretextlm.objectives.preview.visibility import visibility_of

LENGTH = 48
"""Tokens of an input row in the checks."""

FIRST_TEXT = 150
"""The first id of `example_vocabulary` that represents text."""

Example = dict[str, Any]
"""One row of all arrays of a batch."""


def example_vocabulary(size: int = 6000) -> Vocabulary:
    """Returns a vocabulary with special ids out of order, sentinels counting down, and text from FIRST_TEXT on."""
    named = dict(zip(NAMED, (3, 1, 5, 0, 2, 6, 4), strict=True))
    further = {token: 10 + i for i, token in enumerate(FURTHER)}
    sentinels = {sentinel(i): FIRST_TEXT - 1 - i for i in range(120)}
    vocabulary = Vocabulary.resolve(named | further | sentinels, size)
    return dataclasses.replace(vocabulary, make_token_splits=lambda: TokenSplits.of(_one_character_each(vocabulary)))


def _one_character_each(vocabulary: Vocabulary) -> list[list[tuple[list[int], list[int]]]]:
    """Returns the halves of every token of text, which is one character and so is only ever cut before it."""
    return [[] if special else [([], [token])] for token, special in enumerate(vocabulary.is_special)]


def unique_split(vocabulary: Vocabulary, plain: int = 0, pairs: int = 0, seed: int = 0) -> Split:
    """Returns documents of several sentences, then pairs; no token of them all occurs twice.

    Args:
        vocabulary: from which the tokens are.
        plain: number of plain documents.
        pairs: number of documents of two parts.
        seed: of the lengths and the order of the tokens.
    """
    rng = np.random.default_rng(seed)
    sentences = [rng.integers(1, 14, int(n)) for n in rng.integers(1, 12, plain)]
    sentences += [rng.integers(2, 18, 2) for _ in range(pairs)]
    lengths = np.array([int(part.sum()) for part in sentences])
    total = int(lengths.sum())
    assert FIRST_TEXT + total <= vocabulary.size
    tokens = rng.permutation(np.arange(FIRST_TEXT, FIRST_TEXT + total)).astype(np.uint16)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sentences))])[:-1]
    words = rng.random(total) < 0.6
    words[starts] = True
    return Split(
        tokens=tokens,
        documents=np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64),
        document_bytes=lengths.astype(np.uint32),
        document_sources=np.repeat([0, 1], [plain, pairs]).astype(np.uint32),
        sentences=starts.astype(np.uint64),
        word_bits=np.packbits(words, bitorder="little"),
        parts=(1, 2),
    )


def batches(
    objective: Objective, split: Split, vocabulary: Vocabulary, ordinals: NDArray[np.int64], seed: int = 1
) -> list[tuple[Rows, Batch]]:
    """Returns the rows at these positions of training with their batches; those of one variant together."""
    reader = objective.reader(split, vocabulary, LENGTH)
    numbers, epochs = reader.shuffled(ordinals, seed)
    draws = epochs % objective.noise_period if objective.noise_period else epochs
    found = []
    for group in reader.groups(numbers):
        rows = reader.read(numbers[group], epochs[group], seed)
        progress = np.minimum(ordinals[group] / 1000, 1.0) if objective.scheduled_noise else None
        rows = dataclasses.replace(rows, progress=progress)
        found.append((rows, objective.collate(rows, vocabulary, CounterRNG.of(seed, draws[group], rows.example_ids))))
    return found


def arrays(batch: Batch) -> dict[str, NDArray[Any]]:
    """Returns the arrays that a batch has, by name."""
    return {
        f.name: getattr(batch, f.name)
        for f in dataclasses.fields(batch)
        if f.name != "attention" and getattr(batch, f.name) is not None
    }


def by_example(found: Iterable[tuple[Rows | None, Batch]]) -> dict[int, Example]:
    """Returns example id → its rows of all arrays."""
    rows: dict[int, Example] = {}
    for _, batch in found:
        for place, example in enumerate(batch.example_ids.tolist()):
            check(example not in rows, "example_ids tell rows apart")
            rows[example] = {name: array[place] for name, array in arrays(batch).items()} | {"kind": batch.attention}
    return rows


def same_example(one: Example, other: Example) -> bool:
    """Whether two rows are equal in all their arrays."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def reachable(batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Which positions of row 0 a predicting position depends on, through any number of layers.

    Returns:
        (Q, T) for the input row and, with a decoder, (Q, S) for the decoder's; Q are the positions that predict.
    """
    visible = visibility_of(batch)
    own = _closure(visible["input"])
    if "decoder" not in visible:
        return own, None
    decoder = _closure(visible["decoder"])
    through = (decoder.astype(int) @ visible["cross"].astype(int) @ own.astype(int)) > 0
    return through, decoder


def _closure(matrix: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Transitive closure: A sees C in two layers if A sees B and B sees C, in four if …, until nothing is added."""
    reach = matrix | np.eye(len(matrix), dtype=bool)
    while True:
        further: NDArray[np.bool_] = (reach.astype(int) @ reach.astype(int)) > 0
        if (further == reach).all():
            return further
        reach = further


def source_tokens(rows: Rows) -> list[set[int]]:
    """Returns the text tokens of each row."""
    return [set(part[part >= FIRST_TEXT].tolist()) for part in np.split(rows.tokens, rows.offsets[1:-1])]


def found_tokens(batch: Batch) -> list[set[int]]:
    """Returns the text tokens of each row's inputs and labels together."""
    parts = [batch.input_ids, batch.labels, batch.decoder_input_ids, batch.decoder_labels, batch.shuffled_labels]
    joined = np.concatenate([part for part in parts if part is not None], axis=1)
    return [set(row[(row >= FIRST_TEXT) & (row != IGNORE)].tolist()) for row in joined]


def one_row(batch: Batch, row: int) -> Batch:
    """Returns the batch of one row."""
    return batch.map(lambda array: array[row : row + 1].copy())


def check(holds: bool, promise: str) -> None:
    """Checks a promise.

    Raises:
        AssertionError: it is broken.
    """
    if not holds:
        raise AssertionError(f"The objective breaks a promise: {promise}.")
