"""The one attention mask of every architecture and objective. True means "may attend".

    query i may attend to key j  ⇔  same segment, and (position_j ≤ position_i  or  position_j < prefix)

`prefix` is the length of the segment's bidirectional part: 0 gives a causal model, the segment's length (or any larger
number) a bidirectional one, anything between a prefix LM. Rows of different kinds can share a batch, and so can
segments of one row: packed documents never attend to each other. A segment of 4 tokens with a prefix of 2:

    key        0 1 2 3
    query 0    1 1 . .
    query 1    1 1 . .
    query 2    1 1 1 .
    query 3    1 1 1 1

Where the order of prediction is not the order of the text (permutation language modelling, right to left), every token
has a rank and a reach instead, and i may attend to j ⇔ same segment and rank_j ≤ reach_i. The rule above is the special
case rank = -1 inside the prefix, rank = position elsewhere, and reach = position.
"""

from __future__ import annotations

from typing import Any, Literal

AttentionKind = Literal["causal", "bidirectional", "prefix", "ranked"]


def may_attend(
    query_segments: Any,
    key_segments: Any,
    query_positions: Any = None,
    key_positions: Any = None,
    prefix: Any = None,
    attention: AttentionKind = "bidirectional",
    key_ranks: Any = None,
    query_reach: Any = None,
) -> Any:
    """Compute the boolean attention mask, for numpy arrays and torch tensors alike.

    Args:
        query_segments: (B, Tq) segment of each query; -1 is padding, which forms a segment of its own and so never
            reaches text.
        key_segments: (B, Tk) segment of each key.
        query_positions: (B, Tq) position of each query inside its segment; not needed when bidirectional.
        key_positions: (B, Tk) likewise.
        prefix: (B, Tk) length of the bidirectional part of each key's segment; needed when attention is "prefix".
        attention: The kind that all rows share, where they do: it only saves work, the rule is the same.
        key_ranks: (B, Tk) rank of each key; needed when attention is "ranked".
        query_reach: (B, Tq) highest rank that each query may attend to; needed when attention is "ranked".

    Returns:
        (B, Tq, Tk) booleans.
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
