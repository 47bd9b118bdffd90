"""The machine: versions, capability, attention's back ends, toolchain, `pretextlm doctor`."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.checks.common import environment
from benchmarks.gpu.isolation import item

from pretextlm.training.runtime import choose_dtype, device_name, find_compiler

SECTION = "1 machine"


@item(SECTION)
def versions(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    found["device"] = device_name(torch.device(device))
    if device == "cuda":
        assert torch.cuda.is_available(), "torch sees no CUDA device"
        found["capability"] = torch.cuda.get_device_capability()
        found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
        found["nccl"] = torch.cuda.nccl.version()
        found["memory"] = torch.cuda.get_device_properties(0).total_memory
        order = getattr(torch._C, "_get_sdp_priority_order", None)
        found["order of SDPA back ends"] = str(order()) if order else "unknown"
    return found


@item(SECTION)
def the_number_format_is_the_fast_one(device: str) -> str:
    chosen = choose_dtype("auto", torch.device(device))
    if device == "cuda" and torch.cuda.get_device_capability() >= (8, 0):
        assert chosen == torch.bfloat16, f"{chosen}"
    return str(chosen)


@item(SECTION)
def toolchain(device: str) -> dict[str, Any]:
    """The compilers that torch.compile calls: Triton's launcher is C and includes Python.h."""
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    found = {"C++ compiler": find_compiler(), "Python.h": header.exists()}
    assert found["C++ compiler"], "no C++ compiler"
    if device == "cuda":
        import triton

        found["triton"] = triton.__version__
    return found


@item(SECTION, seconds=180)
def a_tiny_function_compiles(device: str) -> float:
    function = torch.compile(lambda x: (x * 2 + 1).relu().sum())
    x = torch.arange(-4.0, 5.0, device=device)
    found = float(function(x))
    assert found == float((x * 2 + 1).relu().sum()), f"{found}"
    return found


@item(SECTION)
def doctor(device: str) -> str:
    command = [sys.executable, "-m", "pretextlm", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=100)
    assert done.returncode == 0, done.stderr[-500:]
    if device == "cuda":
        name = torch.cuda.get_device_name()
        assert name in " ".join(done.stdout.split()), f"{name} is not named in:\n{done.stdout}"
    return " ".join(done.stdout.split())[:300]
