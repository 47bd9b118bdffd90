"""Who sees whom, computed: one `attend` with backends that are tested equal.

* rows: scaled_dot_product_attention over (B, T) rows with a mask from the visibility rule; runs everywhere. On a CPU
  in half precision its backward is two to three times slower than plain matrix products while rows are short, so
  there the products are written out.
* windowed.py: blocks of a window and global tokens, linear in the row's length, where a window is short beside the row.
* sparse.py: blocks of a document of which most see few others (BigBird), linear in the row's length.
* varlen: flat tokens with cumulative segment lengths, no work between segments; CUDA in half precision only.

Axis letters: B rows, T query positions, S key positions, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pretextlm.attention_mask import Attention, visible
from pretextlm.errors import UserError
from pretextlm.model.biased_attention import attend_products
from pretextlm.model.block_sparse_attention import Sparse, Sparsity, attend_sparse, sparse_sight
from pretextlm.model.disentangled_attention import Places
from pretextlm.model.sliding_window_attention import BLOCKS_PAY, Local, attend_local, local_sight

LONGEST_PRODUCTS = 256
"""Keys up to which written-out products are used on a CPU in half precision (measured by benchmarks/attention.py)."""


@dataclass(frozen=True)
class Sight:
    """The visibility of one attention, made once per batch and shared by all layers.

    Attributes:
        bias: (B, 1, T, S) added to the scores, 0 or -inf, or (B, H, T, S) with a bias of positions; None when every
            pair (or every earlier one) is visible.
        causal: with no bias, only earlier positions are visible.
        cu_queries, cu_keys: (G+1,) int32 starts of the segments in the flat arrays; None for the rows backend.
        longest_query, longest_key: bounds of the segments' lengths, constants for the compiler.
        products: write the matrix products out instead of calling the fused kernel.
        local: a window's visibility in blocks, which needs none of the others.
        sparse: a block-sparse visibility, which needs none of the others.
        places: relative places that each layer compares with contents, where the model's positions are disentangled.
        last: only the last so many keys are looked at, and the bias is of these; 0: all.
    """

    bias: Tensor | None = None
    causal: bool = False
    cu_queries: Tensor | None = None
    cu_keys: Tensor | None = None
    longest_query: int = 0
    longest_key: int = 0
    products: bool = False
    local: Local | None = None
    sparse: Sparse | None = None
    places: Places | None = None
    last: int = 0


def attend(
    q_BTHE: Tensor,
    k_BSKE: Tensor,
    v_BSKE: Tensor,
    sight: Sight,
    scale: float = 0.0,
    softcap: float = 0.0,
    of_globals: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """softmax(scale · q·k) v over the visible keys, (B, T, H, E); a scale of 0 is 1/√E.

    With a softcap, scores are bounded to ± that by tanh, for which the visibility must be a bias or in blocks.
    `of_globals` are queries, keys and values for what global tokens see, where those have projections of their own.
    """
    usual = q_BTHE.size(-1) ** -0.5
    scale = scale or usual
    if sight.last:
        k_BSKE, v_BSKE = k_BSKE[:, -sight.last :], v_BSKE[:, -sight.last :]
    if sight.local is not None:
        return attend_local(q_BTHE, k_BSKE, v_BSKE, sight.local, scale, of_globals, softcap)
    if sight.sparse is not None:
        return attend_sparse(q_BTHE, k_BSKE, v_BSKE, sight.sparse, scale, softcap)
    assert of_globals is None, "global tokens with projections of their own are computed in blocks"
    if softcap:
        assert sight.cu_queries is None, "bounded scores are written out"
        assert not sight.causal, "bounded scores are written out"
        return attend_products(q_BTHE, k_BSKE, v_BSKE, sight.bias, scale, softcap)
    if sight.cu_queries is not None:
        return _attend_varlen(q_BTHE if scale == usual else q_BTHE * (scale / usual), k_BSKE, v_BSKE, sight)
    grouped = q_BTHE.size(2) != k_BSKE.size(2)
    if sight.products and not grouped:
        return attend_products(q_BTHE, k_BSKE, v_BSKE, sight.bias, scale)
    if grouped and q_BTHE.size(1) == 1 and not sight.causal and (sight.bias is None or sight.bias.size(1) == 1):
        return _attend_one(q_BTHE, k_BSKE, v_BSKE, sight, scale)
    out = scaled_dot_product_attention(
        q_BTHE.transpose(1, 2),
        k_BSKE.transpose(1, 2),
        v_BSKE.transpose(1, 2),
        attn_mask=sight.bias,
        is_causal=sight.causal,
        scale=scale,
        enable_gqa=grouped,
    )
    return out.transpose(1, 2)


def _attend_one(q_B1HE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, sight: Sight, scale: float) -> Tensor:
    """One query position: the heads that share keys are read like positions, so that no key is repeated."""
    rows, _, heads, width = q_B1HE.shape
    q_BKGE = q_B1HE.reshape(rows, k_BSKE.size(2), -1, width)
    keys, values = k_BSKE.transpose(1, 2), v_BSKE.transpose(1, 2)
    out = scaled_dot_product_attention(q_BKGE, keys, values, attn_mask=sight.bias, scale=scale)
    return out.reshape(rows, 1, heads, width)


def varlen_kernel(*args: Any, **kwargs: Any) -> Tensor:
    """torch's packed-sequence attention, imported late: it is there from torch 2.10 on, for CUDA only."""
    from torch.nn.attention.varlen import varlen_attn

    result = varlen_attn(*args, **kwargs)
    assert isinstance(result, Tensor), "no log-sum-exp was asked for"
    return result


def _attend_varlen(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, sight: Sight) -> Tensor:
    groups = q_BTHE.size(2) // k_BSKE.size(2)
    if groups > 1:
        k_BSKE = k_BSKE.repeat_interleave(groups, dim=2)
        v_BSKE = v_BSKE.repeat_interleave(groups, dim=2)
    window = (-1, 0) if sight.causal else (-1, -1)
    out = varlen_kernel(
        q_BTHE.flatten(0, 1),
        k_BSKE.flatten(0, 1),
        v_BSKE.flatten(0, 1),
        sight.cu_queries,
        sight.cu_keys,
        sight.longest_query,
        sight.longest_key,
        window_size=window,
    )
    return out.view_as(q_BTHE)


def use_varlen(device: torch.device, dtype: torch.dtype, attention: Attention) -> bool:
    """Whether the varlen backend can compute this visibility on this device; else the rows backend does."""
    return (
        device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and attention in ("causal", "bidirectional")
    )


def _use_products(device: torch.device, dtype: torch.dtype, keys: int) -> bool:
    return device.type == "cpu" and dtype == torch.bfloat16 and keys <= LONGEST_PRODUCTS


def backend_name(device: torch.device, dtype: torch.dtype, attention: Attention, keys: int) -> str:
    """Which backend computes the attention of plain rows of so many tokens there, for people."""
    if use_varlen(device, dtype, attention):
        return "varlen kernel"
    return "written-out products" if _use_products(device, dtype, keys) else "scaled_dot_product_attention"


def self_sight(
    segments_BT: Tensor | None,
    positions_BT: Tensor | None,
    prefix_BT: Tensor | None,
    attention: Attention,
    shape: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    ranks_BT: Tensor | None = None,
    reach_BT: Tensor | None = None,
    window: int = 0,
    written_out: bool = False,
    global_tokens: int = 0,
    always_in_blocks: bool = False,
    capped: bool = False,
    sparsity: Sparsity | None = None,
) -> Sight:
    """Visibility inside one row. Segments None: every row is one whole segment.

    Args:
        window: tokens that one sees, as in `AttentionConfig.windows`; 0: all.
        global_tokens: tokens at each document's beginning that no window hides, and that see beyond theirs.
        written_out: always as a bias, to which that of positions is added.
        always_in_blocks: a window is computed in blocks however short the row is.
        capped: scores are bounded, for which a bias is needed, or blocks.
        sparsity: of a block-sparse visibility, for rows in which a document may be too long to be read as a whole.

    Raises:
        UserError: a block-sparse visibility of rows that are not read in both directions.
    """
    if sparsity is not None and shape[1] > sparsity.whole:
        if attention != "bidirectional":
            raise UserError(
                "Block-sparse attention reads rows in both directions only.", "Give attention.block_size = 0."
            )
        if segments_BT is None:
            segments_BT = torch.zeros(shape, dtype=torch.int32, device=device)
        return Sight(sparse=sparse_sight(segments_BT, sparsity))
    in_blocks = window > 0 and not written_out and attention in ("causal", "bidirectional")
    in_blocks = in_blocks and (always_in_blocks or shape[1] >= BLOCKS_PAY * window)
    written_out = written_out or capped or window > 0
    if not written_out and use_varlen(device, dtype, attention):
        starts = _segment_starts(segments_BT, shape, device)
        return Sight(None, attention == "causal", starts, starts, shape[1], shape[1])
    products = _use_products(device, dtype, shape[1])
    if segments_BT is None and attention == "bidirectional" and not written_out:
        return Sight(products=products)
    if segments_BT is None and attention == "causal" and not products and not written_out:
        return Sight(causal=True)
    if segments_BT is None:
        segments_BT = torch.zeros(shape, dtype=torch.int32, device=device)
    if positions_BT is None:
        positions_BT = torch.arange(shape[1], dtype=torch.int32, device=device).expand(shape)
    if in_blocks:
        return Sight(local=local_sight(segments_BT, positions_BT, window, global_tokens, attention == "causal", dtype))
    seen = visible(segments_BT, segments_BT, positions_BT, positions_BT, prefix_BT, attention, ranks_BT, reach_BT)
    if window:
        seen = seen & in_window(positions_BT, positions_BT, window, attention, global_tokens)
    return Sight(_bias(seen, dtype), products=products)


def in_window(
    query_positions_BT: Tensor, key_positions_BS: Tensor, window: int, attention: Attention, global_tokens: int = 0
) -> Tensor:
    """(B, T, S) which keys are near enough: the last `window` of a causal row, half as many to each side of another."""
    distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
    near = distance_BTS < window if attention == "causal" else distance_BTS.abs() <= window // 2
    if not global_tokens:
        return near
    return near | (query_positions_BT < global_tokens)[:, :, None] | (key_positions_BS < global_tokens)[:, None, :]


def cross_sight(
    query_segments_BT: Tensor | None,
    key_segments_BS: Tensor | None,
    query_shape: tuple[int, int],
    key_shape: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    written_out: bool = False,
) -> Sight:
    """Visibility of the encoder's row from the decoder's: everything inside the same segment.

    A query whose segment the encoder's row lacks (padding of the decoder's row alone) sees that whole row, so that no
    result is NaN. The varlen backend, which `written_out` rules out, is used where both rows hold the same segments in
    the same order.
    """
    if not written_out and use_varlen(device, dtype, "bidirectional"):
        queries = _segment_starts(query_segments_BT, query_shape, device)
        keys = _segment_starts(key_segments_BS, key_shape, device)
        if _same_order(query_segments_BT, key_segments_BS, queries, keys, query_shape, key_shape):
            return Sight(None, False, queries, keys, query_shape[1], key_shape[1])
    products = _use_products(device, dtype, key_shape[1])
    if query_segments_BT is None and key_segments_BS is None:
        return Sight(products=products)
    if query_segments_BT is None:
        query_segments_BT = torch.zeros(query_shape, dtype=torch.int32, device=device)
    if key_segments_BS is None:
        key_segments_BS = torch.zeros(key_shape, dtype=torch.int32, device=device)
    seen = visible(query_segments_BT, key_segments_BS)
    return Sight(_bias(seen | ~seen.any(dim=2, keepdim=True), dtype), products=products)


def cached_sight(
    query_segments_BT: Tensor,
    key_segments_BS: Tensor,
    query_positions_BT: Tensor,
    key_positions_BS: Tensor,
    attention: Attention,
    dtype: torch.dtype,
    window: int = 0,
    global_tokens: int = 0,
) -> Sight:
    """Visibility of new positions over all that was read so far, padding included."""
    seen = visible(query_segments_BT, key_segments_BS, query_positions_BT, key_positions_BS, attention=attention)
    if window:
        seen = seen & in_window(query_positions_BT, key_positions_BS, window, attention, global_tokens)
    return Sight(_bias(seen, dtype))


def _bias(seen_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    zero = torch.zeros((), dtype=dtype, device=seen_BTS.device)
    return torch.where(seen_BTS, zero, float("-inf"))[:, None]


def _segment_starts(segments_BT: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    """(G+1,) starts of the segments of all rows laid end to end."""
    rows, width = shape
    if segments_BT is None:
        return torch.arange(0, (rows + 1) * width, width, dtype=torch.int32, device=device)
    first = torch.ones(shape, dtype=torch.bool, device=device)
    first[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    starts = first.flatten().nonzero().flatten().to(torch.int32)
    end = torch.tensor([rows * width], dtype=torch.int32, device=device)
    return torch.cat([starts, end])


def _same_order(
    query_segments_BT: Tensor | None,
    key_segments_BS: Tensor | None,
    queries: Tensor,
    keys: Tensor,
    query_shape: tuple[int, int],
    key_shape: tuple[int, int],
) -> bool:
    """Whether two arrays that start segments at `queries` and `keys` start the same segments of the same rows."""
    if query_segments_BT is None and key_segments_BS is None:
        return True
    return torch.equal(
        _started(query_segments_BT, queries, query_shape[1]), _started(key_segments_BS, keys, key_shape[1])
    )


def _started(segments_BT: Tensor | None, starts: Tensor, width: int) -> Tensor:
    """(2, G) row and number of the segments that start there."""
    places = starts[:-1].long()
    numbers = torch.zeros_like(places) if segments_BT is None else segments_BT.flatten()[places].long()
    return torch.stack([places // width, numbers])
