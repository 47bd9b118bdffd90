"""Long texts cut into windows that overlap, without a loop over texts.

Axis letters: E texts, W windows of all of them, N tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


class Windows(NamedTuple):
    """Attributes: record: (W,) the text each window is of; begin: (W,) its first token in that text; length: (W,)."""

    record: I64
    begin: I64
    length: I64


def windows(lengths: I64, room: NDArray[np.integer] | int, stride: int) -> Windows:
    """Each text in windows of at most `room` tokens, the next of which begins `stride` tokens after the last.

    A text without a token has one empty window.

    Args:
        lengths: (E,) tokens of each text.
        room: of all windows, or (E,) of each text's.
        stride: at most the room, else tokens are lost.
    """
    room = np.broadcast_to(np.asarray(room, np.int64), lengths.shape)
    count = 1 + np.maximum(0, -(-(lengths - room) // stride))
    record = np.repeat(np.arange(len(lengths)), count)
    nth = np.arange(len(record)) - np.repeat(np.cumsum(count) - count, count)
    begin = nth * stride
    return Windows(record, begin, np.minimum(room[record], lengths[record] - begin))
