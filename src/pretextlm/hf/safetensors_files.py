"""Which tensors a directory of safetensors files holds, read from the files' heads and checked against their sizes.

    8 bytes: length of the header | header: {"name": {"dtype", "shape", "data_offsets"}, …} | the tensors' bytes

Nothing is read of the tensors themselves, and nothing is allocated for them.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError
from pretextlm.hf.untrusted_files import MAX_JSON_BYTES, PLAIN_NAME, open_plain, parse_object, read_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".h5", ".msgpack", ".joblib")
MAX_TENSORS = 100_000
MAX_SHARDS = 1000
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F32", "F16", "BF16", "F64")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: its type, as safetensors calls it, and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


def stored_tensors(directory: Path) -> dict[str, Stored]:
    """Every tensor of the model by name. Raises UserError for a model in another format, or files that lie."""
    if (directory / INDEX).exists() or (directory / INDEX).is_symlink():
        return _sharded(directory)
    if (directory / WEIGHTS).exists() or (directory / WEIGHTS).is_symlink():
        return _header(directory / WEIGHTS)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise UserError(
            f"{directory} holds its weights as {pickles[0]}, a format that may run code when it is read: not read.",
            "Where you trust its source, convert it once with transformers: AutoModel…from_pretrained(DIR)"
            ".save_pretrained(NEW, safe_serialization=True)",
        )
    raise UserError(f"{directory} has neither {WEIGHTS} nor {INDEX}.", "Give the directory of a Hugging Face model.")


def _sharded(directory: Path) -> dict[str, Stored]:
    index = directory / INDEX
    files = read_object(index, MAX_JSON_BYTES).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise UserError(f"{index} has no weight_map of tensors and files.", "Fetch the model again.")
    shards = sorted(set(files.values()))
    for shard in shards:
        if not PLAIN_NAME.fullmatch(shard) or not shard.endswith(".safetensors"):
            raise UserError(
                f"{index} names {shard[:100]!r}, which is not a safetensors file in its own directory.",
                "Do not use this model: no honest tool writes such an index.",
            )
    if len(shards) > MAX_SHARDS:
        raise UserError(f"{index} names {len(shards):,} files; at most {MAX_SHARDS} are read.", "Join some of them.")
    found: dict[str, Stored] = {}
    for shard in shards:
        for name, tensor in _header(directory / shard).items():
            if files.get(name) != shard:
                raise UserError(f"{shard} holds {name}, which {index} puts elsewhere.", "Fetch the model again.")
            found[name] = tensor
    missing = next((name for name in files if name not in found), None)
    if missing is not None:
        raise UserError(
            f"{files[missing]} lacks {missing[:200]!r}, which {index} puts there.", "Fetch the model again."
        )
    return found


def _header(path: Path) -> dict[str, Stored]:
    with os.fdopen(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= length <= min(MAX_JSON_BYTES, size - 8):
            raise _lies(path, f"its header cannot be {length:,} bytes long")
        values = parse_object(file.read(length), f"the header of {path}")
    values.pop("__metadata__", None)
    if len(values) > MAX_TENSORS:
        raise _lies(path, f"it names {len(values):,} tensors")
    found, ranges = {}, []
    for name, entry in values.items():
        if not _NAME.fullmatch(name):
            raise _lies(path, f"{name[:100]!r} is not a tensor's name")
        tensor, offsets = _entry(path, name, entry)
        found[name] = tensor
        ranges.append(offsets)
    at = 0
    for begin, end in sorted(ranges):
        if begin != at:
            raise _lies(path, "its tensors overlap or leave holes")
        at = end
    if at != size - 8 - length:
        raise _lies(path, "its tensors do not fill it")
    return found


def _entry(path: Path, name: str, entry: Any) -> tuple[Stored, tuple[int, int]]:
    entry = entry if isinstance(entry, Mapping) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _lies(path, f"{name} is of the unknown type {str(dtype)[:40]!r}")
    if not _whole_numbers(shape) or len(shape) > 8 or not _whole_numbers(offsets) or len(offsets) != 2:
        raise _lies(path, f"{name} has no sound shape or place")
    if offsets[1] - offsets[0] != math.prod(shape) * BYTES[dtype]:
        raise _lies(path, f"{name} has another size than its shape says")
    return Stored(path, dtype, tuple(shape)), (offsets[0], offsets[1])


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _lies(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a sound safetensors file: {reason}.", "Fetch the model again.")
