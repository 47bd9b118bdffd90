"""The device, dtype, number of threads and compiler of a run, chosen once from the recipe and the machine."""

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

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILE_PAYS_SECONDS = 60.0
"""A cold compilation takes some 20 seconds on two cores, a warm one 3, and makes a step about 1.5 times faster."""


Device = str | torch.device
"""A device, or its name: "cpu", "cuda" or "auto"."""


@dataclass(frozen=True)
class Runtime:
    """Settings of this process.

    Attributes:
        device: of the model.
        dtype: of the activations.
        threads: of the CPU.
        compile: whether the blocks are compiled.
        notes: the choices and their reasons, as messages for the user.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    compile: bool
    notes: tuple[str, ...]

    @classmethod
    def choose(cls, config: TrainingConfig, expected_seconds: float) -> Runtime:
        """Chooses the settings.

        Args:
            config: the recipe's wishes.
            expected_seconds: of the training; compiling does not pay for a short one.

        Raises:
            UserError: the recipe requires a device or a compiler that the machine does not have.
        """
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        if config.threads:
            torch.set_num_threads(config.threads)
        compiled, reason = _choose_compile(config.compile, expected_seconds)
        notes = (f"{device.type}, {dtype_name(dtype)}, {torch.get_num_threads()} threads, {reason}",)
        return cls(device, dtype, torch.get_num_threads(), compiled, notes)

    def describe(self) -> dict[str, Any]:
        """Returns plain values for environment.json."""
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
    """Returns the device by name; "auto" is CUDA if there is any.

    Raises:
        UserError: `wish` is "cuda" and torch sees no CUDA device.
    """
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
    """Returns the dtype by name; "auto" is the half-precision type whose products are faster, if any.

    GPUs have bf16 tensor cores from compute capability 8.0 on, and fp16 ones from 7.0 on; CPUs have bf16 with AMX.
    """
    if wish != "auto":
        return DTYPES[wish]
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else torch.float32
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return next(name for name, known in DTYPES.items() if known == dtype)


def device_name(device: torch.device) -> str:
    """Returns the name of the GPU, or of the CPU with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def find_compiler() -> str | None:
    """Returns the C++ compiler that torch.compile would use; None if there is none."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def compile_cache() -> Path:
    """Returns the directory of compiled code, kept between runs; a temporary one if the user's cache is read-only.

    torch creates this directory even if nothing is compiled.
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
    """Sets process-wide options for speed and crash reports; called once, before the first tensor is created.

    Denormal numbers make a step up to ten times slower on a CPU when logits are confident. By default, glibc returns
    large freed blocks to the system and faults them in again at every step.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compile_cache())
    torch.set_flush_denormal(True)
    # Long sums that a GPU splits are added up in fp32, not in half precision.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    if not faulthandler.is_enabled() and sys.__stderr__:
        faulthandler.enable(sys.__stderr__)  # truncating a memory-mapped file kills the process by SIGBUS
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 64 << 20)):
            libc.mallopt(option, value)
