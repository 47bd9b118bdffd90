"""Tensors of which every process has a part, written by all at once and read by any number of processes.

torch.distributed.checkpoint writes them; its index is a pickle, which is why only our own run directories are read.
What runs on one process alone never loads torch's distributed half, which takes half a second.
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
"""What the writing library names its index."""


def failure() -> type[BaseException]:
    """What the writing library raises, where it is loaded; it is no Exception."""
    api = sys.modules.get("torch.distributed.checkpoint.api")
    return api.CheckpointException if api else OSError


def write(place: Path, groups: Mapping[str, Mapping[str, Tensor]], processes: ProcessGroup) -> Future[object]:
    """Copy this process's parts, then write them behind its back; called by all processes.

    Args:
        groups: tensors by name, under a name of the group.
        processes: over which they agree; used by nothing else while the writing goes on.

    Returns:
        Done on the first process when all have written.
    """
    from torch.distributed.checkpoint.state_dict_saver import async_save

    return async_save(_named(groups), checkpoint_id=place, process_group=processes)  # type: ignore[return-value]


def read(place: Path, group: str) -> dict[str, Tensor]:
    """One group's tensors, whole, on this process alone."""
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
    """Fill tensors, whole ones or parts; called by all processes. Raises RuntimeError where they do not fit."""
    from torch.distributed import is_initialized
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            load(_named(groups), checkpoint_id=place, no_dist=not is_initialized())
        except failure() as error:
            raise RuntimeError(str(error)) from None


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into others, of which a process may have a part. Raises KeyError for one that is absent."""
    for name, target in targets.items():
        if is_sharded_tensor(target):
            from torch.distributed.tensor import DTensor, distribute_tensor

            assert isinstance(target, DTensor), "what has a local part is a DTensor"
            source = distribute_tensor(whole[name].to(target.device), target.device_mesh, target.placements)
            target.to_local().copy_(source.to_local())
        else:
            target.copy_(whole[name])


def is_sharded_tensor(tensor: Tensor) -> bool:
    """Whether this process may hold but a part of it."""
    return hasattr(tensor, "to_local")


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each."""
    return [t.to_local() if is_sharded_tensor(t) else t.detach() for t in tensors]  # type: ignore[attr-defined]


def _named(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
