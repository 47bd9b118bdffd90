"""Choices beside their alternatives: packed attention, compiled Muon, joined products, the loss's chunk, segments."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures import ours
from benchmarks.gpu.measures.common import seconds
from torch import Tensor
from torch.nn import functional

from pretextlm.model import loss
from pretextlm.training.muon import orthogonalize

SECTION = "5 choices"
TOKENS, WIDTH, HEADS, LENGTH = {"cuda": 65_536, "cpu": 512}, {"cuda": 768, "cpu": 64}, 12, {"cuda": 1024, "cpu": 128}


def milliseconds(functions: dict[str, Any], device: str) -> dict[str, Any]:
    """The times of some functions; one that fails says why."""
    found: dict[str, Any] = {}
    for name, function in functions.items():
        try:
            found[name] = f"{seconds(function, device) * 1e3:.3f} ms"
        except Exception as error:  # one alternative that a version of torch lacks does not hide the others
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    return found


@item(SECTION, seconds=150, alone=True, cases=["documents apart", "documents joined"])
def segments(device: str, case: str) -> dict[str, Any]:
    """Rows whose documents do not see each other, whose number varies by batch, or rows that are one document."""
    isolate = {"isolate": case == "documents apart"}
    warm_up, timed = ours.WARM_UP[device], ours.TIMED[device] // 2
    return ours.measured(device, "GPT 124M, 16k x 1", "muon", warm_up, timed, objective=isolate)


@item(SECTION, seconds=120, alone=True, needs_gpu="the varlen kernel is CUDA's")
def packed_attention(device: str) -> dict[str, Any]:
    """Causal attention of documents of 256 tokens in 65k tokens, forward and backward."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    from torch.nn.attention.varlen import varlen_attn

    tokens, length, document = TOKENS[device], LENGTH[device], 256
    shape = (tokens, HEADS, WIDTH[device] // HEADS)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    starts = torch.arange(0, tokens + 1, document, dtype=torch.int32, device=device)
    numbers = torch.arange(tokens, device=device) // document
    compiled = torch.compile(flex_attention)

    def seen(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return (t >= s) & (numbers[t] == numbers[s])

    mask = create_block_mask(seen, None, None, tokens, tokens, device=device, _compile=True)

    def rows(x: Tensor) -> Tensor:
        return x.view(-1, length, *shape[1:]).transpose(1, 2)

    def backward(out: Tensor) -> None:
        out.sum().backward()

    def with_kernel(kernel: Any) -> None:
        with sdpa_kernel(kernel):
            backward(functional.scaled_dot_product_attention(rows(q), rows(k), rows(v), is_causal=True))

    def flat(x: Tensor) -> Tensor:
        return x[None].transpose(1, 2)

    return milliseconds(
        {
            "varlen": lambda: backward(
                varlen_attn(q, k, v, starts, starts, length, length, window_size=(-1, 0))  # type: ignore[arg-type]
            ),
            "FlexAttention": lambda: backward(compiled(flat(q), flat(k), flat(v), block_mask=mask)),
            "cuDNN, whole rows": lambda: with_kernel(SDPBackend.CUDNN_ATTENTION),
            "FlashAttention, whole rows": lambda: with_kernel(SDPBackend.FLASH_ATTENTION),
        },
        device,
    )


@item(SECTION, seconds=120, alone=True)
def muon(device: str) -> dict[str, Any]:
    """The orthogonalisation of a model's matrices of one shape."""
    width = WIDTH[device]
    stack = torch.randn(12, 4 * width, width, device=device)
    compiled = torch.compile(orthogonalize)
    return milliseconds(
        {
            "eager": lambda: orthogonalize(stack, torch.bfloat16),
            "compiled": lambda: compiled(stack, torch.bfloat16),
        },
        device,
    )


@item(SECTION, seconds=60, alone=True)
def projections(device: str) -> dict[str, Any]:
    """Queries, keys and values by three products or one, with the cast of the weights."""
    tokens, width = TOKENS[device], WIDTH[device]
    x = torch.randn(tokens, width, device=device).bfloat16()
    weights = [torch.randn(width, width, device=device) for _ in range(3)]
    return milliseconds(
        {
            "three": lambda: [functional.linear(x, weight.bfloat16()) for weight in weights],
            "one": lambda: functional.linear(x, torch.cat([weight.bfloat16() for weight in weights])).chunk(3, 1),
        },
        device,
    )


@item(SECTION, seconds=90, alone=True)
def chunk_of_the_loss(device: str) -> dict[str, Any]:
    """Forward and backward of the head's loss, by how many targets' logits are held at once."""
    tokens, width = TOKENS[device], WIDTH[device]
    vocabulary = 32_768 if device == "cuda" else 448
    hidden = torch.randn(tokens, width, device=device).bfloat16().requires_grad_()
    weight = torch.randn(vocabulary, width, device=device).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), device=device)
    softmax = torch.compile(loss.softmax_written_out, dynamic=True)
    found: dict[str, Any] = {}
    for chunk in (4096, 8192, 16_384, 32_768, 65_536):
        loss.CHUNK_DEVICE = chunk
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        run = {str(chunk): lambda: loss.linear_cross_entropy(hidden, weight, labels, 0.0, softmax).backward()}
        found |= milliseconds(run, device)
        if device == "cuda":
            found[str(chunk)] += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        else:
            break  # a CPU has a chunk of its own
    return found
