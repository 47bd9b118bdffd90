"""Peak throughput of a device, by which model FLOPs utilisation (MFU) is computed.

For common GPUs it is the vendor's figure for dense matrix products: tensor cores in bf16, CUDA cores in fp32. For any
other device it is measured with a matrix product once per run and kept in environment.json.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pretextlm.training.run_directory import ENVIRONMENT
from pretextlm.training.runtime import device_name, dtype_name

TERA = 1e12
GPUS: dict[str, tuple[float, float]] = {
    "B200": (2250, 75),
    "H200 NVL": (835, 60),
    "H200": (989, 67),
    "GH200": (989, 67),
    "H100 PCIe": (756, 51),
    "H100 NVL": (835, 60),
    "H100": (989, 67),
    "H800": (989, 67),
    "A100": (312, 19.5),
    "A800": (312, 19.5),
    "A40": (149.7, 37.4),
    "A10": (125, 31.2),
    "RTX A6000": (154.8, 38.7),
    "L4": (121, 30.3),
    "T4": (65, 8.1),
    "V100": (125, 15.7),
    "L40": (181, 90.5),
    "L40S": (362, 91.6),
    "RTX 3090": (71, 35.6),
    "RTX 4090": (165.2, 82.6),
    "RTX 5090": (209.5, 104.8),
}
"""Name → (half precision, fp32) in 10¹² operations per second, dense, from the vendors' data sheets."""

MEASURED_SECONDS = 0.15
WIDTHS = {"cpu": 1024, "cuda": 4096}
TABLE, MEASURED = "the vendor's figure", "measured by a matrix product"


@dataclass(frozen=True)
class Peak:
    """Peak throughput.

    Attributes:
        flops_per_second: of one device (on a CPU: of one process).
        source: where the number comes from.
    """

    flops_per_second: float
    source: str

    def describe(self) -> dict[str, Any]:
        """Returns plain values for environment.json."""
        return asdict(self)


def find_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Returns the vendor's figure if the device is in the table, else a measurement (a fifth of a second)."""
    known = listed(device_name(device), dtype) if device.type == "cuda" else None
    return known or Peak(measure(device, dtype), MEASURED)


def listed(name: str, dtype: torch.dtype) -> Peak | None:
    """Returns the vendor's figure for a GPU by the longest table name contained in `name`; None if there is none."""
    fitting = [gpu for gpu in GPUS if re.search(rf"\b{re.escape(gpu)}\b", name)]
    if not fitting:
        return None
    half, single = GPUS[max(fitting, key=len)]
    return Peak(TERA * (single if dtype == torch.float32 else half), TABLE)


def measure(device: torch.device, dtype: torch.dtype) -> float:
    """Measures square matrix products with torch's current number of threads.

    Returns:
        Floating-point operations per second of the fastest one.
    """
    width = WIDTHS.get(device.type, WIDTHS["cpu"])
    one = torch.full((width, width), 0.5, dtype=dtype, device=device)
    best, end, tries = float("inf"), time.perf_counter() + MEASURED_SECONDS, 0
    while tries < 3 or time.perf_counter() < end:
        _finish(device)
        start = time.perf_counter()
        torch.mm(one, one)
        _finish(device)
        best, tries = min(best, time.perf_counter() - start), tries + 1
    return 2 * width**3 / best


def peak_of_run(directory: Path, device: torch.device, dtype: torch.dtype) -> Peak | None:
    """Reads the peak from environment.json of a run; determines it anew if the device is of another kind.

    Returns:
        The peak; None if the run directory has no environment.json to keep it.
    """
    file = directory / ENVIRONMENT
    if not file.exists():
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    if "peak" in known and (known.get("device"), known.get("dtype")) == (device_name(device), dtype_name(dtype)):
        return Peak(**known["peak"])
    return find_peak(device, dtype)


def _finish(device: torch.device) -> None:
    """Wait for what the device still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
