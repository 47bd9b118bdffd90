"""Attention under a mask: one function, `attend`, with backends that are tested to be equal.

* sdpa: `scaled_dot_product_attention` over (B, T) rows with a mask tensor; runs everywhere. On a CPU in half precision
  its backward pass is two to three times slower than plain matrix products while rows are short, so there the products
  are written out ("eager").
* sliding_window_attention.py: blocks of a window and global tokens, linear in the row's length, where a window is short
  beside the row.
* block_sparse_attention.py: blocks of a document most of which attend to few others (BigBird), linear in the row's
  length.
* varlen: flat tokens with cumulative segment lengths (cu_seqlens), no work between segments, windows in the kernel; in
  half precision on CUDA from compute capability 8.0 on.

Axis letters: B rows, T query positions, S key positions, H heads, K key-value heads, E head_dim, G segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pretextlm.attention_mask import AttentionKind, may_attend
from pretextlm.errors import UserError
from pretextlm.memory import ensure_memory
from pretextlm.model.biased_attention import attend_eager
from pretextlm.model.block_sparse_attention import (
    BlockSparseMask,
    BlockSparsity,
    attend_block_sparse,
    block_sparse_mask,
)
from pretextlm.model.disentangled_attention import RelativePositions
from pretextlm.model.sliding_window_attention import (
    SlidingWindowMask,
    attend_sliding_window,
    cheaper_in_blocks,
    count_globals,
    sliding_window_mask,
)

BYTES_OF_A_PAIR = 5
"""Memory of a mask on a CPU for each pair of tokens: a boolean, and the fp32 number that is added to the score."""
MAX_VARLEN_HEAD_DIM = 256
MAX_EAGER_KEYS = 256
"""Keys up to which eager products are faster on a CPU in half precision (measured by benchmarks/attention.py)."""


@dataclass(frozen=True)
class AttentionMask:
    """The mask of one attention, computed once per batch and shared by all layers, in the form its backend needs.

    Attributes:
        bias: (B, 1, T, S) added to the scores, 0 or -inf, or (B, H, T, S) with a bias of positions; None when every
            pair (or every earlier one) is visible.
        causal: Without a bias, only earlier positions are visible.
        cu_seqlens_q: (G+1,) int32 starts of the segments in the flat queries; None unless the backend is varlen.
        cu_seqlens_k: (G+1,) int32 starts of the segments in the flat keys.
        max_seqlen_q: Bound of the queries' segment lengths, a constant for the compiler.
        max_seqlen_k: Bound of the keys' segment lengths.
        reach: In the varlen kernel, how many tokens to the left and right are visible; -1 for all.
        eager: Write the matrix products out instead of calling the fused kernel.
        sliding_window: The mask of a window in blocks, which needs none of the others.
        block_sparse: A block-sparse mask, which needs none of the others.
        relative: Relative positions that each layer compares with contents, in DeBERTa.
        last_keys: Only the last so many keys are read, and the bias is of these; 0 for all.
    """

    bias: Tensor | None = None
    causal: bool = False
    cu_seqlens_q: Tensor | None = None
    cu_seqlens_k: Tensor | None = None
    max_seqlen_q: int = 0
    max_seqlen_k: int = 0
    reach: tuple[int, int] = (-1, -1)
    eager: bool = False
    sliding_window: SlidingWindowMask | None = None
    block_sparse: BlockSparseMask | None = None
    relative: RelativePositions | None = None
    last_keys: int = 0


def attend(
    q_BTHE: Tensor,
    k_BSKE: Tensor,
    v_BSKE: Tensor,
    mask: AttentionMask,
    scale: float = 0.0,
    softcap: float = 0.0,
    global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Compute softmax(scale · q·k) v over the visible keys.

    Args:
        q_BTHE: Queries.
        k_BSKE: Keys, with as many heads as the queries or a divisor of it.
        v_BSKE: Values.
        mask: Which keys are visible, and the backend.
        scale: Factor of the scores; 0 for 1/√E.
        softcap: Bound of the scores; 0 for none. With one, the mask must be a bias or in blocks.
        global_qkv: Queries, keys and values for global tokens, where these have projections of their own.

    Returns:
        (B, T, H, E).
    """
    default_scale = q_BTHE.size(-1) ** -0.5
    scale = scale or default_scale
    if mask.last_keys:
        k_BSKE, v_BSKE = k_BSKE[:, -mask.last_keys :], v_BSKE[:, -mask.last_keys :]
    if mask.sliding_window is not None:
        return attend_sliding_window(q_BTHE, k_BSKE, v_BSKE, mask.sliding_window, scale, global_qkv, softcap)
    if mask.block_sparse is not None:
        return attend_block_sparse(q_BTHE, k_BSKE, v_BSKE, mask.block_sparse, scale, softcap)
    assert global_qkv is None, "global tokens with projections of their own are computed in blocks"
    if softcap:
        assert mask.cu_seqlens_q is None, "bounded scores are written out"
        assert not mask.causal, "bounded scores are written out"
        return attend_eager(q_BTHE, k_BSKE, v_BSKE, mask.bias, scale, softcap)
    if mask.cu_seqlens_q is not None:
        q_BTHE = q_BTHE if scale == default_scale else q_BTHE * (scale / default_scale)  # the kernel scales by 1/√E
        return _attend_varlen(q_BTHE, k_BSKE, v_BSKE, mask)
    grouped = q_BTHE.size(2) != k_BSKE.size(2)
    if mask.eager and not grouped:
        return attend_eager(q_BTHE, k_BSKE, v_BSKE, mask.bias, scale)
    if grouped and q_BTHE.size(1) == 1 and not mask.causal and (mask.bias is None or mask.bias.size(1) == 1):
        return _attend_one_query(q_BTHE, k_BSKE, v_BSKE, mask, scale)
    out = scaled_dot_product_attention(
        q_BTHE.transpose(1, 2),
        k_BSKE.transpose(1, 2),
        v_BSKE.transpose(1, 2),
        attn_mask=mask.bias,
        is_causal=mask.causal,
        scale=scale,
        enable_gqa=grouped,
    )
    return out.transpose(1, 2)


def _attend_one_query(q_B1HE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: AttentionMask, scale: float) -> Tensor:
    """Attend from one position with grouped keys, without repeating a key.

    The H / K query heads of a key head take the place of query positions: with H = 8 and K = 2, (B, 1, 8, E) becomes
    (B, 2 heads, 4 positions, E), and each of the four meets the keys of its head.
    """
    rows, _, heads, width = q_B1HE.shape
    q_BKGE = q_B1HE.reshape(rows, k_BSKE.size(2), -1, width)
    keys, values = k_BSKE.transpose(1, 2), v_BSKE.transpose(1, 2)
    out = scaled_dot_product_attention(q_BKGE, keys, values, attn_mask=mask.bias, scale=scale)
    return out.reshape(rows, 1, heads, width)


def varlen_kernel(*args: Any, **kwargs: Any) -> Tensor:
    """Call torch's packed-sequence attention, imported late: it exists from torch 2.10 on, for CUDA only."""
    from torch.nn.attention.varlen import varlen_attn

    result = varlen_attn(*args, **kwargs)
    assert isinstance(result, Tensor), "the log-sum-exp was not requested"
    return result


def _attend_varlen(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: AttentionMask) -> Tensor:
    groups = q_BTHE.size(2) // k_BSKE.size(2)
    if groups > 1:
        k_BSKE = k_BSKE.repeat_interleave(groups, dim=2)
        v_BSKE = v_BSKE.repeat_interleave(groups, dim=2)
    out = varlen_kernel(
        q_BTHE.flatten(0, 1),
        k_BSKE.flatten(0, 1),
        v_BSKE.flatten(0, 1),
        mask.cu_seqlens_q,
        mask.cu_seqlens_k,
        mask.max_seqlen_q,
        mask.max_seqlen_k,
        window_size=mask.reach,
    )
    return out.view_as(q_BTHE)


def use_varlen(device: torch.device, dtype: torch.dtype, attention: AttentionKind, head_dim: int = 64) -> bool:
    """Returns whether the varlen backend can compute this kind of attention on this device.

    The kernel is that of FlashAttention 2: tensor cores of compute capability 8.0 and heads of at most 256 columns.
    """
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and attention in ("causal", "bidirectional")
        and head_dim <= MAX_VARLEN_HEAD_DIM
        and head_dim % 8 == 0
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _use_eager(device: torch.device, dtype: torch.dtype, keys: int) -> bool:
    return device.type == "cpu" and dtype == torch.bfloat16 and keys <= MAX_EAGER_KEYS


def backend_name(device: torch.device, dtype: torch.dtype, attention: AttentionKind, keys: int) -> str:
    """Returns the backend that computes the attention of plain rows of `keys` tokens there, for people to read."""
    if use_varlen(device, dtype, attention):
        return "varlen kernel"
    return "written-out products" if _use_eager(device, dtype, keys) else "scaled_dot_product_attention"


def self_attention_mask(
    segments_BT: Tensor | None,
    positions_BT: Tensor | None,
    prefix_BT: Tensor | None,
    attention: AttentionKind,
    shape: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    ranks_BT: Tensor | None = None,
    reach_BT: Tensor | None = None,
    window: int = 0,
    needs_bias: bool = False,
    global_tokens: int = 0,
    always_in_blocks: bool = False,
    has_softcap: bool = False,
    sparsity: BlockSparsity | None = None,
    head_dim: int = 64,
    host_segments: Any = None,
    host_positions: Any = None,
) -> AttentionMask:
    """Build the mask of self-attention, for the backend that suits it.

    Args:
        segments_BT: Document of each position, -1 for padding; None when every row is one document.
        positions_BT: Position inside the document; None for 0 … T-1.
        prefix_BT: Length of the bidirectional part of each token's document, for "prefix".
        attention: Kind of the mask.
        shape: (B, T).
        device: Where the mask is needed.
        dtype: Type of the activations.
        ranks_BT: Rank of each token, for "ranked".
        reach_BT: Reach of each token, for "ranked".
        window: Width of the window, as in `AttentionConfig.sliding_windows`; 0 for none.
        needs_bias: Always give a tensor, to which a bias of positions is added.
        global_tokens: Tokens at each document's beginning that attend to all of it and that all of it attends to,
            whatever the window.
        always_in_blocks: Compute a window in blocks however short the row is.
        has_softcap: Scores are bounded, for which a tensor is needed, or blocks.
        sparsity: Block-sparse attention, for rows in which a document may be too long for full attention.
        head_dim: Width of a head.
        host_segments: `segments_BT` as an array of numpy, from which the starts of segments are found without waiting
            for the device.
        host_positions: `positions_BT` as an array of numpy.

    Raises:
        UserError: Block-sparse attention of rows that are not bidirectional.
    """
    if sparsity is not None and shape[1] > sparsity.max_full_length:
        if attention != "bidirectional":
            raise UserError(
                "Block-sparse attention reads rows in both directions only.", "Give attention.block_size = 0."
            )
        segments = _on_host(host_segments, segments_BT)
        segments = np.zeros(shape, dtype=np.int32) if segments is None else np.ascontiguousarray(segments)
        return AttentionMask(block_sparse=block_sparse_mask(torch.from_numpy(segments), sparsity).to(device))
    plain = not needs_bias and not has_softcap and not (window and global_tokens) and not always_in_blocks
    if plain and use_varlen(device, dtype, attention, head_dim):
        starts = _to_device(segment_starts(_on_host(host_segments, segments_BT), shape), device)
        reach = _reach(attention, window)
        return AttentionMask(None, attention == "causal", starts, starts, shape[1], shape[1], reach)
    in_blocks = window > 0 and not needs_bias and attention in ("causal", "bidirectional")
    in_blocks = in_blocks and (always_in_blocks or cheaper_in_blocks(window, shape[1]))
    max_globals = None
    if in_blocks and global_tokens:
        segments, places = _on_host(host_segments, segments_BT), _on_host(host_positions, positions_BT)
        max_globals = count_globals(segments, places, shape, global_tokens)
    needs_bias = needs_bias or has_softcap or window > 0
    eager = _use_eager(device, dtype, shape[1])
    if segments_BT is None and attention == "bidirectional" and not needs_bias:
        return AttentionMask(eager=eager)
    if segments_BT is None and attention == "causal" and not eager and not needs_bias:
        return AttentionMask(causal=True)
    if segments_BT is None:
        segments_BT = torch.zeros(shape, dtype=torch.int32, device=device)
    if positions_BT is None:
        positions_BT = torch.arange(shape[1], dtype=torch.int32, device=device).expand(shape)
    if in_blocks:
        causal = attention == "causal"
        sliding = sliding_window_mask(segments_BT, positions_BT, window, global_tokens, causal, dtype, max_globals)
        return AttentionMask(sliding_window=sliding)
    _ensure_memory(segments_BT, segments_BT)
    visible = may_attend(segments_BT, segments_BT, positions_BT, positions_BT, prefix_BT, attention, ranks_BT, reach_BT)
    if window:
        visible = visible & within_window(positions_BT, positions_BT, window, attention, global_tokens)
    return AttentionMask(_additive(visible, dtype), eager=eager)


def _reach(attention: AttentionKind, window: int) -> tuple[int, int]:
    """Returns how many tokens to either side of it a token attends to, -1 for all: see `within_window`."""
    if attention == "causal":
        return (window - 1 if window else -1, 0)
    return (window // 2, window // 2) if window else (-1, -1)


def within_window(
    query_positions_BT: Tensor, key_positions_BS: Tensor, window: int, attention: AttentionKind, global_tokens: int = 0
) -> Tensor:
    """Returns which keys lie in the window of each query, or are exempt from it.

    A causal window of 4 holds distances 0 … 3; a bidirectional one of 4 holds distances -2 … 2.

    Returns:
        (B, T, S) booleans.
    """
    distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
    near = distance_BTS < window if attention == "causal" else distance_BTS.abs() <= window // 2
    if not global_tokens:
        return near
    return near | (query_positions_BT < global_tokens)[:, :, None] | (key_positions_BS < global_tokens)[:, None, :]


def cross_attention_mask(
    query_segments_BT: Tensor | None,
    key_segments_BS: Tensor | None,
    query_shape: tuple[int, int],
    key_shape: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    needs_bias: bool = False,
    head_dim: int = 64,
    host_segments: tuple[Any, Any] = (None, None),
) -> AttentionMask:
    """Build the mask of a decoder's attention to the encoder's row: all of the same segment is visible.

    A query whose segment the encoder's row lacks (padding of the decoder's row) attends to all of that row, so that no
    result is NaN. The varlen backend, which `needs_bias` rules out, is used where both rows hold the same segments in
    the same order.

    Args:
        query_segments_BT: Segments of the decoder's row; None when every row is one segment.
        key_segments_BS: Segments of the encoder's row.
        query_shape: (B, T).
        key_shape: (B, S).
        device: Where the mask is needed.
        dtype: Type of the activations.
        needs_bias: Scores are bounded.
        head_dim: Width of a head.
        host_segments: Both segments as arrays of numpy.
    """
    if not needs_bias and use_varlen(device, dtype, "bidirectional", head_dim):
        own, theirs = _on_host(host_segments[0], query_segments_BT), _on_host(host_segments[1], key_segments_BS)
        queries, keys = segment_starts(own, query_shape), segment_starts(theirs, key_shape)
        if _same_segments(own, theirs, queries, keys, query_shape[1], key_shape[1]):
            starts = _to_device(queries, device), _to_device(keys, device)
            return AttentionMask(None, False, *starts, query_shape[1], key_shape[1])
    eager = _use_eager(device, dtype, key_shape[1])
    if query_segments_BT is None and key_segments_BS is None:
        return AttentionMask(eager=eager)
    if query_segments_BT is None:
        query_segments_BT = torch.zeros(query_shape, dtype=torch.int32, device=device)
    if key_segments_BS is None:
        key_segments_BS = torch.zeros(key_shape, dtype=torch.int32, device=device)
    _ensure_memory(query_segments_BT, key_segments_BS)
    visible = may_attend(query_segments_BT, key_segments_BS)
    return AttentionMask(_additive(visible | ~visible.any(dim=2, keepdim=True), dtype), eager=eager)


def cached_attention_mask(
    query_segments_BT: Tensor,
    key_segments_BS: Tensor,
    query_positions_BT: Tensor,
    key_positions_BS: Tensor,
    attention: AttentionKind,
    dtype: torch.dtype,
    window: int = 0,
    global_tokens: int = 0,
) -> AttentionMask:
    """Build the mask of new positions over all positions in the cache, padding included."""
    _ensure_memory(query_segments_BT, key_segments_BS)
    visible = may_attend(query_segments_BT, key_segments_BS, query_positions_BT, key_positions_BS, attention=attention)
    if window:
        visible = visible & within_window(query_positions_BT, key_positions_BS, window, attention, global_tokens)
    return AttentionMask(_additive(visible, dtype))


def _ensure_memory(query_segments_BT: Tensor, key_segments_BS: Tensor) -> None:
    """Raises MemoryError where a CPU has too little left for a mask."""
    if query_segments_BT.device.type == "cpu":
        ensure_memory(BYTES_OF_A_PAIR * query_segments_BT.numel() * key_segments_BS.shape[1])


def _additive(visible_BTS: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, S) 0 where a key is visible, else -inf."""
    zero = torch.zeros((), dtype=dtype, device=visible_BTS.device)
    return torch.where(visible_BTS, zero, float("-inf"))[:, None]


def segment_starts(segments_BT: NDArray[Any] | None, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Find where the segments of all rows begin when the rows are laid end to end.

    Args:
        segments_BT: Segment of each position; None when every row is one.
        shape: (B, T).

    Returns:
        (G+1,) starts and the end: rows [0 0 1], [0 1 1] give 0, 2, 3, 4, and 6.
    """
    rows, width = shape
    if segments_BT is None:
        return np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    first = np.ones(shape, dtype=bool)
    first[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return np.append(np.flatnonzero(first), rows * width).astype(np.int32)


def _on_host(array: Any, tensor: Tensor | None) -> NDArray[Any] | None:
    """The array where it is given; else the tensor is copied, for which the host waits."""
    return array if array is not None or tensor is None else tensor.cpu().numpy()


def _to_device(starts: NDArray[np.int32], device: torch.device) -> Tensor:
    """Tells the compiler that batches have different numbers of segments: else it would compile each number anew."""
    found = torch.from_numpy(starts).to(device, non_blocking=True)
    torch._dynamo.maybe_mark_dynamic(found, 0)
    return found


def _same_segments(
    query_segments_BT: NDArray[Any] | None,
    key_segments_BS: NDArray[Any] | None,
    queries: NDArray[np.int32],
    keys: NDArray[np.int32],
    query_width: int,
    key_width: int,
) -> bool:
    """Returns whether segments that start at `queries` and `keys` have the same numbers in the same rows."""
    if query_segments_BT is None and key_segments_BS is None:
        return True
    return np.array_equal(
        _rows_and_segments(query_segments_BT, queries, query_width),
        _rows_and_segments(key_segments_BS, keys, key_width),
    )


def _rows_and_segments(segments_BT: NDArray[Any] | None, starts: NDArray[np.int32], width: int) -> NDArray[np.int64]:
    """(2, G) row and number of the segments that start there."""
    flat = starts[:-1].astype(np.int64)
    numbers = np.zeros_like(flat) if segments_BT is None else segments_BT.reshape(-1)[flat].astype(np.int64)
    return np.stack([flat // width, numbers])
