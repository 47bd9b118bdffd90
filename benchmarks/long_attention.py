"""Attention over long rows: in blocks of a window with global tokens, and over all pairs by torch's fused kernel.

    python -m benchmarks.long_attention [--lengths 4096 8192 16384] [--window 512] [--causal]

Each case runs forward and backward in a process of its own: the best CPU seconds of a few turns, and the megabytes by
which its peak memory exceeds that of a process that only makes the inputs. One row, 8 heads of 64, fp32, one thread.
Where time and memory grow linearly, a doubled length doubles them; over all pairs it quadruples the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

HEADS, WIDTH, GLOBALS, TURNS = 8, 64, 4, 3


def measure(kind: str, length: int, window: int, causal: bool) -> dict[str, float]:
    """In this process: CPU seconds of forward and backward, peak resident megabytes."""
    import torch

    from pretextlm.model.attention import attend, self_sight

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, length, HEADS, WIDTH, generator=generator).requires_grad_() for _ in range(3)]
    attention = "causal" if causal else "bidirectional"
    given = {"window": window, "global_tokens": GLOBALS} if kind == "window" else {}
    best = float("inf")
    for _ in range(TURNS if kind != "inputs" else 0):
        start = time.process_time()
        sight = self_sight(None, None, None, attention, (1, length), torch.device("cpu"), torch.float32, **given)
        torch.autograd.grad(attend(*inputs, sight).square().sum(), inputs)
        best = min(best, time.process_time() - start)
    return {"seconds": best, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def apart(kind: str, length: int, window: int, causal: bool) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long_attention", "--one", kind, str(length), str(window), str(causal)]
    out = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads(out.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, length, window, causal = arguments.one
        print(json.dumps(measure(kind, int(length), int(window), causal == "True")))
        return
    print(f"{'tokens':>8} {'window s':>9} {'all pairs s':>12} {'ratio':>6} {'window MB':>10} {'all pairs MB':>13}")
    for length in arguments.lengths:
        found = {kind: apart(kind, length, arguments.window, arguments.causal) for kind in ("inputs", "window", "all")}
        window, every = found["window"], found["all"]
        base = found["inputs"]["megabytes"]
        ratio = every["seconds"] / window["seconds"]
        print(
            f"{length:>8} {window['seconds']:>9.2f} {every['seconds']:>12.2f} {ratio:>5.1f}×"
            f" {window['megabytes'] - base:>10.0f} {every['megabytes'] - base:>13.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
