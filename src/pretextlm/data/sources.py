"""What `data prepare` takes: a file, a directory, `package:NAME` or `hf:NAME`, each a stream of documents."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretextlm.data.readers import Reader, format_of
from pretextlm.data.streams import DamagedError
from pretextlm.errors import UserError, missing_extra

PACKAGE_TEXT = (".txt", ".md", ".rst")


@dataclass(frozen=True)
class Source:
    """One place documents come from.

    Attributes:
        name: as the user gave it.
        licence: what its metadata declares, None where it declares nothing.
        stamp: changes when a file of it changes.
        documents: (reader) → its documents in a fixed order; may be called again for another pass.
    """

    name: str
    licence: str | None
    stamp: str
    documents: Callable[[Reader], Iterator[str]]


def find_source(spec: str) -> Source:
    """What a source on the command line means. Raises UserError when there is nothing to read there."""
    if spec.startswith("package:"):
        return _package(spec.removeprefix("package:"))
    if spec.startswith("hf:"):
        return _hub(spec.removeprefix("hf:"))
    path = Path(spec)
    if path.is_dir():
        return _files(spec, None, _walk(path))
    if not path.exists():
        raise UserError(f"{spec} does not exist.", "Give a file, a directory, package:NAME or hf:NAME.")
    format_of(path)
    return _files(spec, None, [path])


def _files(name: str, licence: str | None, paths: list[Path]) -> Source:
    def documents(reader: Reader) -> Iterator[str]:
        for path in paths:
            yield from reader.read(path)

    return Source(name, licence, stamp(paths), documents)


def stamp(paths: list[Path]) -> str:
    """A hash of the files' names, sizes and times."""
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def _walk(directory: Path) -> list[Path]:
    """Every readable file below, sorted; links to directories are not followed, so none can loop."""
    found = []
    for folder, _, names in os.walk(directory):
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file() and _is_readable(path)]
    if not found:
        raise UserError(f"{directory} holds no .txt, .jsonl or .parquet file.", "Give a directory of text.")
    return sorted(found)


def _is_readable(path: Path) -> bool:
    try:
        format_of(path, also=())
    except UserError:
        return False
    return True


def _package(name: str) -> Source:
    """All text files of an installed package, its Python sources when it has none; found without importing it."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin in ("built-in", "frozen"):
        raise UserError(f"The package {name!r} is not installed.", f"Install it with: pip install {name}")
    folders = [Path(place) for place in spec.submodule_search_locations or []]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    paths = [path for path in files if path.suffix in PACKAGE_TEXT] or [path for path in files if path.suffix == ".py"]
    if not folders and spec.origin:
        paths = [Path(spec.origin)]
    if not paths:
        raise UserError(f"The package {name!r} holds no text.", "Give a package with .txt, .md, .rst or .py files.")
    return _files(f"package:{name}", _declared_licence(name), paths)


def _declared_licence(name: str) -> str | None:
    distributions = importlib.metadata.packages_distributions().get(name, [])
    if not distributions:
        return None
    metadata = importlib.metadata.metadata(distributions[0])
    declared = [metadata[key].strip() for key in ("License-Expression", "License") if key in metadata]
    first = next((text.splitlines()[0] for text in declared if text), "")
    version = importlib.metadata.version(distributions[0])
    return f"{first} (declared by {distributions[0]} {version})" if first else None


def _hub(spec: str) -> Source:
    """A data set of the Hugging Face hub (or a local directory of one), streamed."""
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hub", "Reading hf: sources") from None
    name, config, split = _hub_parts(spec)
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"Cannot open hf:{spec}: {reason}.", "Check the name, the split and the network.") from None

    def documents(reader: Reader) -> Iterator[str]:
        yield from reader.guard(_hub_documents(reader, rows, spec))

    return Source(f"hf:{spec}", getattr(rows.info, "license", None) or None, "", documents)


def _hub_parts(spec: str) -> tuple[str, str | None, str]:
    """NAME or OWNER/NAME, then /CONFIG, then :SPLIT ("train" when not given)."""
    name, _, split = spec.partition(":")
    parts = name.split("/")
    if not Path(name).is_dir() and len(parts) == 3:
        return "/".join(parts[:2]), parts[2], split or "train"
    return name, None, split or "train"


def _hub_documents(reader: Reader, rows: Any, spec: str) -> Iterator[str]:
    field, number = reader.options.field, 0
    try:
        for number, row in enumerate(rows, 1):
            where = f"hf:{spec}, row {number}"
            if field not in row:
                raise UserError(f"{where}: no field {field!r}.", f"Give --field. Known: {', '.join(row)}.")
            if (text := reader.text_of(row[field], where)) is not None:
                yield text
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedError(f"hf:{spec}, after row {number}: {reason}.", "Check the data set and the network.") from None
