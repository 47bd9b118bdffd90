"""Attention forward and backward against float64, for every form of mask, number format, head size and grouping."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from benchmarks.gpu.checks.common import assert_near
from benchmarks.gpu.isolation import item
from torch import Tensor

from pretextlm.attention_mask import may_attend
from pretextlm.model.attention import (
    AttentionMask,
    attend,
    cross_attention_mask,
    self_attention_mask,
    within_window,
)

SECTION = "2 attention"
ROWS, LENGTH, HEADS = 2, 384, 4
MOST = {torch.bfloat16: 1e-2, torch.float32: 1e-3}
"""Largest relative error of the output and of each gradient."""
PACKED = "the varlen kernel is CUDA's"


class Rows(NamedTuple):
    """Segments and positions (B, T)."""

    segments: Tensor
    positions: Tensor


def rows(lengths: list[list[int]], padding: bool = False) -> Rows:
    """Rows of documents of these lengths; with `padding` the last one of each row is padding."""
    segments, positions = [], []
    for row in lengths:
        numbers = [n if not padding or n + 1 < len(row) else -1 for n in range(len(row))]
        segments.append([n for n, length in zip(numbers, row, strict=True) for _ in range(length)])
        positions.append([p for length in row for p in range(length)])
    return Rows(torch.tensor(segments, dtype=torch.int32), torch.tensor(positions, dtype=torch.int32))


PACKED_ROWS = [[100, 1, 183, 100], [384]]


def reference(q: Tensor, k: Tensor, v: Tensor, visible_BTS: Tensor, softcap: float) -> Tensor:
    """softmax over the visible keys, by its definition, in float64."""
    groups = q.size(2) // k.size(2)
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bthe,bshe->bhts", q, k) / q.size(-1) ** 0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible_BTS[:, None], float("-inf"))
    return torch.einsum("bhts,bshe->bthe", scores.softmax(-1), v)


def compare(
    device: str,
    dtype: torch.dtype,
    mask: AttentionMask,
    visible_BTS: Tensor,
    heads: tuple[int, int] = (HEADS, HEADS),
    width: int = 64,
    softcap: float = 0.0,
    counted_BT: Tensor | None = None,
) -> str:
    """Compares `attend` with the reference on the same numbers, at the queries that count."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(visible_BTS.shape[1], heads[0]), (visible_BTS.shape[2], heads[1]), (visible_BTS.shape[2], heads[1])]
    given = [torch.randn(ROWS, length, n, width, generator=generator).to(dtype) for length, n in shapes]
    weight = torch.randn(given[0].shape, generator=generator).to(dtype)
    if counted_BT is not None:
        weight = weight * counted_BT[:, :, None, None]
    seen = visible_BTS | ~visible_BTS.any(2, keepdim=True)  # a query without keys does not count
    results = []
    for where, kind in ((device, dtype), ("cpu", torch.float64)):
        q, k, v = (x.to(where, kind, copy=True).requires_grad_() for x in given)
        exact = kind == torch.float64
        out = reference(q, k, v, seen, softcap) if exact else attend(q, k, v, mask, softcap=softcap)
        kept = out if counted_BT is None else out * counted_BT[:, :, None, None].to(where)
        (out * weight.to(where, kind)).sum().backward()
        results.append([kept, q.grad, k.grad, v.grad])
    errors = [
        assert_near(found, wanted, MOST[dtype], what)
        for found, wanted, what in zip(*results, ("output", "q", "k", "v"), strict=True)
    ]
    return f"largest relative error {max(errors):.1e}"


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def one_row_kind(device: str, case: str, **options: Any) -> str:
    """Self-attention of packed rows, in both directions or causal, as the library's own mask builder has it."""
    dtype, kind, width, heads = case.split(" ")
    given = rows(PACKED_ROWS)
    number_format = DTYPES[dtype]
    on_device = [x.to(device) for x in given]
    mask = self_attention_mask(*on_device, None, kind, (ROWS, LENGTH), torch.device(device), number_format)  # type: ignore[arg-type]
    if device == "cuda" and dtype == "bf16":
        assert mask.cu_seqlens_q is not None, "half precision on a GPU is packed"
    visible = may_attend(given.segments, given.segments, given.positions, given.positions, None, kind)  # type: ignore[arg-type]
    return compare(device, number_format, mask, visible, (HEADS, int(heads)), int(width))


@item(
    SECTION,
    cases=[
        *(f"bf16 {kind} {width} 4" for kind in ("causal", "bidirectional") for width in (64, 128, 256)),
        *(f"bf16 {kind} 64 {heads}" for kind in ("causal", "bidirectional") for heads in (2, 1)),
        *(f"fp32 {kind} 64 {heads}" for kind in ("causal", "bidirectional") for heads in (4, 2)),
    ],
)
def packed(device: str, case: str) -> str:
    return one_row_kind(device, case)


@item(SECTION, cases=["bf16 causal", "bf16 bidirectional", "fp32 causal", "fp32 bidirectional"])
def unpacked(device: str, case: str) -> str:
    """Rows of one document each, for which no mask is made."""
    dtype, kind = case.split(" ")
    mask = self_attention_mask(None, None, None, kind, (ROWS, LENGTH), torch.device(device), DTYPES[dtype])  # type: ignore[arg-type]
    whole = rows([[LENGTH]] * ROWS)
    visible = may_attend(whole.segments, whole.segments, whole.positions, whole.positions, None, kind)  # type: ignore[arg-type]
    return compare(device, DTYPES[dtype], mask, visible)


@item(SECTION, cases=["bf16 causal", "bf16 bidirectional", "fp32 bidirectional"])
def padding(device: str, case: str) -> str:
    """Rows that end in padding: nothing that counts sees it, and it gives no NaN."""
    dtype, kind = case.split(" ")
    given = rows([[200, 100, 84], [300, 84]], padding=True)
    on_device = [x.to(device) for x in given]
    mask = self_attention_mask(*on_device, None, kind, (ROWS, LENGTH), torch.device(device), DTYPES[dtype])  # type: ignore[arg-type]
    visible = may_attend(given.segments, given.segments, given.positions, given.positions, None, kind)  # type: ignore[arg-type]
    return compare(device, DTYPES[dtype], mask, visible, counted_BT=given.segments >= 0)


@item(SECTION, cases=["bf16 same", "bf16 missing", "fp32 same"])
def cross(device: str, case: str) -> str:
    """A decoder's row over an encoder's: the same segments, or a segment that the encoder's row lacks."""
    dtype, kind = case.split(" ")
    queries = rows([[100, 100, 56], [256]]).segments
    keys = rows([[184, 100, 100], [384]] if kind == "same" else [[284, 100], [384]]).segments
    shapes = (ROWS, queries.shape[1]), (ROWS, keys.shape[1])
    mask = cross_attention_mask(queries.to(device), keys.to(device), *shapes, torch.device(device), DTYPES[dtype])
    if device == "cuda" and dtype == "bf16":
        assert (mask.cu_seqlens_q is not None) == (kind == "same"), "packed where both rows hold the same segments"
    return compare(device, DTYPES[dtype], mask, may_attend(queries, keys))


@item(SECTION, needs_gpu=PACKED)
def empty_segments(device: str) -> str:
    """Segments of no tokens among the starts, as a fixed number of segments has them."""
    starts = torch.tensor([0, 0, 100, 100, 384, 768, 768, 768], dtype=torch.int32, device=device)
    mask = AttentionMask(None, True, starts, starts, LENGTH, LENGTH)
    given = rows([[100, 284], [384]])
    visible = may_attend(given.segments, given.segments, given.positions, given.positions, None, "causal")
    return compare(device, torch.bfloat16, mask, visible)


@item(
    SECTION,
    cases=[
        f"{dtype} {kind} {window} {extra}"
        for dtype in ("bf16", "fp32")
        for kind in ("causal", "bidirectional")
        for window, extra in ((16, "plain"), (300, "plain"), (16, "globals"), (16, "softcap"))
        if not (kind == "causal" and extra == "globals")
    ],
)
def windows(device: str, case: str) -> str:
    """Windows, short and long ones, whose masks have tiles without a visible pair; global tokens; bounded scores."""
    dtype, kind, width, extra = case.split(" ")
    window, global_tokens, softcap = int(width), 2 * (extra == "globals"), 5.0 * (extra == "softcap")
    given = rows(PACKED_ROWS)
    mask = self_attention_mask(
        *[x.to(device) for x in given],
        None,
        kind,  # type: ignore[arg-type]
        (ROWS, LENGTH),
        torch.device(device),
        DTYPES[dtype],
        window=window,
        global_tokens=global_tokens,
        has_softcap=softcap > 0,
    )
    visible = may_attend(given.segments, given.segments, given.positions, given.positions, None, kind)  # type: ignore[arg-type]
    visible &= within_window(given.positions, given.positions, window, kind, global_tokens)  # type: ignore[arg-type]
    return compare(device, DTYPES[dtype], mask, visible, softcap=softcap)


@item(SECTION, cases=["bf16 causal", "bf16 bidirectional", "fp32 causal"])
def bounded_scores(device: str, case: str) -> str:
    dtype, kind = case.split(" ")
    given = rows(PACKED_ROWS)
    on_device = [x.to(device) for x in given]
    where = torch.device(device)
    mask = self_attention_mask(*on_device, None, kind, (ROWS, LENGTH), where, DTYPES[dtype], has_softcap=True)  # type: ignore[arg-type]
    visible = may_attend(given.segments, given.segments, given.positions, given.positions, None, kind)  # type: ignore[arg-type]
    return compare(device, DTYPES[dtype], mask, visible, softcap=5.0)


@item(SECTION, cases=["bf16", "fp32"])
def prefix(device: str, case: str) -> str:
    given = rows(PACKED_ROWS)
    length = torch.full_like(given.segments, 40)
    on_device = [x.to(device) for x in (*given, length)]
    mask = self_attention_mask(*on_device, "prefix", (ROWS, LENGTH), torch.device(device), DTYPES[case])
    visible = may_attend(given.segments, given.segments, given.positions, given.positions, length, "prefix")
    return compare(device, DTYPES[case], mask, visible)
