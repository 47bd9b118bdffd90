"""Speed of training on a GPU, in one call of at most ten minutes.

    make gpu-bench                                                   on the machine with the GPU
    python -m benchmarks.gpu.bench --only ceilings choices           some of it
    python -m benchmarks.gpu.bench --device cpu --limit 3600         a rehearsal: its figures mean nothing

Compiled code is kept in build/gpu_cache, and packed into gpu_cache.tgz (in $OUT or build/) for the next call. The text
is 12 MB of speeches, or the store that PRETEXTLM_GPU_STORE names. A table is printed, and build/gpu/bench.json (or
$OUT) written. Each measurement is a process of its own with a time limit, and none of them runs beside another.
"""

import sys

from benchmarks.gpu.isolation import main
from benchmarks.gpu.measures.caches import unpack
from benchmarks.gpu.measures.common import store

MODULES = tuple(
    f"benchmarks.gpu.measures.{part}"
    for part in ("caches", "ceilings", "ours", "rivals", "packing", "choices", "profiled")
)

if __name__ == "__main__":
    unpack()
    if "--list" not in sys.argv and "--help" not in sys.argv:
        store("cpu" if "cpu" in sys.argv else "cuda")
    main(__doc__ or "", "bench", MODULES, jobs={"cuda": 4, "cpu": 1}, limit=560.0)
