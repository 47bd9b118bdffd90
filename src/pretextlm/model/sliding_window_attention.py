"""Sliding-window attention with global tokens, in time and memory that grow linearly with the row.

The row is cut into blocks as long as the window reaches; a block's queries attend to the keys of their own block and of
those beside it, and no T×T matrix is ever built (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150). For a reach
of 4:

    queries          | q0 … q3 | q4 … q7 | q8 …
    keys of block 1  | k0 … k3 | k4 … k7 | k8 … k11      a causal row leaves out the last third

q5 reaches k1 … k9, all of which are among these 12 keys; an additive mask hides k0, k10 and k11 from it. So a row of
N·R positions costs N blocks of R × 3R scores instead of (N·R)²: 4,096 positions with a reach of 32 need 96 scores each
instead of 4,096.

Global tokens, the first of each document, attend to all of it, and all of it attends to them: their keys are appended
to every block's, and their own queries are computed separately over the full row and written over the blocks' result.

Axis letters: B rows, T positions, N blocks, R reach (positions of a block), W keys of a block (2R or 3R), G global
tokens of a row at most, H heads, K key-value heads, E head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from pretextlm.model.biased_attention import attend_masked

MIN_WINDOWS_IN_ROW = 4
MIN_ROW_IN_BLOCKS = 512
"""Windows and tokens in a row from which blocks are cheaper than a matrix of all pairs. Blocks of few tokens are many
small products: a window of 16 in rows of 128 tokens takes seven times as long in blocks (benchmarks/long_attention.py).
"""


@dataclass(frozen=True)
class SlidingWindowMask:
    """The mask of a window, computed once per batch.

    Attributes:
        reach: R, how many positions to a side are visible; for a causal row its own position is one of them.
        causal: Whether only earlier positions are visible.
        bias: (B·N, 1, R, W + G) added to the scores of each block, 0 or -inf.
        global_columns: (B, G) columns of global tokens, 0 where a row has fewer; None without any.
        global_bias: (B, 1, G, T) of the global tokens' own queries.
        is_global: (B, G) which of the columns are real.
    """

    reach: int
    causal: bool
    bias: Tensor
    global_columns: Tensor | None = None
    global_bias: Tensor | None = None
    is_global: Tensor | None = None


def cheaper_in_blocks(window: int, length: int) -> bool:
    """Returns whether blocks are cheaper than a matrix of all pairs, for a window in rows of `length` tokens."""
    return window > 0 and max(MIN_WINDOWS_IN_ROW * window, MIN_ROW_IN_BLOCKS) <= length


def sliding_window_mask(
    segments_BT: Tensor,
    positions_BT: Tensor,
    window: int,
    global_tokens: int,
    causal: bool,
    dtype: torch.dtype,
    max_globals: int | None = None,
) -> SlidingWindowMask:
    """Build the mask of rows of documents, each of them contiguous with positions that count up.

    Args:
        segments_BT: Document of each position, -1 for padding.
        positions_BT: Position in the document.
        window: Width of the window, as in `AttentionConfig.sliding_windows`.
        global_tokens: Tokens at the beginning of each document that attend to all of it and that all of it attends to.
        causal: Whether only earlier positions are visible.
        dtype: Type of the activations.
        max_globals: G, where it is known; else it is counted, for which the host waits.
    """
    reach = window if causal else max(1, window // 2)
    positions_BT0 = torch.where(segments_BT < 0, 0, positions_BT)
    # Segments that fill the last block up (-2) and those beyond the row's ends (-3) equal no segment of a token, nor
    # each other, nor padding (-1): no extra mask is needed to hide them.
    query_segments, query_positions = _blocks(segments_BT, reach, -2), _blocks(positions_BT0, reach, 0)
    key_segments, key_positions = _neighbours(query_segments, causal, -3), _neighbours(query_positions, causal, 0)
    same = query_segments[..., :, None] == key_segments[..., None, :]
    distance = query_positions[..., :, None] - key_positions[..., None, :]
    near = (distance >= 0) & (distance < window) if causal else distance.abs() <= window // 2
    near |= (query_segments < 0)[..., :, None] & same  # padding attends to padding: a row of -inf alone gives NaN
    columns = is_global = own_bias = None
    if global_tokens:
        columns, is_global = _global_columns(segments_BT, positions_BT, global_tokens, max_globals)
        segment_BG, position_BG = segments_BT.gather(1, columns), positions_BT.gather(1, columns)
        # A global token's key is appended to every block, so it is hidden among the neighbours: it would count twice.
        near &= (key_positions >= global_tokens)[..., None, :] | (key_segments < 0)[..., None, :]
        to_global = (query_segments[..., None] == segment_BG[:, None, None, :]) & is_global[:, None, None, :]
        if causal:
            to_global &= position_BG[:, None, None, :] <= query_positions[..., None]
        visible = torch.cat([same & near, to_global], dim=-1)
        from_global_BGT = segment_BG[:, :, None] == segments_BT[:, None, :]
        if causal:
            from_global_BGT &= positions_BT[:, None, :] <= position_BG[:, :, None]
        own_bias = _additive(from_global_BGT | ~is_global[:, :, None], dtype)[:, None]
    else:
        visible = same & near
    visible |= (query_segments == -2)[..., None]  # queries that only fill the last block up attend to anything
    bias = _additive(visible, dtype).flatten(0, 1)[:, None]
    return SlidingWindowMask(reach, causal, bias, columns, own_bias, is_global)


def attend_sliding_window(
    q_BTHE: Tensor,
    k_BTKE: Tensor,
    v_BTKE: Tensor,
    mask: SlidingWindowMask,
    scale: float,
    global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """Compute softmax(scale · q·k) v over the window and the global tokens.

    Args:
        q_BTHE: Queries.
        k_BTKE: Keys.
        v_BTKE: Values.
        mask: Made by `sliding_window_mask`.
        scale: Factor of the scores.
        global_qkv: Queries, keys and values for the global tokens' own rows; None for the first three.
        softcap: Bound of the scores; 0 for none.

    Returns:
        (B, T, H, E).
    """
    rows, width, heads, size = q_BTHE.shape
    q = _blocks(q_BTHE, mask.reach, 0).flatten(0, 1)
    k, v = (_neighbours(_blocks(x, mask.reach, 0), mask.causal, 0) for x in (k_BTKE, v_BTKE))
    if mask.global_columns is not None:
        k, v = (
            torch.cat([blocks, _gather(x, mask.global_columns)[:, None].expand(-1, blocks.size(1), -1, -1, -1)], dim=2)
            for blocks, x in ((k, k_BTKE), (v, v_BTKE))
        )
    out = attend_masked(q, k.flatten(0, 1), v.flatten(0, 1), mask.bias, scale, softcap)
    out = out.reshape(rows, -1, heads, size)[:, :width]
    if mask.global_columns is None:
        return out
    assert mask.global_bias is not None, "global tokens have a mask of their own"
    assert mask.is_global is not None, "global tokens are known"
    queries, keys, values = global_qkv or (q_BTHE, k_BTKE, v_BTKE)
    own = attend_masked(_gather(queries, mask.global_columns), keys, values, mask.global_bias, scale, softcap)
    # Results of columns that are not real go to one more position, which is cut off: the device counts nothing.
    columns_BG = torch.where(mask.is_global, mask.global_columns, width)
    index = columns_BG[:, :, None, None].expand_as(own)
    return pad(out, (0, 0, 0, 0, 0, 1)).scatter_(1, index, own)[:, :width]


def _blocks(x: Tensor, reach: int, fill: int) -> Tensor:
    """(B, T, …) → (B, N, R, …); the last block is filled up."""
    missing = -x.size(1) % reach
    if missing:
        x = pad(x, (0, 0) * (x.ndim - 2) + (0, missing), value=fill)
    return x.reshape(x.size(0), -1, reach, *x.shape[2:])


def _neighbours(blocks: Tensor, causal: bool, fill: int) -> Tensor:
    """(B, N, R, …) → (B, N, W, …): each block with the one before it, and unless causal the one after it.

    Blocks [ab][cd][ef] become [..ab cd][ab cd ef][cd ef ..]; a causal row [..ab][ab cd][cd ef].
    """
    tail = (0, 0) * (blocks.ndim - 2)
    before = pad(blocks[:, :-1], (*tail, 1, 0), value=fill)
    if causal:
        return torch.cat([before, blocks], dim=2)
    return torch.cat([before, blocks, pad(blocks[:, 1:], (*tail, 0, 1), value=fill)], dim=2)


def count_globals(
    segments_BT: NDArray[Any] | None, positions_BT: NDArray[Any] | None, shape: tuple[int, int], count: int
) -> int:
    """Returns how many global tokens a row of (B, T) has at most, where the first `count` of each document are global.

    Without segments, a row is one document; without positions, they are those of columns.
    """
    is_global = np.broadcast_to((np.arange(shape[1]) if positions_BT is None else positions_BT) < count, shape)
    return int((is_global if segments_BT is None else is_global & (segments_BT >= 0)).sum(axis=1).max())


def _global_columns(segments_BT: Tensor, positions_BT: Tensor, count: int, most: int | None) -> tuple[Tensor, Tensor]:
    """(B, G) columns of the first `count` tokens of each document, and which of them are real.

    A stable sort of "is not global" moves the global columns to the front in their order; rows with fewer than G of
    them get column 0 for the rest.
    """
    is_global = (positions_BT < count) & (segments_BT >= 0)
    most = int(is_global.sum(dim=1).max()) if most is None else most
    order = torch.argsort(~is_global, dim=1, stable=True)[:, :most]
    real = is_global.gather(1, order)
    return torch.where(real, order, 0), real


def _gather(x_BTHE: Tensor, columns_BG: Tensor) -> Tensor:
    """(B, G, H, E) the given columns of each row."""
    index = columns_BG[:, :, None, None].expand(-1, -1, x_BTHE.size(2), x_BTHE.size(3))
    return x_BTHE.gather(1, index)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(visible, torch.zeros((), dtype=dtype, device=visible.device), float("-inf"))
