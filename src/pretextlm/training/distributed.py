"""The processes that train one model together: who we are among them, and what they agree on.

torchrun, Slurm or anything else that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT starts them; a
process without these is alone. What is agreed on goes over the CPU's network (gloo): a few numbers a step.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pretextlm.errors import Echo, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
JOIN_SECONDS = 120.0
"""Processes that one program starts come within seconds of each other."""


@dataclass(frozen=True)
class World:
    """Attributes: rank: our number, 0 … size-1; size: how many we are; local_rank: our number on this machine;
    local_size: how many are on it."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether we are the one that writes and speaks."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        """How many machines we are on."""
        return -(-self.size // self.local_size)

    def gather(self, values: Sequence[float]) -> torch.Tensor:
        """(size, n) float64: everyone's n numbers, the same on all."""
        import torch
        from torch import distributed

        mine = torch.tensor(values, dtype=torch.float64)
        if self.size == 1:
            return mine[None]
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everyone, mine)
        return torch.stack(everyone)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Everyone's numbers added up in the order of ranks, so that all have the same sums to the last bit."""
        found: list[float] = self.gather(values).sum(0).tolist()
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, on all. Raises the UserError that it raised, on all."""
        if self.size == 1:
            return make()
        from torch import distributed

        box: list[object] = [None, None]
        if self.first:
            try:
                box[0] = make()
            except UserError as error:
                box[1] = (error.message, error.hint)
            except BaseException as error:
                box[1] = (f"The first process failed: {type(error).__name__}: {error}.", "It says more.")
                distributed.broadcast_object_list(box, src=0)
                raise
        distributed.broadcast_object_list(box, src=0)
        if box[1] is not None:
            assert isinstance(box[1], tuple)
            raise UserError(*box[1]) if self.first else Echo(*box[1])
        return box[0]  # type: ignore[return-value]

    def everywhere(self, make: Callable[[], T]) -> T:
        """What each process makes for itself. Raises the same UserError on all where it failed on any."""
        if self.size == 1:
            return make()
        from torch import distributed

        made: T | None = None
        fault: tuple[str, str] | None = None
        try:
            made = make()
        except UserError as error:
            fault = (error.message, error.hint)
        faults: list[tuple[str, str] | None] = [None] * self.size
        distributed.all_gather_object(faults, fault)
        wrong = [(rank, one) for rank, one in enumerate(faults) if one is not None]
        if wrong:
            rank, (message, hint) = wrong[0]
            where = "" if len(wrong) == self.size else f"Process {rank}: "
            raise UserError(where + message, hint) if self.first else Echo(where + message, hint)
        return made  # type: ignore[return-value]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier()


ALONE = World()


def speaks() -> bool:
    """Whether this process is the one that writes to the terminal, known before it joins the others."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def alike() -> Iterator[None]:
    """What fails in the block, before processes join, fails on each of them: only the first need tell."""
    try:
        yield
    except UserError as error:
        raise (error if speaks() else Echo(error.message, error.hint)) from None


@contextmanager
def joined(timeout_seconds: float, join_seconds: float = JOIN_SECONDS) -> Iterator[World]:
    """The processes started together with this one, as long as the block lasts; a group that is there already is used.

    Args:
        timeout_seconds: how long to wait for the others before this process gives up.
        join_seconds: how long to wait for them to join, if that is less.

    Raises:
        UserError: the environment names a place among processes that makes no sense, or the others do not come.
    """
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    world = _of_environment()
    if world.size == 1:
        yield world
        return
    import torch
    from torch import distributed

    if distributed.is_initialized():
        yield world
        return
    for renamed in ("`broadcast_buffers`", "`torch.distributed.all_gather_into_tensor`"):  # since torch 2.13
        warnings.filterwarnings("ignore", f"{renamed} is deprecated", FutureWarning)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(world.local_rank)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    patience = min(timeout_seconds, join_seconds)
    try:
        _form_group(backend, timedelta(seconds=patience), timedelta(seconds=timeout_seconds))
    except RuntimeError as error:
        raise UserError(
            f"Rank {world.rank} of {world.size} cannot reach the others, for which it waits {patience:g} seconds "
            f"(training.join_seconds): {str(error).strip().splitlines()[0]}",
            "See that all were started, with the same MASTER_ADDR and a free MASTER_PORT, and what they say.",
        ) from None
    try:
        yield world
    finally:
        distributed.destroy_process_group()


def _form_group(backend: str, patience: timedelta, timeout: timedelta) -> None:
    """The default group, whose processes wait for each other for so long while they join, and so long from then on."""
    from torch import distributed
    from torch.distributed.distributed_c10d import _set_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=patience))
    store.set_timeout(patience)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    store.set_timeout(timeout)
    _set_pg_timeout(timeout)


def _of_environment() -> World:
    try:
        rank, size, local = (int(os.environ[name]) for name in NAMES)
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except (KeyError, ValueError):
        rank, size, local, local_size = -1, 0, 0, 1
    if not 0 <= rank < size or not 0 <= local < local_size:
        given = ", ".join(f"{name}={os.environ.get(name)!r}" for name in NAMES)
        raise UserError(f"The place of this process makes no sense: {given}.", "Start it by torchrun.")
    return World(rank, size, local, local_size)
