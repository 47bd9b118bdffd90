"""Losses over time of the three architectures on a GPU, by the recipes gpu_30min_*.

    make gpu-curves                                                              150 seconds each, in one call
    PRETEXTLM_GPU_SECONDS=500 python -m benchmarks.gpu.curves --only "[decoder"  one of them in a call of ten minutes

The text is 12 MB of speeches, which is read many times in ten minutes, or the store that PRETEXTLM_GPU_STORE names.
"""

import sys

from benchmarks.gpu.isolation import main
from benchmarks.gpu.measures.caches import unpack
from benchmarks.gpu.measures.common import store

if __name__ == "__main__":
    unpack()
    if "--list" not in sys.argv and "--help" not in sys.argv:
        store("cpu" if "cpu" in sys.argv else "cuda")
    main(__doc__ or "", "curves", ("benchmarks.gpu.measures.curves",), jobs={"cuda": 1, "cpu": 1}, limit=590.0)
