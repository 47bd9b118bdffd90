"""Checkpoints of sharded tensors, written by all processes at once and read by any number of processes.

    parts/00000-of-00004.safetensors … 00003-of-00004.safetensors

Each process writes one safetensors file with its shards. The file's metadata gives, for each shard, the shape of the
complete tensor and the offset of the shard in it, so there is no index, and nothing that is read can run code
(the index of torch.distributed.checkpoint is a pickle).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FILE = re.compile(r"(\d{5})-of-(\d{5})\.safetensors")
SHARDS = "shards"
"""Key of a file's metadata: a JSON object from the name of each shard to (shape of the tensor, offset in it)."""
REASON_BYTES = 1024
"""Bytes of a message about a failure that processes send to each other."""

Place = tuple[int, ...]
"""One number per dimension of a tensor."""


@dataclass(frozen=True)
class Shard:
    """A shard in a file.

    Attributes:
        file: an open safetensors file.
        key: of the shard in it.
        shape: of the complete tensor.
        offset: of the shard's first element in the complete tensor.
        size: shape of the shard.
    """

    file: Any
    key: str
    shape: Place
    offset: Place
    size: Place

    def copy_into(self, target: Tensor, begin: Place) -> None:
        """Copies what this shard and a part of the complete tensor have in common.

        Args:
            target: the part; changed in place.
            begin: offset of the part in the complete tensor.
        """
        if not self.shape:
            target.copy_(self.file.get_tensor(self.key))
            return
        # Both intervals in coordinates of the complete tensor, dimension by dimension; then of the shard and the part.
        low = [max(a, b) for a, b in zip(self.offset, begin, strict=True)]
        high = [min(a + n, b + m) for a, n, b, m in zip(self.offset, self.size, begin, target.shape, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return
        here = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, self.offset, strict=True))
        there = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, begin, strict=True))
        target[there].copy_(self.file.get_slice(self.key)[here])


def write(
    place: Path, groups: Mapping[str, Mapping[str, Tensor]], executor: Executor, processes: ProcessGroup | None
) -> Future[None]:
    """Copies this process's shards, then writes them in the background; called by all processes.

    Args:
        place: directory of the shards.
        groups: tensors by name, by the name of their group.
        executor: runs the writing.
        processes: that write; the group is not used for anything else meanwhile. None: this process alone.

    Returns:
        Future that is done when all processes have written. Its exception, on all of them, is an OSError that names
        the first process that failed, or the reason why they lost each other.
    """
    rank, world_size = (processes.rank(), processes.size()) if processes else (0, 1)
    shards, places = _own_shards(groups, rank)
    path = place / f"{rank:05d}-of-{world_size:05d}.safetensors"

    def work() -> None:
        reason = ""
        try:
            place.mkdir(exist_ok=True)
            save_file(shards, path, {SHARDS: json.dumps(places)})
        except Exception as error:  # the others wait for this process
            reason = f"{getattr(error, 'strerror', None) or error}"
            if processes is None:
                raise
        _raise_first(processes, reason)

    return executor.submit(work)


def read(place: Path, group: str) -> dict[str, Tensor]:
    """Reads the complete tensors of one group on this process alone.

    Args:
        place: directory of the shards.
        group: name of the group.

    Returns:
        Tensors by name.

    Raises:
        RuntimeError: shards are missing.
    """
    with _opened(place) as index:
        tensors = {}
        for name, shards in index.items():
            if name.startswith(f"{group}."):
                dtype = shards[0].file.get_tensor(shards[0].key).dtype
                tensors[name.removeprefix(f"{group}.")] = complete = torch.empty(shards[0].shape, dtype=dtype)
                _fill(complete, (0,) * complete.ndim, shards)
        return tensors


@torch.no_grad()
def read_into(place: Path, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Fills replicated or sharded tensors in place. Each process reads its own shards only.

    Args:
        place: directory of the shards.
        groups: tensors by name, by the name of their group.

    Raises:
        RuntimeError: the shapes or names do not match.
    """
    with _opened(place) as index:
        for name, tensor in _named(groups).items():
            shards = index.get(name)
            if shards is None:
                raise RuntimeError(f"{place} has no tensor {name}")
            if tuple(tensor.shape) != shards[0].shape:
                raise RuntimeError(f"{name} has shape {shards[0].shape} in {place}, here {tuple(tensor.shape)}")
            for part, offset in _local(tensor):
                on_cpu = part if part.device.type == "cpu" else torch.empty_like(part, device="cpu")
                _fill(on_cpu, offset, shards)
                if on_cpu is not part:
                    part.copy_(on_cpu)


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


def _own_shards(
    groups: Mapping[str, Mapping[str, Tensor]], rank: int
) -> tuple[dict[str, Tensor], dict[str, tuple[Place, Place]]]:
    """Returns copies of the shards that this process writes, and their places: of replicas, one process writes one."""
    shards, places = {}, {}
    for name, tensor in _named(groups).items():
        if not _writes(tensor, rank):
            continue
        for part, offset in _local(tensor):
            if part.numel() or not tensor.numel():
                shards[name] = part.detach().to("cpu", copy=True).contiguous()
                places[name] = (tuple(tensor.shape), offset)
    return shards, places


def _writes(tensor: Tensor, rank: int) -> bool:
    """Returns whether this process writes its part: the first of each dimension of the mesh that replicates it."""
    if not is_sharded_tensor(tensor):
        return rank == 0
    coordinate: Sequence[int] = tensor.device_mesh.get_coordinate()  # type: ignore[attr-defined]
    placements = tensor.placements  # type: ignore[attr-defined]
    return all(at == 0 or placement.is_shard() for at, placement in zip(coordinate, placements, strict=True))


def _local(tensor: Tensor) -> list[tuple[Tensor, Place]]:
    """Returns what this process holds of a tensor, and its offset in the complete one."""
    if not is_sharded_tensor(tensor):
        return [(tensor.detach(), (0,) * tensor.ndim)]
    (chunk,) = tensor.__create_chunk_list__()  # type: ignore[attr-defined]
    return [(tensor.to_local().detach(), tuple(chunk.offsets))]  # type: ignore[attr-defined]


def _raise_first(processes: ProcessGroup | None, reason: str) -> None:
    """Exchanges the reasons of failures ("" if there is none), and raises the first one on all processes.

    Raises:
        OSError: a process failed.
    """
    if processes is None:
        return
    import torch.distributed as dist

    data = reason.encode()[:REASON_BYTES]
    own = torch.zeros(REASON_BYTES, dtype=torch.uint8)
    own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
    every = [torch.empty_like(own) for _ in range(processes.size())]
    dist.all_gather(every, own, group=processes)
    for rank, one in enumerate(every):
        if one.any():
            raise OSError(f"process {rank}: {bytes(one.tolist()).rstrip(bytes(1)).decode(errors='replace')}")


@contextmanager
def _opened(place: Path) -> Iterator[dict[str, list[Shard]]]:
    """Opens all files.

    Yields:
        The shards of each tensor, by the name of group and tensor.

    Raises:
        RuntimeError: a file is missing, or has no valid places.
    """
    if missing := missing_files(path.name for path in place.iterdir()):
        raise RuntimeError(f"{place / missing} is missing")
    index: dict[str, list[Shard]] = {}
    with ExitStack() as opened:
        for path in sorted(place.glob("*.safetensors")):
            file = opened.enter_context(safe_open(path, framework="pt"))
            places = json.loads((file.metadata() or {}).get(SHARDS, "{}"))
            for name in file.keys():  # noqa: SIM118 (not a dict)
                shape, offset = (tuple(map(int, one)) for one in places[name])
                size = tuple(file.get_slice(name).get_shape())
                index.setdefault(name, []).append(Shard(file, name, shape, offset, size))
        yield index


def missing_files(names: Iterable[str]) -> str | None:
    """Returns the name of a file that is missing beside others, or None if every process's file is there."""
    found = [match for name in names if (match := FILE.fullmatch(name))]
    world_size = max((int(match[2]) for match in found), default=1)
    ranks = {int(match[1]) for match in found if int(match[2]) == world_size}
    missing = next((rank for rank in range(world_size) if rank not in ranks), None)
    return None if missing is None else f"{missing:05d}-of-{world_size:05d}.safetensors"


def _fill(target: Tensor, begin: Place, shards: Sequence[Shard]) -> None:
    """Fills a part of a tensor from shards that together are the complete tensor, each element once."""
    shape = torch.Size(shards[0].shape)
    if sum(torch.Size(shard.size).numel() for shard in shards) != shape.numel():
        raise RuntimeError(f"shards of {shards[0].key} are missing")
    for shard in shards:
        shard.copy_into(target, begin)


def _named(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}
