"""A batch of random tokens in the form that an objective gives its batches, where there is no text yet."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from pretextlm.batch import Batch
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.special_tokens import FURTHER, NAMED, sentinel
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective

SENTINELS = 200
DOCUMENTS, DOCUMENT_TOKENS, SENTENCE_TOKENS = 64, 1000, 25


@cache
def trial_vocabulary(size: int) -> Vocabulary:
    """Returns a vocabulary of this size with all special tokens that an objective may ask for."""
    names = [*NAMED, *FURTHER, *(sentinel(i) for i in range(SENTINELS))]
    return Vocabulary.resolve({name: index for index, name in enumerate(names)}, max(size, 2 * len(names)))


def trial_batch(objective: Objective, length: int, vocab_size: int, rows: int) -> tuple[Batch, float]:
    """Make a batch of the objective from random tokens.

    Args:
        objective: Its reader and its collation are used.
        length: Tokens of an input row.
        vocab_size: Ids are below it, but for small sizes, of which special tokens would be most.
        rows: Number of rows.

    Returns:
        The batch of the first variant, and the tokens of text in one of its rows.

    Raises:
        UserError: The objective does not work with rows of this length.
    """
    vocabulary = trial_vocabulary(vocab_size)
    reader = objective.reader(_random_split(vocab_size), vocabulary, length)
    numbers, epochs = reader.shuffled(np.arange(rows), 0)
    first = reader.groups(numbers)[0]
    read = replace(reader.read(numbers[first], epochs[first], 0), progress=np.full(len(first), 0.5))
    batch = objective.collate(read, vocabulary, CounterRNG.of(0, 0, read.example_ids))
    return batch, reader.tokens_per_row


@cache
def _random_split(vocab_size: int) -> Split:
    total = DOCUMENTS * DOCUMENT_TOKENS
    text = np.flatnonzero(~trial_vocabulary(vocab_size).is_special)
    return Split(
        tokens=np.random.default_rng(0).choice(text, total).astype(np.uint32),
        documents=np.arange(0, total + 1, DOCUMENT_TOKENS).astype(np.uint64),
        document_bytes=np.full(DOCUMENTS, 4 * DOCUMENT_TOKENS, np.uint32),
        document_sources=np.zeros(DOCUMENTS, np.uint32),
        sentences=np.arange(0, total, SENTENCE_TOKENS).astype(np.uint64),
        word_bits=np.full(-(-total // 8), 0b01010101, np.uint8),
        parts=(1,),
    )
