"""Names, types and shapes of the tensors in a directory of safetensors files, read from the headers of the files.

The files are untrusted. safetensors validates each of them; this module checks the index, file names, and limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pretextlm.errors import UserError
from pretextlm.hf.untrusted_files import MAX_JSON_BYTES, PLAIN_NAME, open_plain, read_object

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".h5", ".msgpack", ".joblib")
MAX_TENSORS = 100_000
MAX_SHARDS = 1000
FLOATS = ("F32", "F16", "BF16", "F64")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        file: File that holds it.
        dtype: Type as safetensors names it.
        shape: Its shape.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]


def read_tensor_infos(directory: Path) -> dict[str, TensorInfo]:
    """Return every tensor of the model by name.

    Raises:
        UserError: The model is in another format, or a file is invalid.
    """
    if (directory / INDEX).exists() or (directory / INDEX).is_symlink():
        return _read_shards(directory)
    if (directory / WEIGHTS).exists() or (directory / WEIGHTS).is_symlink():
        return _read_header(directory / WEIGHTS)
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix.lower() in PICKLES)
    if pickles:
        raise UserError(
            f"{directory} holds its weights as {pickles[0]}, a format that may run code when it is read: not read.",
            f"Where you trust its source, convert model and tokenizer with transformers: {_conversion(directory)}",
        )
    raise UserError(f"{directory} has neither {WEIGHTS} nor {INDEX}.", "Give the directory of a Hugging Face model.")


def _conversion(directory: Path) -> str:
    """Returns the command that converts a model to safetensors as its own class, so that its head is kept."""
    try:
        named = read_object(directory / "config.json").get("architectures")
    except UserError:
        named = None
    kind = str(named[0]) if isinstance(named, list) and named and str(named[0]).isidentifier() else "AutoModel"
    steps = (f"t.{one}.from_pretrained('{directory}').save_pretrained('NEW')" for one in (kind, "AutoTokenizer"))
    return f'python -c "import transformers as t; {"; ".join(steps)}"'


def _read_shards(directory: Path) -> dict[str, TensorInfo]:
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
    found: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, tensor in _read_header(directory / shard).items():
            if files.get(name) != shard:
                raise UserError(f"{shard} holds {name}, which {index} puts elsewhere.", "Fetch the model again.")
            found[name] = tensor
    missing = next((name for name in files if name not in found), None)
    if missing is not None:
        raise UserError(
            f"{files[missing]} lacks {missing[:200]!r}, which {index} puts there.", "Fetch the model again."
        )
    return found


def _read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of one file.

    safetensors itself checks on opening that the header is JSON of the right form, that types are known, that shapes
    match the number of bytes, and that the tensors fill the file without overlap. Left to check are that the path is a
    plain file, and the size of the header: safetensors accepts 100 MB.
    """
    from safetensors import SafetensorError, safe_open

    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_JSON_BYTES:
        raise _invalid(path, f"its header has {length:,} bytes; at most {MAX_JSON_BYTES:,} are read")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise _invalid(path, f"it has {len(names):,} tensors; at most {MAX_TENSORS:,} are read")
            strange = next((name for name in names if not _NAME.fullmatch(name)), None)
            if strange is not None:
                raise _invalid(path, f"{strange[:100]!r} is not a tensor's name")
            slices = {name: file.get_slice(name) for name in names}
            return {name: TensorInfo(path, one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _invalid(path, str(error)[:200]) from None


def _invalid(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a valid safetensors file: {reason}.", "Download the model again.")
