"""Checkpoints of sharded tensors, written by all processes at once and read by any number of processes.

torch.distributed.checkpoint writes them. Its index is a pickle, so they are only read from run directories of our own.
A single process without such a checkpoint never imports torch.distributed.checkpoint, which takes half a second.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from concurrent.futures import Future

    from torch.distributed import ProcessGroup

INDEX = ".metadata"
"""File name of the index, as torch.distributed.checkpoint chooses it."""


def failure() -> type[BaseException]:
    """Returns the exception of torch.distributed.checkpoint if that is imported; it does not derive from Exception."""
    api = sys.modules.get("torch.distributed.checkpoint.api")
    return api.CheckpointException if api else OSError


def write(place: Path, groups: Mapping[str, Mapping[str, Tensor]], processes: ProcessGroup) -> Future[object]:
    """Copies this process's shards, then writes them in the background; called by all processes.

    Args:
        place: directory of the shards.
        groups: tensors by name, by the name of their group.
        processes: that write; the group is not used for anything else meanwhile.

    Returns:
        Future that is done on the main process when all have written.
    """
    from torch.distributed.checkpoint.state_dict_saver import async_save

    return async_save(_named(groups), checkpoint_id=place, process_group=processes)  # type: ignore[return-value]


def read(place: Path, group: str) -> dict[str, Tensor]:
    """Reads the complete tensors of one group on this process alone.

    Args:
        place: directory of the shards.
        group: name of the group.

    Returns:
        Tensors by name.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    index = FileSystemReader(place).read_metadata().state_dict_metadata
    tensors = {
        name.removeprefix(f"{group}."): torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in index.items()
        if isinstance(entry, TensorStorageMetadata) and name.startswith(f"{group}.")
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(_named({group: tensors}), checkpoint_id=place, no_dist=True)
    return tensors


def read_into(place: Path, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Fills replicated or sharded tensors in place; called by all processes.

    Args:
        place: directory of the shards.
        groups: tensors by name, by the name of their group.

    Raises:
        RuntimeError: the shapes or names do not match.
    """
    from torch.distributed import is_initialized
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            load(_named(groups), checkpoint_id=place, no_dist=not is_initialized())
        except failure() as error:
            raise RuntimeError(str(error)) from None


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], complete: Mapping[str, Tensor]) -> None:
    """Copies complete tensors into replicated or sharded ones.

    Args:
        targets: by name; changed in place.
        complete: tensors by name.

    Raises:
        KeyError: a tensor is missing.
    """
    for name, target in targets.items():
        if is_sharded_tensor(target):
            from torch.distributed.tensor import DTensor, distribute_tensor

            assert isinstance(target, DTensor), "sharded tensors are DTensors"
            source = distribute_tensor(complete[name].to(target.device), target.device_mesh, target.placements)
            target.to_local().copy_(source.to_local())
        else:
            target.copy_(complete[name])


def is_sharded_tensor(tensor: Tensor) -> bool:
    """Returns whether the tensor is a DTensor, of which this process holds a shard."""
    return hasattr(tensor, "to_local")


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Returns the shard that this process holds of each tensor; the tensor itself if it is not sharded."""
    return [t.to_local() if is_sharded_tensor(t) else t.detach() for t in tensors]  # type: ignore[attr-defined]


def _named(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
