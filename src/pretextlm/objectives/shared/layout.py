"""Batches from the (source, target) of a denoising objective: the layout decides which row holds which of the two.

Source and target are (B, S) and (B, T) matrices without padding; an end token is part of each.

    source  a b c         encoder-decoder   input  a b c      decoder input  [PAD] x y     decoder labels  x y z
    target  x y z         prefix            input  a b c x y  labels         -  -  x y z   prefix 3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def write(source: I32, target: I32, vocabulary: Vocabulary, example_ids: I64, joint: bool) -> Batch:
    """Returns the batch with both in one decoder row if `joint`, else in a row each."""
    return (prefix if joint else encoder_decoder)(source, target, vocabulary, example_ids)


def encoder_decoder(source: I32, target: I32, vocabulary: Vocabulary, example_ids: NDArray[np.int64]) -> Batch:
    """Returns the batch whose encoder reads the source, and whose decoder reads the target shifted right by one."""
    shifted = np.empty_like(target)
    shifted[:, 0] = vocabulary.start
    shifted[:, 1:] = target[:, :-1]
    return Batch(input_ids=source, decoder_input_ids=shifted, decoder_labels=target, example_ids=example_ids)


def prefix(source: I32, target: I32, vocabulary: Vocabulary, example_ids: NDArray[np.int64]) -> Batch:
    """Returns the batch of source and target in one decoder row (B, S + T - 1), the source visible in both directions.

    The position that reads the source's last token predicts the target's first, and lies in the bidirectional part;
    the target's last token is predicted and never read.
    """
    rows, width = source.shape
    labels = np.full((rows, width + target.shape[1] - 1), IGNORE, dtype=np.int32)
    labels[:, width - 1 :] = target
    return Batch(
        input_ids=np.concatenate([source, target[:, :-1]], axis=1),
        labels=labels,
        prefix=np.full(labels.shape, width, dtype=np.int32),
        attention="prefix",
        example_ids=example_ids,
    )


def next_tokens(tokens: I32, segments: I32, positions: I32, example_ids: I64, isolate: bool) -> Batch:
    """Returns the inputs and labels (B, T) of a causal model: the label of a position is the token after it.

    Args:
        tokens: (B, T + 1).
        segments: (B, T + 1) document of each token, -1 for padding.
        positions: (B, T + 1) within the document.
        example_ids: (B,) of the rows.
        isolate: documents neither see nor predict each other; without it a row is one run of text.
    """
    here, following = segments[:, :-1], segments[:, 1:]
    padding = following < 0
    labels = tokens[:, 1:].copy()
    np.copyto(labels, IGNORE, where=padding | (following != here) if isolate else padding)
    batch = Batch(tokens[:, :-1].copy(), labels, attention="causal", example_ids=example_ids)
    if isolate:
        return dataclasses.replace(batch, segment_ids=here.copy(), position_ids=positions[:, :-1].copy())
    one = np.where(here < 0, np.int32(-1), np.int32(0)) if padding.any() else None
    return dataclasses.replace(batch, segment_ids=one)


def each_length(
    rows: Rows, vocabulary: Vocabulary, rng: CounterRNG, lay_out: Callable[[I32, I64, CounterRNG], Batch]
) -> Batch:
    """Returns the batch of rows of which some end in padding; each of these is laid out as the shorter text it is.

    Args:
        rows: all of one width.
        vocabulary: for the padding.
        rng: one stream per row.
        lay_out: (tokens (B, L), example ids, their generator) → batch, for rows of one length, 1 or more.
    """
    tokens = rows.matrix(rows.tokens)
    full = lay_out(tokens, rows.example_ids, rng)
    if rows.segment_ids.min(initial=0) >= 0:
        return full
    lengths = np.count_nonzero(rows.matrix(rows.segment_ids) >= 0, axis=1)
    parts = []
    for length in np.unique(lengths[lengths < rows.width]):
        short = np.flatnonzero(lengths == length)
        part = lay_out(tokens[short, : max(length, 1)], rows.example_ids[short], CounterRNG(rng.keys[short]))
        parts.append((short, part if length else part.map(lambda array: array[:, :0] if array.ndim > 1 else array)))
    return with_short_rows(full, parts, vocabulary)


def with_short_rows(full: Batch, parts: Iterable[tuple[NDArray[np.int64], Batch]], vocabulary: Vocabulary) -> Batch:
    """Returns a batch with some rows replaced by shorter ones, as at the end of an evaluation.

    Args:
        full: the batch at full width.
        parts: (row numbers, their narrower batch) for each width. The rest of these rows becomes padding: the pad id,
            segment -1, no label.
        vocabulary: for the pad id.
    """
    fills = {"input_ids": vocabulary.pad, "decoder_input_ids": vocabulary.pad, "prefix": 0}
    fills |= {"labels": IGNORE, "decoder_labels": IGNORE, "segment_ids": -1, "decoder_segment_ids": -1}
    fills |= {"position_ids": 0, "decoder_position_ids": 0}
    full = _with_segments(full)
    arrays = {name: getattr(full, name).copy() for name in fills if getattr(full, name) is not None}
    for rows, narrow in parts:
        part = _with_segments(narrow)
        for name, array in arrays.items():
            values = getattr(part, name)
            array[rows] = fills[name]
            array[rows, : values.shape[1]] = values
    return dataclasses.replace(full, **arrays)


def _with_segments(batch: Batch) -> Batch:
    """Returns the batch with explicit segments where they are None because each row is one segment."""
    segments, decoder = batch.segment_ids, batch.decoder_segment_ids
    if segments is None:
        segments = np.zeros_like(batch.input_ids)
    if decoder is None and batch.decoder_input_ids is not None:
        decoder = np.zeros_like(batch.decoder_input_ids)
    return dataclasses.replace(batch, segment_ids=segments, decoder_segment_ids=decoder)
