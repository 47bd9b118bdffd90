"""Energy used by a training, from hardware counters: NVML's for NVIDIA GPUs, RAPL's for processors.

Nothing is estimated from data sheets. A processor's counter covers the machine, so it includes other programs'
work; reading it often needs administrator rights, and virtual machines rarely have one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext

if TYPE_CHECKING:
    import torch

POWERCAP = Path("/sys/class/powercap")
EVERY_SECONDS = 1.0
"""Least time between two readings; a processor's counter wraps around after some minutes."""


class Meter:
    """Energy counters of this process's GPU and, on local rank 0, of the machine's processors.

    Attributes:
        source: names of the counters; "" if there are none.
        reason: why there are none; "" if there are some.

    Args:
        device: its counter is read if it is a GPU.
        distributed: only local rank 0 reads the processors, so that no processor is counted twice.
        powercap: directory of the RAPL counters.
    """

    def __init__(
        self, device: torch.device, distributed: DistributedContext = SINGLE_PROCESS, powercap: Path = POWERCAP
    ) -> None:
        self._counters: list[Callable[[], float]] = []
        self._totals: list[float] = []
        found, missing = [], []
        if device.type == "cuda":
            gpu, reason = gpu_counter(device)
            if gpu is not None:
                self._counters.append(gpu)
                found.append("GPUs (NVML)")
            else:
                missing.append(reason)
        packages = package_counters(powercap) if distributed.local_rank == 0 else []
        self._counters += packages
        if packages:
            found.append("processors (RAPL)")
        elif distributed.local_rank == 0:
            missing.append(f"no counter of a processor can be read under {powercap}")
        self.source = ", ".join(found)
        self.reason = "" if found else "; ".join(missing)
        self._read_at = time.monotonic()
        self._totals = [counter() for counter in self._counters]

    def used(self, at_once: bool = False) -> float:
        """Reads the counters, at most once a second.

        Args:
            at_once: read them even if the last reading is more recent.

        Returns:
            Joules since the last reading; 0.0 if the counters were not read.
        """
        now = time.monotonic()
        if not self._counters or (now - self._read_at < EVERY_SECONDS and not at_once):
            return 0.0
        self._read_at = now
        totals = [counter() for counter in self._counters]
        used = sum(totals) - sum(self._totals)
        self._totals = totals
        return used


def gpu_counter(device: torch.device) -> tuple[Callable[[], float] | None, str]:
    """Returns the energy counter of a GPU.

    Returns:
        (function that returns the joules since the driver was loaded, ""), or (None, why there is no counter).
    """
    try:
        import pynvml
    except ImportError:
        return None, "the GPU's counter needs pip install 'pretextlm[energy]'"
    import torch

    try:
        pynvml.nvmlInit()
        identity = str(torch.cuda.get_device_properties(device).uuid)
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(identity if identity.startswith("GPU-") else f"GPU-{identity}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (pynvml.NVMLError, AttributeError) as error:
        return None, f"the GPU has no counter of energy: {error}"
    last = [0.0]

    def joules() -> float:
        with contextlib.suppress(pynvml.NVMLError):  # a counter that fails later must not end the training
            last[0] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        return last[0]

    return joules, ""


def package_counters(powercap: Path = POWERCAP) -> list[Callable[[], float]]:
    """Returns the counter of each processor package that can be read.

    Returns:
        Functions that return joules and keep counting when the hardware counter wraps around.
    """
    found = []
    for zone in sorted(powercap.glob("*-rapl:*")):
        try:
            if (zone / "name").read_text().startswith("package"):
                found.append(_Package(zone))
        except (OSError, ValueError):
            continue
    return list(found)


class _Package:
    """Joules of one processor package since the object was created.

    The hardware counter wraps around every few minutes: from 990 to 40 in a range
    of 1000, 50 were used (40 - 990 + 1000).

    Raises:
        OSError: the counter cannot be read.
        ValueError: the counter is not a number.
    """

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text())
        self._last, self._total = int(self._file.read_text()), 0

    def __call__(self) -> float:
        try:
            now = int(self._file.read_text())
        except (OSError, ValueError):  # a counter that fails later must not end the training
            return self._total / 1e6
        self._total += now - self._last + (self._range if now < self._last else 0)
        self._last = now
        return self._total / 1e6
