"""Reading untrusted files of a model directory.

Only regular files with plain names are opened, links are not followed (but those of the hub's cache to its own blobs),
JSON is read within limits of size and depth, and invalid content is refused before memory is allocated for it. Nothing
here imports torch.
"""

from __future__ import annotations

import json
import re
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from pretextlm import plain_files
from pretextlm.errors import UserError

MAX_JSON_BYTES = 8 << 20
MAX_CONFIG_BYTES = 1 << 20
MAX_NESTED = 300_000
"""Maximum number of objects and arrays in one file; a model of 100,000 tensors has about this many."""
MAX_INTEGER = 1 << 40
MAX_LAYERS = 1024

PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")
LAYERS = re.compile(r"(num_(hidden_|decoder_)?layers|n_layers?|(en|de)coder_layers)")


def open_plain(path: Path, limit: int | None = None) -> BufferedReader:
    """Opens a plain file of a model directory.

    Raises:
        UserError: it is a link, a device, or larger than `limit` bytes.
    """
    path = plain_files.cached_blob(path)
    try:
        return plain_files.open_plain(path, limit, follow_links=False)
    except OSError as error:
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link; links in a foreign directory are not followed.",
                f"Copy what you trust: cp -rL {path.parent} COPY",
            ) from None
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Give a directory with a complete model.") from None


def read_plain(path: Path, limit: int) -> bytes:
    """Returns the content of a file of at most `limit` bytes."""
    with open_plain(path, limit) as file:
        return file.read(limit)


def read_object(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Returns one JSON object.

    Raises:
        UserError: the file has anything else.
    """
    return parse_object(read_plain(path, limit), str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Returns one JSON object without duplicate keys, NaN or infinity, or excessive nesting."""
    if data.count(b"{") + data.count(b"[") > MAX_NESTED:
        raise UserError(
            f"{where} has more entries than a model can have.", "The file is damaged or not part of a model."
        )
    try:
        value = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_without_repeats, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise UserError(f"{where} is not sound JSON: {reason}.", "Fetch the model again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} does not hold one JSON object.", "Fetch the model again.")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError("a number is too large")
    return value


def check_numbers(values: dict[str, Any], where: str) -> None:
    """Check integers before they are used as counts.

    Raises:
        UserError: an integer is larger than in any model.
    """
    for key, value in values.items():
        if isinstance(value, dict):
            check_numbers(value, where)
        elif isinstance(value, int) and not isinstance(value, bool):
            limit = MAX_LAYERS if LAYERS.fullmatch(key) else MAX_INTEGER
            if abs(value) > limit or (limit == MAX_LAYERS and value < 0):
                raise UserError(f"{key} = {value} in {where} is not a number of a model.", "Fetch the model again.")
