"""Packs what was compiled, for the next call."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures.caches import CACHE

MOST = 16 << 20
"""Bytes of a file that comes back from a borrowed machine."""


@item("1 caches", seconds=60, alone=True)
def packed(device: str) -> str:
    """As gpu_cache.tgz in build/ or $OUT; the next call unpacks it from build/."""
    if not CACHE.is_dir():
        return "nothing was compiled"
    to = Path(os.environ.get("OUT", "build"), "gpu_cache.tgz")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(to, "w:gz") as archive:
        archive.add(CACHE, arcname=CACHE.name)
    size = to.stat().st_size
    return f"{to}: {size:,} bytes" + (", more than comes back from a borrowed machine" if size > MOST else "")
