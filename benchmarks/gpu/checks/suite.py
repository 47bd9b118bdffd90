"""The tests that are marked with `cuda`."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.gpu.checks.common import environment
from benchmarks.gpu.isolation import item


@item("11 tests", seconds=280, needs_gpu="they are skipped without one")
def marked_tests(device: str) -> str:
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", "tests/unit/model"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=270)
    assert done.returncode == 0, done.stdout[-1200:] + done.stderr[-300:]
    return done.stdout.strip().splitlines()[-1]
