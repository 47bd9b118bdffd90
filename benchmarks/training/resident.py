"""Memory of this process that is in RAM, as Linux counts it. Elsewhere everything here is 0."""

from __future__ import annotations

import re
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes now."""
    return _bytes("VmRSS")


def peak() -> int:
    """The most bytes since `forget_peak`."""
    return _bytes("VmHWM")


def forget_peak() -> None:
    """Count the peak from here on."""
    if RESET.exists():
        RESET.write_text("5")


def _bytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return 1024 * int(found[1]) if found else 0
