"""Checkpoints written while training goes on: copied at once, written by a thread, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from pretextlm.training import checkpoint as checkpoints
from pretextlm.training import sharded_checkpoint as parts
from pretextlm.training.distributed import DistributedContext

POLL_SECONDS = 1.0


class CheckpointWriter:
    """`save` returns as soon as the weights may change again. What went wrong is raised by the next call.

    Attributes:
        alive: called now and then while it waits.

    Args:
        parent: directory of the checkpoints.
        keep: how many of the newest stay.
        distributed: all of its processes call every method together.
        timeout_seconds: how long they wait for each other while they write.
    """

    def __init__(
        self, parent: Path, keep: int, distributed: DistributedContext, timeout_seconds: float = 600.0
    ) -> None:
        self.parent, self.keep, self.distributed = parent, keep, distributed
        self.alive: Callable[[], None] = lambda: None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._pending: list[Future[Any]] = []
        self._processes: Any = _group(timeout_seconds) if distributed.world_size > 1 else None

    def save(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> None:
        """Begin to write a checkpoint, after the one before is done. Raises UserError when that one failed."""
        self.wait()
        if self.distributed.broadcast_from_main(lambda: checkpoints.place(self.parent, step).exists()):
            return
        if any(map(parts.is_sharded_tensor, model.values())):
            self._in_parts(step, model, optimizer, dict(state))
        elif self.distributed.is_main:
            mine, kept = copied(model), copied(optimizer)
            work = self._writer.submit(checkpoints.save, self.parent, step, mine, kept, dict(state), self.keep)
            self._pending = [work]

    def _in_parts(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: dict[str, Any]
    ) -> None:
        final = checkpoints.place(self.parent, step)
        size = round(
            sum(self.distributed.all_reduce_sum([checkpoints.size_of(model) + checkpoints.size_of(optimizer)]))
        )

        def begin() -> Path:
            with checkpoints.told(final, size):
                return checkpoints.begin(self.parent, step, size)

        partial = self.distributed.broadcast_from_main(begin)
        place = partial / checkpoints.PARTS
        written = parts.write(place, {"model": model, "optimizer": optimizer}, self._processes)
        self._pending = [written]

        def finish() -> None:
            with checkpoints.told(final, size):
                written.result()
                checkpoints.finish(partial, final, state, self.keep)

        if self.distributed.is_main:
            self._pending = [self._writer.submit(finish)]

    def wait(self) -> None:
        """Until nothing is being written. Raises UserError on all processes when it failed.

        However long that takes: processes exchange a sign of life while they wait.
        """
        while True:
            done = not wait(self._pending, timeout=POLL_SECONDS).not_done
            self.alive()
            if self.distributed.all_gather([done]).min() > 0:
                break
        pending, self._pending = self._pending, []
        fault: BaseException | None = None
        for one in pending:
            fault = one.exception() or fault

        def outcome() -> None:
            if fault is not None:
                raise fault

        self.distributed.broadcast_from_main(outcome)

    def close(self) -> None:
        """End the thread, after what it writes is written."""
        for one in self._pending:
            one.exception()
        self._writer.shutdown(wait=True)


def _group(timeout_seconds: float) -> Any:
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in memory of the CPU that nothing else writes to."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
