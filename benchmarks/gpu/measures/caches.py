"""Compiles all settings, several at a time, into a cache that later measurements find."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures import ours
from benchmarks.gpu.measures.common import GPU

SECTION = "1 caches"
CACHE = Path("build/gpu_cache")


@item(SECTION, seconds=200, cases=GPU)
def compiled(device: str, case: str) -> dict[str, Any]:
    """Two steps."""
    found = ours.measured(device, case, "muon", warm_up=1, timed=1)
    return {"seconds": found["compile seconds"]}


def unpack() -> None:
    """Uses the cache of an earlier call, and makes all processes share one."""
    packed = Path("build/gpu_cache.tgz")
    if packed.exists() and not CACHE.exists():
        with tarfile.open(packed) as archive:
            archive.extractall("build", filter="data")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((CACHE / "inductor").resolve())
    os.environ["TRITON_CACHE_DIR"] = str((CACHE / "triton").resolve())
