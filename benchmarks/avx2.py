"""A command of pretextlm as on a CPU that has AVX2 and nothing newer: fp32, and the kernels and compiled code of AVX2.

    python -m benchmarks.avx2 quickstart --seeds 3 --budget 15

Compiled code is kept apart from that of this machine's own instructions.
"""

from __future__ import annotations

import os
import tempfile

os.environ.update(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2")
os.environ["XDG_CACHE_HOME"] = os.path.join(tempfile.gettempdir(), "pretextlm-avx2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch._inductor.config as inductor

from pretextlm.cli.main import main

if __name__ == "__main__":
    torch.cpu._is_amx_tile_supported = lambda: False
    inductor.cpp.simdlen = 256
    main()
