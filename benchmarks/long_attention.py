"""Attention over long rows: windows and blocks, whose cost grows linearly, and all pairs by torch's fused kernel.

    python -m benchmarks.long_attention [--lengths 4096 8192 16384] [--window 512] [--block 64] [--causal] [--json FILE]

Each case runs forward and backward in a process of its own: the best CPU seconds of a few turns, and the most megabytes
it holds at a time beside its inputs (anonymous memory, sampled). One row, 8 heads of 64, fp32, one thread.
Where time and memory grow linearly, a doubled length doubles them; over all pairs it quadruples the time.

    window          half of it to each side, or all of it before a causal row's token
    window+global   and 4 tokens that see and are seen by all
    window, capped  scores bounded by tanh, which no fused kernel computes
    blocks          of 64 tokens, with 3 random ones drawn (BigBird); not for causal rows
    all pairs       the fused kernel without a mask
    all, capped     all pairs with bounded scores, written out; only up to 4,096 tokens, for its memory
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEADS, WIDTH, GLOBALS, RANDOM, CAP, TURNS = 8, 64, 4, 3, 30.0, 3
KINDS = ("window", "window+global", "window, capped", "blocks", "all pairs", "all, capped")
LONGEST_WRITTEN_OUT = 4096


def measure(kind: str, length: int, window: int, block: int, causal: bool) -> dict[str, float]:
    """In this process: CPU seconds of forward and backward, and the megabytes that they need."""
    import torch

    from pretextlm.model.attention import attend, self_attention_mask
    from pretextlm.model.block_sparse_attention import BlockSparsity

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, length, HEADS, WIDTH, generator=generator).requires_grad_() for _ in range(3)]
    softcap = CAP if "capped" in kind else 0.0
    given: dict[str, object] = {"has_softcap": bool(softcap)}
    if "window" in kind:
        given |= {"window": window, "global_tokens": GLOBALS if "global" in kind else 0}
    if kind == "blocks":
        given["sparsity"] = BlockSparsity(block, RANDOM, sample_random_blocks=True)

    def turn(tensors: list[torch.Tensor]) -> float:
        start, shape = time.process_time(), (1, tensors[0].size(1))
        attention = "causal" if causal else "bidirectional"
        mask = self_attention_mask(None, None, None, attention, shape, torch.device("cpu"), torch.float32, **given)
        if mask.block_sparse is not None:
            mask = type(mask)(block_sparse=mask.block_sparse.for_layer(0))
        torch.autograd.grad(attend(*tensors, mask, softcap=softcap).square().sum(), tensors)
        return time.process_time() - start

    turn([x[:, :1024] for x in inputs])  # what is loaded at first use is not counted
    with peak_megabytes() as most:
        turn(inputs)
    return {"seconds": min(turn(inputs) for _ in range(TURNS)), "megabytes": most[0]}


@contextmanager
def peak_megabytes() -> Iterator[list[float]]:
    """By how many megabytes this process's anonymous memory grows at most, read every two milliseconds."""

    def held() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    before, most, done = held(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], held() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def apart(kind: str, length: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The same in a process of its own."""
    one = [kind, str(length), str(arguments.window), str(arguments.block), str(arguments.causal)]
    command = [sys.executable, "-m", "benchmarks.long_attention", "--one", *one]
    out = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads(out.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, *numbers, causal = arguments.one
        length, window, block = map(int, numbers)
        print(json.dumps(measure(kind, length, window, block, causal == "True")))
        return
    print(f"{'kind':<15} {'tokens':>7} {'seconds':>8} {'grown':>6} {'MB':>7} {'grown':>6}")
    results = []
    for kind in arguments.kinds:
        if kind == "blocks" and arguments.causal:
            continue
        before = None
        for length in arguments.lengths:
            if kind == "all, capped" and length > LONGEST_WRITTEN_OUT:
                continue
            found = apart(kind, length, arguments)
            seconds, megabytes = found["seconds"], found["megabytes"]
            grown = ("", "") if before is None else (f"{seconds / before[0]:.1f}×", f"{megabytes / before[1]:.1f}×")
            print(f"{kind:<15} {length:>7} {seconds:>8.2f} {grown[0]:>6} {megabytes:>7.0f} {grown[1]:>6}", flush=True)
            results.append({"kind": kind, "tokens": length, "seconds": seconds, "megabytes": megabytes})
            before = seconds, megabytes
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"causal": arguments.causal, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
