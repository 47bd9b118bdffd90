"""The noise of span corruption as array functions: how much is hidden, where, and the two texts that come of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretextlm.keyed import Keyed

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def span_counts(length: int, rate: float, mean_span_length: float) -> tuple[int, int]:
    """(hidden tokens, spans) of a row of `length` tokens; at least one of each and one token of text before each span.

    The one place that rounds (half to even, as T5), so that the size of a row and its mask cannot disagree. A row of
    fewer than two tokens hides nothing.
    """
    if length < 2:
        return 0, 0
    noise = min(max(round(length * rate), 1), length - 1)
    spans = min(max(round(noise / mean_span_length), 1), noise, length - noise)
    return noise, spans


def hidden_lengths(rng: Keyed, streams: tuple[int, int], length: int, noise: int, spans: int) -> I64:
    """(B, spans, 2) runs of text and of hidden tokens in turn, uniform over all ways to cut so."""
    lengths = np.empty((len(rng.keys), spans, 2), dtype=np.int64)
    lengths[:, :, 0] = _composition(rng, streams[0], length - noise, spans)
    lengths[:, :, 1] = _composition(rng, streams[1], noise, spans)
    return lengths


def _composition(rng: Keyed, stream: int, total: int, parts: int) -> I64:
    """(B, parts) positive whole numbers that sum to `total`, uniform over all such sequences."""
    if not parts:
        return np.empty((len(rng.keys), 0), dtype=np.int64)
    edges = np.zeros((len(rng.keys), parts + 1), dtype=np.int64)
    cuts = rng.order(stream, total - 1, parts - 1)
    cuts.sort(axis=1)
    edges[:, 1:-1] = cuts + 1
    edges[:, -1] = total
    return np.diff(edges, axis=1)


def source_and_target(tokens: I32, lengths: I64, sentinels: I32, end: int) -> tuple[I32, I32]:
    """Cut (B, L) tokens into the text with a sentinel for each span, and the spans each after its sentinel.

    Both are made in place of a token: in the source the sentinel takes the span's first token, in the target the last
    token of text before it; what then stays is copied out.

    Args:
        lengths: (B, spans, 2) runs of text and hidden tokens in turn, each row summing to L.
        sentinels: (spans,) ids in order of use.
        end: id that closes both.

    Returns:
        source (B, text + spans + 1) and target (B, hidden + spans + 1); all rows have the same two widths.
    """
    rows = len(tokens)
    spans = lengths.shape[1]
    if not spans:
        ends = np.full((rows, 1), end, dtype=np.int32)
        return np.concatenate([tokens, ends], axis=1), ends
    flat_lengths = lengths.reshape(-1)
    hidden = np.repeat(np.tile(np.array([False, True]), rows * spans), flat_lengths)
    first = np.cumsum(flat_lengths)[::2]  # flat place of each span's first token
    marks = np.tile(sentinels, rows)
    return (
        _copy_out(tokens, ~hidden, first, marks, end),
        _copy_out(tokens, hidden, first - 1, marks, end),
    )


def _copy_out(tokens: I32, keep: NDArray[np.bool_], places: I64, marks: I32, end: int) -> I32:
    """The kept tokens of each row with `marks` written at flat `places`, and `end` after them."""
    marked = tokens.flatten()
    marked[places] = marks
    keep[places] = True
    kept = np.compress(keep, marked).reshape(len(tokens), -1)
    out = np.empty((len(tokens), kept.shape[1] + 1), dtype=np.int32)
    out[:, :-1] = kept
    out[:, -1] = end
    return out
