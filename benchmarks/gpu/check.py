"""Everything that has a path of its own on a GPU, checked in one call of at most ten minutes.

    make gpu-check                                           on the machine with the GPU
    python -m benchmarks.gpu.check --device cpu              rehearsal: all checks that can run on a CPU
    python -m benchmarks.gpu.check --device cpu --list       their names, and why the others need a GPU
    python -m benchmarks.gpu.check --only attention losses   some of them

Each check is a process of its own with a time limit. A line is printed when one is done, a table at the end; the same
is in build/gpu/check.json, or in $OUT. The exit code is 1 if any check failed.
"""

import os

from benchmarks.gpu.isolation import main

PARTS = (
    "machine",
    "attention",
    "dropout",
    "losses",
    "optimizers",
    "models",
    "objectives",
    "tasks",
    "compiled",
    "training",
    "inference",
    "sharded",
    "suite",
)
MODULES = tuple(f"benchmarks.gpu.checks.{part}" for part in PARTS)

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a dozen processes share the cores
    main(__doc__ or "", "check", MODULES, jobs={"cuda": 12, "cpu": 1}, limit=560.0)
