"""What the machine offers and what a run uses of it: device, number format, threads, compiler. Chosen once."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pretextlm import __version__
from pretextlm.errors import UserError
from pretextlm.files import writable
from pretextlm.training.recipe import TrainingConfig

COMPILE_PAYS_SECONDS = 60.0
"""A cold compilation takes some 20 seconds on two cores, a warm one 3, and makes a step about 1.5 times faster."""


Device = str | torch.device
"""A device, or its name: "cpu", "cuda" or "auto"."""


@dataclass(frozen=True)
class Runtime:
    """Attributes: device; dtype of activations; threads of the CPU; compile: whether blocks are compiled; notes: what
    was chosen and why, for people."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    compile: bool
    notes: tuple[str, ...]

    @classmethod
    def choose(cls, config: TrainingConfig, expected_seconds: float) -> Runtime:
        """From the recipe's wishes and the machine. Raises UserError for a device that is not there."""
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        if config.threads:
            torch.set_num_threads(config.threads)
        compiled, reason = _choose_compile(config.compile, expected_seconds)
        notes = (f"{device.type}, {dtype_name(dtype)}, {torch.get_num_threads()} threads, {reason}",)
        return cls(device, dtype, torch.get_num_threads(), compiled, notes)

    def describe(self) -> dict[str, Any]:
        """For environment.json."""
        values = asdict(self)
        values |= {"device": device_name(self.device), "dtype": dtype_name(self.dtype), "notes": list(self.notes)}
        return {
            "pretextlm": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            **values,
        }


def choose_device(wish: str = "auto") -> torch.device:
    """The device asked for. Raises UserError when CUDA is asked for and absent."""
    there = torch.cuda.is_available()
    if wish == "cuda" and not there:
        raise UserError(
            "training.device is 'cuda', but torch sees no CUDA device.",
            "Use training.device=cpu, or install a torch build for CUDA and its driver.",
        )
    return torch.device("cuda" if there and wish != "cpu" else "cpu")


def as_device(device: Device) -> torch.device:
    """Returns the device with this name ("cpu", "cuda" or "auto"), or the device itself."""
    return device if isinstance(device, torch.device) else choose_device(device)


def choose_dtype(wish: str, device: torch.device) -> torch.dtype:
    """bf16 where its products are faster than fp32's: on CUDA and on a CPU with AMX tiles."""
    if wish == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if wish == "bf16" else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


def device_name(device: torch.device) -> str:
    """For people: the GPU's name, or the CPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def find_compiler() -> str | None:
    """The C++ compiler that torch.compile would use; None: there is none."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def compile_cache() -> Path:
    """Where compiled code is kept from one run to the next; a temporary place where the user has no own.

    torch makes this directory also when nothing is compiled.
    """
    if given := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(given)
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    user = os.getuid() if hasattr(os, "getuid") else 0
    return (own / "pretextlm" if writable(own) else Path(tempfile.gettempdir()) / f"pretextlm-{user}") / "inductor"


def _choose_compile(wish: str, expected_seconds: float) -> tuple[bool, str]:
    compiler = find_compiler()
    if wish == "off":
        return False, "not compiled"
    if compiler is None:
        if wish == "on":
            raise UserError("training.compile is 'on', but there is no C++ compiler.", "Install g++ or use 'auto'.")
        return False, "not compiled: no C++ compiler"
    if wish == "auto" and expected_seconds < COMPILE_PAYS_SECONDS:
        return False, "not compiled: the run is short"
    return True, "blocks compiled"


def tune_process() -> None:
    """Process-wide settings that change speed and what a crash says; called once, before the first tensor.

    Denormal numbers make a step up to ten times slower on a CPU when logits are confident. glibc returns large freed
    blocks to the system and faults them in again at every step unless told otherwise.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compile_cache())
    torch.set_flush_denormal(True)
    if not faulthandler.is_enabled() and sys.__stderr__:
        faulthandler.enable(sys.__stderr__)  # a mapped file that is cut short under way ends the process by SIGBUS
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 64 << 20)):
            libc.mallopt(option, value)
