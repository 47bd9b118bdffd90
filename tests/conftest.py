"""Settings that hold for all tests."""

import os
import tempfile

import pytest

# As the command line does, before torch is loaded: spinning threads would make the tests several times slower beside
# anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# torch finds a compiled kernel again whichever instructions it was compiled for, and wider vectors overrun buffers of
# narrower ones. A cache for each keeps runs with and without ATEN_CPU_CAPABILITY=avx2 apart.
ISA = os.environ.get("ATEN_CPU_CAPABILITY", "native")
CACHE = f"{tempfile.gettempdir()}/pretextlm-tests-{os.getuid()}/kernels-{ISA}"
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", CACHE)
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several that share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def denormal_numbers():
    """A test that runs a command flushes denormal numbers in the whole process; the next must find them again."""
    yield
    import torch

    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def command_line():
    """Runs commands, each in a process of its own."""
    from tests.command_line import CommandLine

    with CommandLine() as commands:
        yield commands
