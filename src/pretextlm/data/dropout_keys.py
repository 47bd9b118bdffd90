"""A key for every token of a batch, from which the model derives its dropout (model/dropout.py).

A key is a function of the token's example and its place in it, and of nothing else: neither the batch, nor the worker,
nor the process that reads the row changes what is dropped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import GOLDEN, CounterRNG, mix
from pretextlm.data.examples import tokens_of_texts

U64 = NDArray[np.uint64]
INPUT, DECODER_INPUT = 1 << 20, (1 << 20) + 1
"""Streams of the random numbers, which no objective uses."""


def with_dropout_keys(batch: Batch, rows: Rows, rng: CounterRNG, packed: bool) -> Batch:
    """Add a key for each token.

    Args:
        batch: The collated batch.
        rows: The rows that it was collated from.
        rng: The generator of these rows.
        packed: Whether a row of the batch holds several of the rows, one after another, as examples of a task do.

    Returns:
        The batch with `dropout_keys`, and `decoder_dropout_keys` where it has a decoder.
    """
    keys = _keys_of_texts if packed else _keys_of_rows
    places = batch.segment_ids, batch.position_ids, batch.input_ids
    own = keys(rng.fork(INPUT).keys, rows, *places)
    if batch.decoder_input_ids is None:
        return dataclasses.replace(batch, dropout_keys=own)
    places = batch.decoder_segment_ids, batch.decoder_position_ids, batch.decoder_input_ids
    decoder = keys(rng.fork(DECODER_INPUT).keys, rows, *places)
    return dataclasses.replace(batch, dropout_keys=own, decoder_dropout_keys=decoder)


def _keys_of_rows(keys_B: U64, rows: Rows, segments_BT: Any, positions_BT: Any, ids_BT: Any) -> NDArray[np.int64]:
    """(B, T) keys by row and column: step column + 1 of the row's splitmix64 stream."""
    columns_T: U64 = np.arange(1, ids_BT.shape[1] + 1, dtype=np.uint64) * GOLDEN
    return mix(keys_B[:, None] + columns_T).view(np.int64)


def _keys_of_texts(keys_E: U64, rows: Rows, segments_BT: Any, positions_BT: Any, ids_BT: Any) -> NDArray[np.int64]:
    """(B, T) keys by example, number of the text in its example, and place in the text; 0 for padding.

    Where examples are packed, the row and column of a token depend on its neighbours. An example may have several texts
    (the choices of a question): with 2 and 3 texts, `number` is 0 1 0 1 2, the running number less that of the
    example's first text.
    """
    tokens, text, place = tokens_of_texts(segments_BT, positions_BT)
    texts_E = np.add.reduceat(rows.position_ids == 0, rows.offsets[:-1]).astype(np.int64)
    assert text[-1] + 1 == texts_E.sum(), "the texts of a batch are those of its rows"
    number = np.arange(texts_E.sum()) - np.repeat(np.cumsum(texts_E) - texts_E, texts_E)
    keys_M = mix(np.repeat(keys_E, texts_E) + number.astype(np.uint64) * GOLDEN)
    found = np.zeros(segments_BT.shape, np.uint64)
    found.reshape(-1)[tokens] = mix(keys_M[text] + (place + 1).astype(np.uint64) * GOLDEN)
    return found.view(np.int64)
