"""The backends of `attend` are one function: rows, written-out products and packed segments agree."""

import dataclasses

import numpy as np
import pytest
import torch
from tests.builders import make_model

from pretextlm.attention_mask import may_attend
from pretextlm.batch import Batch
from pretextlm.model import attention as module
from pretextlm.model.attention import AttentionMask, attend, cross_attention_mask, self_attention_mask
from pretextlm.model.model_inputs import prepare

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
        distance = torch.arange(scores.shape[1])[:, None] - torch.arange(scores.shape[2])[None]
        left, right = (size if size >= 0 else max(scores.shape) for size in window_size)
        scores.masked_fill_((distance > left) | (distance < -right), float("-inf"))
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
@pytest.mark.parametrize("window", [0, 1, 2, 4])
def test_the_packed_backend_equals_the_rows_backend(monkeypatch, kind, key_heads, window):
    def computed():
        place = (2, 8), CPU, torch.float32
        mask = self_attention_mask(SEGMENTS, POSITIONS, None, kind, *place, window=window)
        return attend(q, k, v, mask), mask

    monkeypatch.setattr(module, "varlen_kernel", reference_varlen)
    q, k, v = qkv(key_heads=key_heads)
    rows, _ = computed()
    monkeypatch.setattr(module, "use_varlen", lambda *_: True)
    packed, mask = computed()
    assert mask.cu_seqlens_q is not None
    torch.testing.assert_close(rows, packed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("capability", "head_dim", "there"),
    [((8, 0), 64, True), ((7, 5), 64, False), ((9, 0), 256, True), ((9, 0), 288, False), ((9, 0), 60, False)],
)
def test_the_packed_kernel_is_used_where_it_exists(monkeypatch, capability, head_dim, there):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert module.use_varlen(torch.device("cuda"), torch.bfloat16, "causal", head_dim) == there
    assert not module.use_varlen(torch.device("cuda"), torch.float32, "causal", head_dim)


def test_another_number_of_segments_is_no_reason_to_compile_anew(monkeypatch):
    monkeypatch.setattr(module, "use_varlen", lambda *_: True)
    seen = []

    def count(graph, inputs):
        seen.append(graph)
        return graph.forward

    @torch.compile(backend=count)
    def doubled(starts):
        return starts * 2

    for ends in ([4, 8], [1, 3, 8], [2, 3, 5, 8]):
        segments = torch.tensor(np.repeat(np.arange(len(ends)), np.diff([0, *ends]))[None], dtype=torch.int32)
        mask = self_attention_mask(segments, None, None, "causal", (1, 8), CPU, torch.float32)
        assert doubled(mask.cu_seqlens_q).tolist() == [0, *(2 * end for end in ends)]
    assert len(seen) == 1


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


@pytest.mark.parametrize("kind", ["relative", "alibi"])
def test_rows_of_several_documents_share_one_bias_of_positions(kind):
    positions = {"kind": kind, "num_buckets": 8}
    model = make_model(architecture="decoder", positions=positions)
    for name, parameter in model.named_parameters():
        if name.endswith("bias.weight"):
            parameter.data.normal_()
    ids = np.random.default_rng(0).integers(0, 128, (2, 8)).astype(np.int32)
    segments, places = SEGMENTS.numpy(), POSITIONS.numpy()
    batch = Batch(input_ids=ids, segment_ids=segments, position_ids=places, attention="causal")
    inputs = prepare(batch, model.config, CPU, torch.float32)
    assert inputs.tokens.position_ids.shape == (1, 8)
    together = model(inputs).hidden_BTD
    for row in range(2):
        for number in np.unique(segments[row]):
            at = segments[row] == number
            alone = model(prepare(Batch(ids[row][at][None], attention="causal"), model.config, CPU, torch.float32))
            torch.testing.assert_close(together[row, at], alone.hidden_BTD[0], atol=1e-5, rtol=1e-5)
    gap = places.copy()
    gap[0, 1:] += 1
    left = prepare(dataclasses.replace(batch, position_ids=gap), model.config, CPU, torch.float32)
    assert left.tokens.position_ids.shape == (2, 8)
