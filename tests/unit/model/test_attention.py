"""The backends of `attend` are one function: rows, written-out products and packed segments agree."""

import numpy as np
import pytest
import torch

from pretextlm.attention_mask import may_attend
from pretextlm.model import attention as module
from pretextlm.model.attention import AttentionMask, attend, cross_attention_mask, self_attention_mask

CPU = torch.device("cpu")
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0] * 8], dtype=torch.int32)
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [*range(8)]], dtype=torch.int32)


def qkv(heads: int = 4, key_heads: int = 4, keys: int = 8) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randn(2, 8, heads, 16), torch.randn(2, keys, key_heads, 16), torch.randn(2, keys, key_heads, 16))


def by_definition(q, k, v, seen):
    """softmax over the visible keys, one query at a time, in float64."""
    groups = q.size(2) // k.size(2)
    out = torch.zeros_like(q, dtype=torch.float64)
    for b in range(q.size(0)):
        for t in range(q.size(1)):
            for h in range(q.size(2)):
                keys = np.flatnonzero(seen[b, t])
                scores = k[b, keys, h // groups].double() @ q[b, t, h].double() / q.size(-1) ** 0.5
                out[b, t, h] = scores.softmax(0) @ v[b, keys, h // groups].double()
    return out.float()


def reference_varlen(q, k, v, cu_q, cu_k, max_q, max_k, *, window_size):
    """What the packed kernel computes, segment by segment; stands in for it where there is no CUDA."""
    out = torch.empty_like(q)
    for i in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        scores = torch.einsum("the,she->hts", q[rows], k[keys]) / q.size(-1) ** 0.5
        if window_size == (-1, 0):
            scores += torch.full(scores.shape[1:], float("-inf")).triu(1)
        out[rows] = torch.einsum("hts,she->the", scores.softmax(-1), v[keys])
    return out


@pytest.mark.parametrize("kind", ["causal", "bidirectional", "prefix"])
@pytest.mark.parametrize("segmented", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_the_rows_backend_follows_the_visibility_rule(kind, segmented, key_heads):
    q, k, v = qkv(key_heads=key_heads)
    segments = SEGMENTS if segmented else torch.zeros_like(SEGMENTS)
    positions = POSITIONS if segmented else torch.arange(8, dtype=torch.int32).expand(2, 8)
    prefix = torch.full_like(SEGMENTS, 2) if kind == "prefix" else None
    given = (segments, positions) if segmented else (None, None)
    mask = self_attention_mask(*given, prefix, kind, (2, 8), CPU, torch.float32)
    seen = may_attend(segments, segments, positions, positions, prefix, kind)
    torch.testing.assert_close(attend(q, k, v, mask), by_definition(q, k, v, seen), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_written_out_products_equal_the_fused_kernel_with_gradients(causal):
    mask = self_attention_mask(
        SEGMENTS, POSITIONS, None, "causal" if causal else "bidirectional", (2, 8), CPU, torch.float32
    )
    eager = AttentionMask(mask.bias, eager=True)
    results = []
    for chosen in (mask, eager):
        tensors = [t.requires_grad_() for t in qkv()]
        out = attend(*tensors, chosen)
        out.square().sum().backward()
        results.append([out, *(t.grad for t in tensors)])
    for fused, written in zip(*results, strict=True):
        torch.testing.assert_close(fused, written, atol=1e-5, rtol=1e-5)


def test_on_a_cpu_short_rows_in_half_precision_use_products_and_long_ones_do_not():
    assert self_attention_mask(None, None, None, "bidirectional", (1, 64), CPU, torch.bfloat16).eager
    assert not self_attention_mask(None, None, None, "bidirectional", (1, 4096), CPU, torch.bfloat16).eager
    assert not self_attention_mask(None, None, None, "bidirectional", (1, 64), CPU, torch.float32).eager


@pytest.mark.parametrize("kind", ["causal", "bidirectional"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_the_packed_backend_equals_the_rows_backend(monkeypatch, kind, key_heads):
    monkeypatch.setattr(module, "varlen_kernel", reference_varlen)
    q, k, v = qkv(key_heads=key_heads)
    rows = attend(q, k, v, self_attention_mask(SEGMENTS, POSITIONS, None, kind, (2, 8), CPU, torch.float32))
    monkeypatch.setattr(module, "use_varlen", lambda *_: True)
    packed = attend(q, k, v, self_attention_mask(SEGMENTS, POSITIONS, None, kind, (2, 8), CPU, torch.float32))
    torch.testing.assert_close(rows, packed, atol=1e-5, rtol=1e-5)


def test_the_packed_backend_equals_the_rows_backend_across_encoder_and_decoder(monkeypatch):
    monkeypatch.setattr(module, "varlen_kernel", reference_varlen)
    q, k, v = qkv(keys=10)
    keys = torch.tensor([[0] * 5 + [1] * 2 + [2] * 3, [0] * 10], dtype=torch.int32)
    rows = attend(q, k, v, cross_attention_mask(SEGMENTS, keys, (2, 8), (2, 10), CPU, torch.float32))
    monkeypatch.setattr(module, "use_varlen", lambda *_: True)
    packed = attend(q, k, v, cross_attention_mask(SEGMENTS, keys, (2, 8), (2, 10), CPU, torch.float32))
    torch.testing.assert_close(rows, packed, atol=1e-5, rtol=1e-5)


PADDED = torch.tensor([[0, 0, 0, 1, 1, -1, -1, -1], [0] * 8], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_of_the_decoder_alone_sees_the_whole_row_of_the_encoder(dtype):
    q, k, v = (x.to(dtype).requires_grad_() for x in qkv(keys=10))
    keys = torch.tensor([[0] * 5 + [1] * 5, [0] * 10], dtype=torch.int32)
    out = attend(q, k, v, cross_attention_mask(PADDED, keys, (2, 8), (2, 10), CPU, dtype))
    torch.testing.assert_close(out[0, 5:], attend(q, k, v, AttentionMask())[0, 5:], atol=1e-2, rtol=1e-2)
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_padding_of_the_decoder_alone_changes_nothing_that_the_others_see():
    q, k, v = qkv(keys=10)
    keys = torch.tensor([[0] * 5 + [1] * 5, [0] * 10], dtype=torch.int32)
    padded = attend(q, k, v, cross_attention_mask(PADDED, keys, (2, 8), (2, 10), CPU, torch.float32))
    full = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [0] * 8], dtype=torch.int32)
    whole = attend(q, k, v, cross_attention_mask(full, keys, (2, 8), (2, 10), CPU, torch.float32))
    assert torch.equal(padded[PADDED >= 0], whole[PADDED >= 0])


def test_the_packed_backend_is_left_where_the_rows_do_not_hold_the_same_segments(monkeypatch):
    monkeypatch.setattr(module, "use_varlen", lambda *_: True)
    whole = torch.zeros(2, 8, dtype=torch.int32)
    other = torch.tensor([[0] * 8, [0] * 5 + [-1] * 3], dtype=torch.int32)  # as many segments, of other rows

    def packed(queries, keys):
        return cross_attention_mask(queries, keys, (2, 8), (2, 8), CPU, torch.float32).cu_seqlens_q is not None

    first = torch.tensor([[0] * 5 + [-1] * 3, [0] * 8], dtype=torch.int32)
    assert packed(None, None)
    assert packed(whole, None)
    assert packed(None, whole)
    assert packed(other, other)
    assert not packed(whole, other)
    assert not packed(other, first)
    assert not packed(None, other)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the packed kernel runs on CUDA only")
def test_padding_of_one_row_alone_is_the_same_on_both_devices():
    q, k, v = qkv(keys=10)
    keys = torch.tensor([[0] * 5 + [1] * 5, [0] * 7 + [-1] * 3], dtype=torch.int32)
    expected = attend(q, k, v, cross_attention_mask(PADDED, keys, (2, 8), (2, 10), CPU, torch.float32))
    device = torch.device("cuda")
    mask = cross_attention_mask(PADDED.to(device), keys.to(device), (2, 8), (2, 10), device, torch.bfloat16)
    found = attend(*(x.to(device, torch.bfloat16) for x in (q, k, v)), mask)
    torch.testing.assert_close(found.float().cpu(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the packed kernel runs on CUDA only")
@pytest.mark.parametrize("kind", ["causal", "bidirectional"])
def test_the_packed_kernel_of_torch_equals_the_rows_backend_with_gradients(kind):
    device, results = torch.device("cuda"), []
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [t.to(device, dtype).requires_grad_() for t in qkv()]
        mask = self_attention_mask(SEGMENTS.to(device), POSITIONS.to(device), None, kind, (2, 8), device, dtype)
        assert (mask.cu_seqlens_q is not None) == (dtype == torch.bfloat16)
        out = attend(*tensors, mask)
        out.square().sum().backward()
        results.append([out.float(), *(t.grad.float() for t in tensors)])
    for rows, packed in zip(*results, strict=True):
        torch.testing.assert_close(rows, packed, atol=5e-2, rtol=5e-2)
