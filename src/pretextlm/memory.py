"""Memory of the machine: how much there is, and running out of it as an error that says what was asked for.

Linux promises more memory than there is and ends a process that uses it, which nothing can catch: work whose size is
known is checked before (`ensure_memory`). All else arrives as an exception of Python, numpy or torch (`memory_errors`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretextlm.errors import UserError

MEMORY = Path("/proc/meminfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CHECKED_BYTES = 1 << 28
"""Smaller work is not checked: reading what is free would take longer."""
OUT_OF_MEMORY = re.compile(
    "can't allocate memory|out of memory|unable to allocate|bad_alloc|not enough memory|Storage size calculation"
    "|ALLOC_FAILED",
    re.IGNORECASE,
)
"""Messages of torch, CUDA and numpy."""
AMOUNT = re.compile(r"(?:allocate|needs) ([\d.,]+ (?:bytes|[KMGTPE]iB))")


def memory(field: str) -> int | None:
    """Reads a field of /proc/meminfo.

    Returns:
        Bytes, at most a container's limit; None if the system does not have that file.
    """
    if not MEMORY.exists():
        return None
    found = next((line.split() for line in MEMORY.read_text().splitlines() if line.startswith(f"{field}:")), None)
    if found is None:
        return None
    size = int(found[1]) << 10
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    return min(size, int(limit)) if limit.isdigit() else size


def available_memory() -> int | None:
    """Returns the bytes that a process on the CPU can still use, swap included; None if unknown."""
    free = memory("MemAvailable")
    return None if free is None else free + (memory("SwapFree") or 0)


def ensure_memory(size: int) -> None:
    """Checks that memory of the CPU is left for something large, before it is made.

    Raises:
        MemoryError: it is not.
    """
    if size < CHECKED_BYTES:
        return
    free = available_memory()
    if free is not None and size > free:
        raise MemoryError(f"it needs {size:,} bytes")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception says that memory is not enough."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(error)))
    )


def out_of_memory(error: BaseException, what: str = "", hint: str = "Give less at a time.") -> UserError:
    """Returns the error for people.

    Args:
        error: of Python, numpy or torch.
        what: the work that needs the memory, as "with data.length = 4096".
        hint: what to change.
    """
    asked = AMOUNT.search(str(error))
    free = re.search(r"of which ([\d.]+ .iB) is free", str(error))  # of a GPU
    available = available_memory()
    left = free[1] if free else "" if available is None else f"{available:,} bytes"
    parts = (f"{asked[1]} were asked for" if asked else "", f"{left} are free" if left else "")
    told = ", ".join(filter(None, parts))
    return UserError(f"Out of memory{f' {what}' if what else ''}{f': {told}' if told else ''}.", hint)


@contextmanager
def memory_errors(what: str, hint: str) -> Iterator[None]:
    """Turns running out of memory within the block, or the decorated function, into an error for people.

    Args:
        what: the work that needs the memory.
        hint: what to change.

    Raises:
        UserError: memory was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, what, hint) from None
