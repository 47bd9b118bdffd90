"""Long texts in overlapping windows, without a loop over texts.

Axis letters: E texts, W windows of all of them, N tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


class Windows(NamedTuple):
    """The windows of several texts.

    Attributes:
        record: (W,) index of the text that each window belongs to.
        begin: (W,) its first token in that text.
        length: (W,) its tokens.
    """

    record: I64
    begin: I64
    length: I64


def windows(lengths: I64, room: NDArray[np.integer] | int, stride: int) -> Windows:
    """Returns windows of at most `room` tokens, each of which begins `stride` tokens after the one before.

    A text without a token has one empty window. A text of 10 tokens with a room of 6 and a stride of 3 needs
    1 + ⌈(10 - 6) / 3⌉ = 3 windows, at 0, 3 and 6 with 6, 6 and 4 tokens.

    Args:
        lengths: (E,) tokens of each text.
        room: tokens of every window, or (E,) of each text's windows.
        stride: at most the room, else tokens are lost.
    """
    room = np.broadcast_to(np.asarray(room, np.int64), lengths.shape)
    count = 1 + np.maximum(0, -(-(lengths - room) // stride))
    record = np.repeat(np.arange(len(lengths)), count)
    nth = np.arange(len(record)) - np.repeat(np.cumsum(count) - count, count)  # number of a window in its text
    begin = nth * stride
    return Windows(record, begin, np.minimum(room[record], lengths[record] - begin))
