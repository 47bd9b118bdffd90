"""Checkpoints written in the background: tensors are copied at once and written by a thread, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from pretextlm.training import checkpoint as checkpoints
from pretextlm.training import sharded_checkpoint
from pretextlm.training.distributed import DistributedContext

POLL_SECONDS = 1.0


class CheckpointWriter:
    """Writes checkpoints in the background. `save` returns when the weights may change again; an error in writing is
    raised by the next call. All processes call every method together.

    Args:
        parent: directory of the checkpoints.
        keep: number of newest checkpoints that stay.
        distributed: the processes.
        timeout_seconds: longest wait for each other while they write.

    Attributes:
        alive: called regularly while it waits.
    """

    def __init__(
        self, parent: Path, keep: int, distributed: DistributedContext, timeout_seconds: float = 600.0
    ) -> None:
        self.parent, self.keep, self.distributed = parent, keep, distributed
        self.alive: Callable[[], None] = lambda: None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint writer")
        self._shard_writer = ThreadPoolExecutor(1, thread_name_prefix="shard writer")
        self._pending: list[Future[Any]] = []
        self._group: Any = _new_group(timeout_seconds) if distributed.world_size > 1 else None

    def save(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> None:
        """Starts to write a checkpoint, after the previous one is written. One of the same state is left as it is.

        Args:
            step: of the checkpoint.
            model: replicated or sharded weights by name.
            optimizer: replicated or sharded optimizer state by name.
            state: plain values of the trainer.

        Raises:
            UserError: the previous one could not be written.
        """
        self.wait()
        final = checkpoints.checkpoint_path(self.parent, step)
        if self.distributed.broadcast_from_main(lambda: checkpoints.has_state(final, state)):
            return
        if any(map(sharded_checkpoint.is_sharded_tensor, model.values())):
            self._save_sharded(step, model, optimizer, dict(state))
        elif self.distributed.is_main:
            weights, moments = copied(model), copied(optimizer)
            work = self._writer.submit(checkpoints.save, self.parent, step, weights, moments, dict(state), self.keep)
            self._pending = [work]

    def _save_sharded(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: dict[str, Any]
    ) -> None:
        final = checkpoints.checkpoint_path(self.parent, step)
        size = round(
            sum(self.distributed.all_reduce_sum([checkpoints.size_of(model) + checkpoints.size_of(optimizer)]))
        )

        def create() -> Path:
            with checkpoints.disk_errors(final, size):
                return checkpoints.create_partial(self.parent, step, size)

        partial = self.distributed.broadcast_from_main(create)
        place = partial / checkpoints.PARTS
        written = sharded_checkpoint.write(
            place, {"model": model, "optimizer": optimizer}, self._shard_writer, self._group
        )
        self._pending = [written]

        def finish() -> None:
            with checkpoints.disk_errors(final, size):
                written.result()
                checkpoints.finish(partial, final, state, self.keep)

        if self.distributed.is_main:
            self._pending = [self._writer.submit(finish)]

    def wait(self) -> None:
        """Waits until the checkpoint is written. Processes exchange messages meanwhile, so that no timeout expires.

        Raises:
            UserError: on all processes, if it could not be written.
        """
        while True:
            done = not wait(self._pending, timeout=POLL_SECONDS).not_done
            self.alive()
            if self.distributed.all_gather([done]).min() > 0:
                break
        pending, self._pending = self._pending, []
        error: BaseException | None = None
        for future in pending:
            error = future.exception() or error

        def raise_error() -> None:
            if error is not None:
                raise error

        self.distributed.broadcast_from_main(raise_error)

    def close(self) -> None:
        """Ends the thread after it has written the checkpoint in progress."""
        for future in self._pending:
            future.exception()
        self._writer.shutdown(wait=True)
        self._shard_writer.shutdown(wait=True)


def _new_group(timeout_seconds: float) -> Any:
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies in CPU memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
