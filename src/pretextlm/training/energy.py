"""Energy that a training takes, by the counters of the machine: NVML's for NVIDIA GPUs, RAPL's for processors.

Only what a counter says is counted, nothing is guessed from data sheets. Processors' counters are of the whole machine,
so other work on it counts along; they often can be read by its administrator only, and in virtual machines not at all.
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
"""Counters are read at most this often; a processor's begins anew after some minutes."""


class Meter:
    """Joules since it was made, of this process's GPU, and of the machine's processors for its first process.

    Attributes:
        source: what is counted, for people; "" where nothing is.
        reason: why nothing is counted.
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
        """Joules since the last call that read the counters; 0.0 between two readings, unless wanted at once."""
        now = time.monotonic()
        if not self._counters or (now - self._read_at < EVERY_SECONDS and not at_once):
            return 0.0
        self._read_at = now
        totals = [counter() for counter in self._counters]
        used = sum(totals) - sum(self._totals)
        self._totals = totals
        return used


def gpu_counter(device: torch.device) -> tuple[Callable[[], float] | None, str]:
    """(the joules of a GPU since its driver was loaded, "") or (None, why there is no such counter)."""
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
        with contextlib.suppress(pynvml.NVMLError):  # a counter that fails in the middle must not end a training
            last[0] = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        return last[0]

    return joules, ""


def package_counters(powercap: Path = POWERCAP) -> list[Callable[[], float]]:
    """The joules of each processor that can be read, counted on where its counter begins anew."""
    found = []
    for zone in sorted(powercap.glob("*-rapl:*")):
        try:
            if (zone / "name").read_text().startswith("package"):
                found.append(_Package(zone))
        except (OSError, ValueError):
            continue
    return list(found)


class _Package:
    """One processor's joules since we began to look. Raises OSError or ValueError where they cannot be read."""

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text())
        self._last, self._total = int(self._file.read_text()), 0

    def __call__(self) -> float:
        try:
            now = int(self._file.read_text())
        except (OSError, ValueError):  # a counter that fails in the middle must not end a training
            return self._total / 1e6
        self._total += now - self._last + (self._range if now < self._last else 0)
        self._last = now
        return self._total / 1e6
