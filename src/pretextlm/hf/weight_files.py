"""Writing tensors as safetensors files, in one dtype and in files of limited size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pretextlm.hf.export_tokenizer import write_json
from pretextlm.hf.safetensors_files import INDEX, WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Our names of dtypes and torch's."""


def write_weights(directory: Path, tensors: Mapping[str, Tensor], dtype: str, limit: int) -> None:
    """Writes tensors as one safetensors file, or as several of at most `limit` bytes and an index.

    Args:
        directory: the place.
        tensors: by name, in order.
        dtype: "fp32", "bf16" or "fp16", of the floating-point ones.
        limit: most bytes of a file; one tensor may be larger.
    """
    from safetensors.torch import save_file

    kind, bytes_of = torch_dtype(dtype), sizes(tensors, dtype)
    shards = list(_shards(bytes_of, limit))
    where: dict[str, str] = {}
    for nth, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{nth:05d}-of-{len(shards):05d}.safetensors"
        own = {name: stored(tensors[name], kind).contiguous() for name in names}
        save_file(own, directory / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(directory / INDEX, {"metadata": {"total_size": sum(bytes_of.values())}, "weight_map": where})


def sizes(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, int]:
    """Returns the bytes of each tensor as written, by name."""
    kind = torch_dtype(dtype)
    return {name: t.numel() * (kind if t.is_floating_point() else t.dtype).itemsize for name, t in tensors.items()}


def torch_dtype(dtype: str) -> torch.dtype:
    """Returns torch's dtype for our name."""
    import torch

    kind: torch.dtype = getattr(torch, DTYPES[dtype])
    return kind


def stored(tensor: Tensor, kind: torch.dtype) -> Tensor:
    """Returns a tensor as written: integers unchanged, everything else in one dtype."""
    return tensor.to(kind) if tensor.is_floating_point() else tensor


def _shards(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Yields the names of the tensors of each file, in order, from the bytes of each."""
    names: list[str] = []
    size = 0
    for name, own in sizes.items():
        if names and size + own > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += own
    yield names
