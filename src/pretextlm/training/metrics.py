"""metrics.jsonl: one object per line, written as training goes on; trackers receive the same numbers."""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.files import flush
from pretextlm.training.run_directory import METRICS, Run

if TYPE_CHECKING:
    import torch

    from pretextlm.training.trackers import Trackers

AVERAGED = ("loss", "gradient_norm", "tokens_per_second", "mfu", "data_wait")
STATUS = Path("/proc/self/status")


class MetricsLog:
    """Appends lines to metrics.jsonl; a line of kind "train" averages the steps since the previous one.

    Args:
        run: the run directory.

    Attributes:
        trackers: receive the numbers of each line, too; None if there are none.
    """

    def __init__(self, run: Run) -> None:
        self._path = run.directory / METRICS
        self.trackers: Trackers | None = None

    def train(self, values: Mapping[str, float], window: Mapping[str, float], every: int) -> dict[str, float]:
        """Adds a step to the running sums and writes a line when `step` is a multiple of `every`.

        A skipped step whose numbers are not finite is not averaged.

        Args:
            values: of the step.
            window: running sums, as returned for the previous step.
            every: steps of a line.

        Returns:
            The running sums. They belong to the trainer's state, so that a resumed run writes the same lines.
        """
        averaged = [name for name in AVERAGED if name in values]
        sound = all(math.isfinite(values[name]) for name in averaged)
        sums = {name: window.get(name, 0.0) + (values[name] if sound else 0.0) for name in averaged}
        sums["steps"] = window.get("steps", 0.0) + sound
        if values["step"] % every:
            return sums
        means = {name: sums[name] / sums["steps"] if sums["steps"] else math.nan for name in averaged}
        self._write({"kind": "train", **values, **means})
        return {}

    def flush(self) -> None:
        """Flushes the lines to disk, so that no checkpoint is ever ahead of them.

        Raises:
            UserError: the disk is full or fails.
        """
        with self._disk_errors():
            if self._path.exists():
                flush(self._path)

    def validation(self, values: Mapping[str, float]) -> None:
        """Writes the numbers of a validation."""
        self._write({"kind": "validation", **values})

    def forgetting(self, store: str, values: Mapping[str, float]) -> None:
        """Writes the loss on a store that is monitored for forgetting."""
        self._write({"kind": "forgetting", "store": store, **values})

    def _write(self, line: Mapping[str, Any]) -> None:
        values = {name: value if _is_json(value) else None for name, value in line.items()}
        with self._disk_errors(), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if self.trackers is not None:
            kind = "/".join(line[name] for name in ("kind", "store") if name in line)
            numbers = {f"{kind}/{name}": v for name, v in line.items() if name not in ("kind", "store", "step")}
            self.trackers.log(line["step"], numbers)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"Cannot write {self._path}: {error.strerror}.",
                "Free space or replace the disk, then use --resume.",
            ) from None


def _is_json(value: Any) -> bool:
    """Returns whether JSON can represent the value: it has no infinity and no NaN."""
    return not isinstance(value, float) or math.isfinite(value)


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory so far in bytes: of the tensors on a GPU, or of this process."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if STATUS.exists():  # unlike getrusage, this excludes the memory of the process before exec
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
