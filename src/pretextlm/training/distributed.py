"""The processes that train one model together, and the exchanges between them.

torchrun, Slurm or any other launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT starts them;
a process without these variables trains alone. The values exchanged here are a few scalars per step and go over gloo
on the CPU; gradients and weights are exchanged by DDP and FSDP2 (parallel.py).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pretextlm.errors import DuplicateUserError, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
JOIN_SECONDS = 120.0
"""Processes started by one launcher join within seconds of each other."""


@dataclass(frozen=True)
class DistributedContext:
    """This process's place among those that train together. Collective methods are called by every process.

    Attributes:
        rank: number of this process, 0 … world_size-1.
        world_size: number of processes.
        local_rank: number of this process on its node.
        local_world_size: number of processes on this node.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and reports progress."""
        return self.rank == 0

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return -(-self.world_size // self.local_world_size)

    def all_gather(self, values: Sequence[float]) -> torch.Tensor:
        """Gather n numbers of every process.

        Returns:
            (world_size, n) float64, the same on all processes.
        """
        import torch
        import torch.distributed as dist

        own = torch.tensor(values, dtype=torch.float64)
        if self.world_size == 1:
            return own[None]
        gathered = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(gathered, own)
        return torch.stack(gathered)

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sum each number over the processes.

        Returns:
            The sums. They are added in the order of ranks on every process, so all have the same sums to the last bit,
            which the algorithm of a real all-reduce does not guarantee.
        """
        sums: list[float] = self.all_gather(values).sum(0).tolist()
        return sums

    def broadcast_from_main(self, make: Callable[[], T]) -> T:
        """Call `make` on the main process only.

        Returns:
            Its (picklable) result, on all processes.

        Raises:
            UserError: on all processes, when `make` raised one.
        """
        if self.world_size == 1:
            return make()
        import torch.distributed as dist

        box: list[object] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except UserError as error:
                box[1] = (error.message, error.hint)
            except BaseException as error:
                box[1] = (f"The main process failed: {type(error).__name__}: {error}.", "See its own message.")
                dist.broadcast_object_list(box, src=0)
                raise
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            assert isinstance(box[1], tuple)
            raise UserError(*box[1]) if self.is_main else DuplicateUserError(*box[1])
        return box[0]  # type: ignore[return-value]

    def run_on_all(self, make: Callable[[], T]) -> T:
        """Call `make` on every process.

        Returns:
            The result of this process.

        Raises:
            UserError: on all processes, when `make` raised one on any of them.
        """
        if self.world_size == 1:
            return make()
        import torch.distributed as dist

        result: T | None = None
        error: tuple[str, str] | None = None
        try:
            result = make()
        except UserError as raised:
            error = (raised.message, raised.hint)
        errors: list[tuple[str, str] | None] = [None] * self.world_size
        dist.all_gather_object(errors, error)
        failed = [(rank, one) for rank, one in enumerate(errors) if one is not None]
        if failed:
            rank, (message, hint) = failed[0]
            prefix = "" if len(failed) == self.world_size else f"Process {rank}: "
            raise UserError(prefix + message, hint) if self.is_main else DuplicateUserError(prefix + message, hint)
        return result  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.barrier()


SINGLE_PROCESS = DistributedContext()


def is_main_process() -> bool:
    """Whether this process writes to the terminal; can be called before it joins a process group."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def report_once() -> Iterator[None]:
    """For code that runs before the processes join and fails on all of them alike: only the main process reports it.

    Raises:
        UserError: on the main process; DuplicateUserError on the others.
    """
    try:
        yield
    except UserError as error:
        raise (error if is_main_process() else DuplicateUserError(error.message, error.hint)) from None


@contextmanager
def process_group(timeout_seconds: float, join_seconds: float = JOIN_SECONDS) -> Iterator[DistributedContext]:
    """Join the processes that were started with this one until the block ends; an existing default group is reused.

    Args:
        timeout_seconds: longest wait for the other processes in an exchange.
        join_seconds: longest wait for them to join, if that is less.

    Yields:
        This process's place among them.

    Raises:
        UserError: the environment variables contradict each other, or the other processes do not join in time.
    """
    if "WORLD_SIZE" not in os.environ:
        yield SINGLE_PROCESS
        return
    context = _context_from_environment()
    if context.world_size == 1:
        yield context
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        yield context
        return
    for renamed in ("`broadcast_buffers`", "`torch.distributed.all_gather_into_tensor`"):  # since torch 2.13
        warnings.filterwarnings("ignore", f"{renamed} is deprecated", FutureWarning)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(context.local_rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    patience = min(timeout_seconds, join_seconds)
    try:
        _init_process_group(backend, timedelta(seconds=patience), timedelta(seconds=timeout_seconds))
    except RuntimeError as error:
        raise UserError(
            f"Rank {context.rank} of {context.world_size} cannot reach the others, for which it waits {patience:g} "
            f"seconds (training.join_seconds): {str(error).strip().splitlines()[0]}",
            "Check that all were started with the same MASTER_ADDR and a free MASTER_PORT, and read their messages.",
        ) from None
    try:
        yield context
    finally:
        dist.destroy_process_group()


def _init_process_group(backend: str, join_timeout: timedelta, timeout: timedelta) -> None:
    """Form the default group with one timeout for joining and another one for every exchange after that.

    torchrun's store outlives the processes that it restarts. Each attempt has keys of its own in it, or a process could
    find the address of one that is gone. Several machines do not count their restarts alike.
    """
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=join_timeout))
    store.set_timeout(join_timeout)
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size):
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=join_timeout)
    store.set_timeout(timeout)
    _set_pg_timeout(timeout)


def _context_from_environment() -> DistributedContext:
    try:
        rank, size, local_rank = (int(os.environ[name]) for name in VARIABLES)
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except (KeyError, ValueError):
        rank, size, local_rank, local_size = -1, 0, 0, 1
    if not 0 <= rank < size or not 0 <= local_rank < local_size:
        given = ", ".join(f"{name}={os.environ.get(name)!r}" for name in VARIABLES)
        raise UserError(f"The environment describes an impossible process: {given}.", "Start it by torchrun.")
    return DistributedContext(rank, size, local_rank, local_size)
