"""Written-out attention against torch's fused kernel on a CPU, forward and backward: for `LONGEST_PRODUCTS`.

    python -m benchmarks.attention

One thread, CPU time, rows of one causal document, 4,096 tokens a batch, 4 heads of 64; both compiled, medians.
"""

from __future__ import annotations

import statistics
import time

import torch

from pretextlm.model.attention import Sight, attend, self_sight

LENGTHS = (128, 256, 384, 512, 1024)
TOKENS, HEADS, WIDTH, TURNS = 4096, 4, 64, 7


def seconds(length: int, dtype: torch.dtype, sight: Sight) -> float:
    """CPU seconds of one forward and backward pass."""
    shape = (TOKENS // length, length, HEADS, WIDTH)
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
    function = torch.compile(attend)
    times = []
    for _ in range(TURNS + 2):
        start = time.process_time()
        function(*tensors, sight).sum().backward()
        times.append(time.process_time() - start)
    return statistics.median(times[2:])


def main() -> None:
    torch.set_num_threads(1)
    print("length  type      fused ms  written out ms  ratio")
    for dtype in (torch.bfloat16, torch.float32):
        for length in LENGTHS:
            torch._dynamo.reset()
            shape = (TOKENS // length, length)
            segments = torch.zeros(shape, dtype=torch.int32)
            bias = self_sight(segments, None, None, "causal", shape, torch.device("cpu"), dtype).bias
            fused, written = (seconds(length, dtype, Sight(bias, products=p)) * 1e3 for p in (False, True))
            name = str(dtype).removeprefix("torch.")
            print(f"{length:6d}  {name:8s} {fused:9.1f} {written:15.1f} {fused / written:6.2f}", flush=True)


if __name__ == "__main__":
    main()
