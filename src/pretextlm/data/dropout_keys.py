"""A key for every token of a batch, by which the model drops numbers: of its example and its place, nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import GOLDEN, CounterRNG, mix
from pretextlm.data.examples import tokens_of_texts

U64 = NDArray[np.uint64]
ROW, DECODER_ROW = 1 << 20, (1 << 20) + 1
"""Streams of draws that no objective uses."""


def with_noise(batch: Batch, rows: Rows, rng: CounterRNG, packed: bool) -> Batch:
    """The batch with a key for each token.

    Args:
        rows: that it was made of.
        rng: of the rows.
        packed: whether a row of the batch holds several of the rows, one after another, as examples lie side by side.
    """
    keys = _of_texts if packed else _of_rows
    places = batch.segment_ids, batch.position_ids, batch.input_ids
    noise = keys(rng.fork(ROW).keys, rows, *places)
    if batch.decoder_input_ids is None:
        return dataclasses.replace(batch, noise=noise)
    places = batch.decoder_segment_ids, batch.decoder_position_ids, batch.decoder_input_ids
    return dataclasses.replace(batch, noise=noise, decoder_noise=keys(rng.fork(DECODER_ROW).keys, rows, *places))


def _of_rows(keys_B: U64, rows: Rows, segments_BT: Any, positions_BT: Any, ids_BT: Any) -> NDArray[np.int64]:
    """(B, T) of rows as they were read, by their columns."""
    columns_T: U64 = np.arange(1, ids_BT.shape[1] + 1, dtype=np.uint64) * GOLDEN
    return mix(keys_B[:, None] + columns_T).view(np.int64)


def _of_texts(keys_E: U64, rows: Rows, segments_BT: Any, positions_BT: Any, ids_BT: Any) -> NDArray[np.int64]:
    """(B, T) by the place in the text and the number of the text in its example; 0 where nothing is."""
    there, text, place = tokens_of_texts(segments_BT, positions_BT)
    texts_E = np.add.reduceat(rows.position_ids == 0, rows.offsets[:-1]).astype(np.int64)
    assert text[-1] + 1 == texts_E.sum(), "the texts of a batch are those of its rows"
    number = np.arange(texts_E.sum()) - np.repeat(np.cumsum(texts_E) - texts_E, texts_E)
    keys_M = mix(np.repeat(keys_E, texts_E) + number.astype(np.uint64) * GOLDEN)
    found = np.zeros(segments_BT.shape, np.uint64)
    found.reshape(-1)[there] = mix(keys_M[text] + (place + 1).astype(np.uint64) * GOLDEN)
    return found.view(np.int64)
