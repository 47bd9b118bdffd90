"""What a device can compute at most: the number that model FLOPs utilisation (MFU) is a share of.

For common GPUs it is the maker's figure for dense matrix products, tensor cores in bf16 and plain cores in fp32. For
all other devices it is measured by a matrix product, once for a run; a run's environment.json keeps it.
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
    "L40": (181, 90.5),
    "L40S": (362, 91.6),
    "RTX 3090": (71, 35.6),
    "RTX 4090": (165.2, 82.6),
    "RTX 5090": (209.5, 104.8),
}
"""Name → (bf16, fp32) in 10¹² operations a second, dense, by the makers' data sheets."""

MEASURED_SECONDS = 0.15
WIDTHS = {"cpu": 1024, "cuda": 4096}
TABLE, MEASURED = "the maker's figure", "measured by a matrix product"


@dataclass(frozen=True)
class Peak:
    """Attributes: flops_per_second: of one device (on a CPU, of one process); source: where the number is from."""

    flops_per_second: float
    source: str

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def find_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """From the table where the device is in it, else measured, which takes a fifth of a second."""
    known = listed(device_name(device), dtype) if device.type == "cuda" else None
    return known or Peak(measure(device, dtype), MEASURED)


def listed(name: str, dtype: torch.dtype) -> Peak | None:
    """What the table says of a GPU, by the longest name that fits."""
    fitting = [gpu for gpu in GPUS if re.search(rf"\b{re.escape(gpu)}\b", name)]
    if not fitting:
        return None
    half, single = GPUS[max(fitting, key=len)]
    return Peak(TERA * (half if dtype == torch.bfloat16 else single), TABLE)


def measure(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest of some square matrix products, with the threads that torch has now."""
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
    """What the run's environment.json has, where that is of such a device; found anew elsewhere.

    None where there is no such file: nobody keeps the number.
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
