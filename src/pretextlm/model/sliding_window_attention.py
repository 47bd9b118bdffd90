"""Attention inside a window, and to a few global tokens, in time and memory that grow linearly with the row.

The row is cut into blocks of the window's reach; a block's queries look at the keys of their own block and of those
beside it, and no T×T matrix is ever made (Beltagy et al. 2020, https://arxiv.org/abs/2004.05150). For a reach of 4:

    queries          | q0 … q3 | q4 … q7 | q8 …
    keys of block 1  | k0 … k3 | k4 … k7 | k8 … k11      a causal row leaves out the last third

Global tokens, the first of each document, see all of it and are seen by all of it: their keys are added to every
block's, and their own queries are computed apart over the whole row.

Axis letters: B rows, T positions, N blocks, R reach (positions of a block), W keys of a block, G global tokens of a
row at most, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pretextlm.model.biased_attention import attend_blocks

BLOCKS_PAY = 4
"""Reaches in a row from which blocks are cheaper than a matrix of all pairs."""


@dataclass(frozen=True)
class Local:
    """A windowed visibility, made once per batch.

    Attributes:
        reach: R, how many positions to a side are seen; for a causal row its own position is one of them.
        causal: only earlier positions are visible.
        bias: (B·N, 1, R, W + G) added to the scores of each block, 0 or -inf.
        globals: (B, G) columns of global tokens, 0 where a row has fewer; None without any.
        global_bias: (B, 1, G, T) of the global tokens' own queries.
        is_global: (B, G) which of the columns are real.
    """

    reach: int
    causal: bool
    bias: Tensor
    globals: Tensor | None = None
    global_bias: Tensor | None = None
    is_global: Tensor | None = None


def local_sight(
    segments_BT: Tensor, positions_BT: Tensor, window: int, global_tokens: int, causal: bool, dtype: torch.dtype
) -> Local:
    """The visibility of a row of documents, each in one piece with positions that count up.

    Args:
        segments_BT: document of each position, -1 for padding.
        positions_BT: position in the document.
        window: as in `AttentionConfig.windows`.
        global_tokens: tokens at the beginning of each document that see and are seen by all of it.
    """
    reach = window if causal else max(1, window // 2)
    places_BT = torch.where(segments_BT < 0, 0, positions_BT)
    fields = {"segment": (segments_BT, -2), "position": (places_BT, 0)}
    queries = {name: _blocks(value, reach, fill) for name, (value, fill) in fields.items()}
    keys = {name: _beside(block, causal, -3 if name == "segment" else 0) for name, block in queries.items()}
    same = queries["segment"][..., :, None] == keys["segment"][..., None, :]
    distance = queries["position"][..., :, None] - keys["position"][..., None, :]
    near = (distance >= 0) & (distance < window) if causal else distance.abs() <= window // 2
    near |= (queries["segment"] < 0)[..., :, None] & same  # padding sees padding: a query that sees nothing is NaN
    columns = held = own_bias = None
    if global_tokens:
        columns, held = _global_columns(segments_BT, positions_BT, global_tokens)
        segment_BG, position_BG = segments_BT.gather(1, columns), positions_BT.gather(1, columns)
        near &= (keys["position"] >= global_tokens)[..., None, :] | (keys["segment"] < 0)[..., None, :]
        to_global = (queries["segment"][..., None] == segment_BG[:, None, None, :]) & held[:, None, None, :]
        if causal:
            to_global &= position_BG[:, None, None, :] <= queries["position"][..., None]
        allowed = torch.cat([same & near, to_global], dim=-1)
        seen_BGT = segment_BG[:, :, None] == segments_BT[:, None, :]
        if causal:
            seen_BGT &= positions_BT[:, None, :] <= position_BG[:, :, None]
        own_bias = _bias(seen_BGT | ~held[:, :, None], dtype)[:, None]
    else:
        allowed = same & near
    allowed |= (queries["segment"] == -2)[..., None]  # what only fills up the last block looks anywhere
    return Local(reach, causal, _bias(allowed, dtype).flatten(0, 1)[:, None], columns, own_bias, held)


def attend_local(
    q_BTHE: Tensor,
    k_BTKE: Tensor,
    v_BTKE: Tensor,
    sight: Local,
    scale: float,
    of_globals: tuple[Tensor, Tensor, Tensor] | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """softmax(scale · q·k) v over the window and the global tokens, (B, T, H, E).

    Args:
        of_globals: other queries, keys and values (as the first three) for what the global tokens see.
        softcap: scores are bounded to ± that by tanh; 0: not bounded.
    """
    rows, width, heads, size = q_BTHE.shape
    q = _blocks(q_BTHE, sight.reach, 0).flatten(0, 1)
    k, v = (_beside(_blocks(x, sight.reach, 0), sight.causal, 0) for x in (k_BTKE, v_BTKE))
    if sight.globals is not None:
        k, v = (
            torch.cat([blocks, _at(x, sight.globals)[:, None].expand(-1, blocks.size(1), -1, -1, -1)], dim=2)
            for blocks, x in ((k, k_BTKE), (v, v_BTKE))
        )
    out = attend_blocks(q, k.flatten(0, 1), v.flatten(0, 1), sight.bias, scale, softcap)
    out = out.reshape(rows, -1, heads, size)[:, :width]
    if sight.globals is None:
        return out
    assert sight.global_bias is not None, "global tokens have their own visibility"
    assert sight.is_global is not None, "global tokens are known"
    queries, keys, values = of_globals or (q_BTHE, k_BTKE, v_BTKE)
    own = attend_blocks(_at(queries, sight.globals), keys, values, sight.global_bias, scale, softcap)
    row, nth = sight.is_global.nonzero(as_tuple=True)
    return out.index_put((row, sight.globals[row, nth]), own[row, nth])


def _blocks(x: Tensor, reach: int, fill: int) -> Tensor:
    """(B, T, …) → (B, N, R, …), filled up at the end."""
    missing = -x.size(1) % reach
    if missing:
        x = pad(x, (0, 0) * (x.ndim - 2) + (0, missing), value=fill)
    return x.reshape(x.size(0), -1, reach, *x.shape[2:])


def _beside(blocks: Tensor, causal: bool, fill: int) -> Tensor:
    """(B, N, R, …) → (B, N, W, …): each block with the one before it, and unless causal the one after it."""
    tail = (0, 0) * (blocks.ndim - 2)
    before = pad(blocks[:, :-1], (*tail, 1, 0), value=fill)
    if causal:
        return torch.cat([before, blocks], dim=2)
    return torch.cat([before, blocks, pad(blocks[:, 1:], (*tail, 0, 1), value=fill)], dim=2)


def _global_columns(segments_BT: Tensor, positions_BT: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, G) columns of the first `count` tokens of each document, and which of them are real."""
    is_global = (positions_BT < count) & (segments_BT >= 0)
    most = int(is_global.sum(dim=1).max())
    order = torch.argsort(~is_global, dim=1, stable=True)[:, :most]
    held = is_global.gather(1, order)
    return torch.where(held, order, 0), held


def _at(x_BTHE: Tensor, columns_BG: Tensor) -> Tensor:
    index = columns_BG[:, :, None, None].expand(-1, -1, x_BTHE.size(2), x_BTHE.size(3))
    return x_BTHE.gather(1, index)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(seen, torch.zeros((), dtype=dtype, device=seen.device), float("-inf"))
