"""Ways to write attention out on a CPU against torch's fused kernel, forward and backward: for `LONGEST_PRODUCTS`.

    python -m benchmarks.attention

One thread, CPU time, rows of one causal document, 4,096 tokens a batch, 4 heads of 64; the ways take turns, medians.
Errors are the norm of the difference from float64, relative: of the output, and the largest of the three gradients'.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pretextlm.model.attention import AttentionMask, attend, self_attention_mask
from pretextlm.model.biased_attention import attend_products

LENGTHS = (128, 256, 384, 512, 1024)
TOKENS, HEADS, WIDTH, TURNS, WARM = 4096, 4, 64, 7, 2
Way = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return attend(q, k, v, AttentionMask(bias))


def written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return attend_products(q, k, v, bias, q.size(-1) ** -0.5)


def _flat(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(-1, x.size(1), x.size(3))


def _inside(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, softmax: torch.dtype) -> Tensor:
    """Visibility and scale inside the product; scores are weighed and the weights kept in a type."""
    rows, length, heads, width = q.shape
    bias = bias.expand(rows, heads, length, k.size(1)).reshape(rows * heads, length, k.size(1))
    scores = torch.baddbmm(bias, _flat(q), _flat(k).mT, alpha=width**-0.5)
    weights = scores.softmax(-1, dtype=softmax).to(v.dtype)
    return torch.bmm(weights, _flat(v)).view(rows, heads, length, width).transpose(1, 2)


def inside(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return _inside(q, k, v, bias, torch.promote_types(q.dtype, torch.float32))


def inside_own_type(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return _inside(q, k, v, bias, q.dtype)


WAYS: dict[str, Way] = {
    "fused": fused,
    "written out": written_out,
    "bias inside": inside,
    "and softmax in the inputs' type": inside_own_type,
}


def run(way: Way, inputs: list[Tensor], bias: Tensor, gradient: Tensor) -> list[Tensor]:
    """The output and the three gradients."""
    for tensor in inputs:
        tensor.grad = None
    out = way(*inputs, bias)  # type: ignore[call-arg]
    out.backward(gradient)  # type: ignore[no-untyped-call]
    return [out.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("length  type      way                              ms  of fused  error  of gradients")
    for dtype in (torch.bfloat16, torch.float32):
        for length in options.lengths:
            torch._dynamo.reset()
            shape = (TOKENS // length, length)
            segments = torch.zeros(shape, dtype=torch.int32)
            bias = self_attention_mask(segments, None, None, "causal", shape, torch.device("cpu"), dtype).bias
            assert bias is not None, "segments were given"
            drawn = [torch.randn(*shape, HEADS, WIDTH).to(dtype) for _ in range(4)]
            inputs = [tensor.requires_grad_() for tensor in drawn[:3]]
            exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
            reference = run(written_out, exact, bias.double(), drawn[3].double())
            ways = {name: way if options.eager else torch.compile(way) for name, way in WAYS.items()}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(TURNS + WARM):
                for name, way in ways.items():
                    start = time.process_time()
                    run(way, inputs, bias, drawn[3])
                    if turn >= WARM:
                        times[name].append(time.process_time() - start)
            base = statistics.median(times["fused"])
            for name, way in ways.items():
                found = run(way, inputs, bias, drawn[3])
                errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, reference, strict=True)]
                took = statistics.median(times[name])
                kind = str(dtype).removeprefix("torch.")
                print(
                    f"{length:6d}  {kind:8s}  {name:31s} {took * 1e3:5.1f} {base / took:9.2f}"
                    f"  {errors[0]:.1e}  {max(errors[1:]):.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
