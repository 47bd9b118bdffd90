"""The one visibility rule of every architecture and objective. True always means "may attend".

    j is visible to i  ⇔  same segment, and (position_j ≤ position_i  or  position_j < prefix)

`prefix` is the length of the segment's bidirectional part: 0 makes a causal model, the segment's length (or any
number above it) a bidirectional one, anything between a prefix LM. Rows of different kinds share a batch, and so do
segments of one row: packed documents never see each other.

Where the order of seeing is not the order of the text (permutation language modelling, right to left), every token has
a rank and a reach instead, and j is visible to i ⇔ same segment and rank_j ≤ reach_i. The rule above is the case
rank = -1 inside the prefix, rank = position elsewhere, and reach = position.
"""

from __future__ import annotations

from typing import Any, Literal

Attention = Literal["causal", "bidirectional", "prefix", "ranked"]


def visible(
    query_segments: Any,
    key_segments: Any,
    query_positions: Any = None,
    key_positions: Any = None,
    prefix: Any = None,
    attention: Attention = "bidirectional",
    key_ranks: Any = None,
    query_reach: Any = None,
) -> Any:
    """The mask (B, Tq, Tk) as booleans, from numpy arrays or torch tensors alike.

    Args:
        query_segments, key_segments: (B, Tq) and (B, Tk) segment of each position; -1 is padding, which
            forms a segment of its own and so never reaches text.
        query_positions, key_positions: position of each token inside its segment; not needed when bidirectional.
        prefix: (B, Tk) length of the bidirectional part of each key's segment; needed when attention is "prefix".
        attention: the kind all rows share, where they do: it only saves work, the rule is the same.
        key_ranks, query_reach: (B, Tk) and (B, Tq); needed when attention is "ranked".
    """
    same = query_segments[:, :, None] == key_segments[:, None, :]
    if attention == "bidirectional":
        return same
    if attention == "ranked":
        return same & (key_ranks[:, None, :] <= query_reach[:, :, None])
    earlier = key_positions[:, None, :] <= query_positions[:, :, None]
    if attention == "causal":
        return same & earlier
    inside = (key_positions < prefix)[:, None, :]
    return same & (earlier | inside)
