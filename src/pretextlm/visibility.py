"""The one visibility rule of every architecture and objective. True always means "may attend".

    j is visible to i  ⇔  same segment, and (position_j ≤ position_i  or  position_j < prefix)

`prefix` is the length of the segment's bidirectional part: 0 makes a causal model, the segment's length (or any
number above it) a bidirectional one, anything between a prefix LM. Rows of different kinds share a batch, and so do
segments of one row: packed documents never see each other.
"""

from __future__ import annotations

from typing import Any, Literal

Attention = Literal["causal", "bidirectional", "prefix"]


def visible(
    query_segments: Any,
    key_segments: Any,
    query_positions: Any = None,
    key_positions: Any = None,
    prefix: Any = None,
    attention: Attention = "bidirectional",
) -> Any:
    """The mask (B, Tq, Tk) as booleans, from numpy arrays or torch tensors alike.

    Args:
        query_segments, key_segments: (B, Tq) and (B, Tk) segment of each position; -1 is padding, which
            forms a segment of its own and so never reaches text.
        query_positions, key_positions: position of each token inside its segment; not needed when bidirectional.
        prefix: (B, Tk) length of the bidirectional part of each key's segment; needed when attention is "prefix".
        attention: the kind all rows share, where they do: it only saves work, the rule is the same.
    """
    same = query_segments[:, :, None] == key_segments[:, None, :]
    if attention == "bidirectional":
        return same
    earlier = key_positions[:, None, :] <= query_positions[:, :, None]
    if attention == "causal":
        return same & earlier
    inside = (key_positions < prefix)[:, None, :]
    return same & (earlier | inside)
