"""The rows of a benchmark, from a local copy or from the hub, each with its place, and hashes of all that was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretextlm.data.file_formats import format_of
from pretextlm.data.store import sha256_of
from pretextlm.data.tables import Row, Rules, json_rows, parquet_rows, place, table_rows
from pretextlm.errors import UserError, missing_extra
from pretextlm.evaluation.benchmarks.definition import Benchmark, Hub
from pretextlm.file_names import suffix_of, uncompressed_name

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
LONGEST_ROW = 64 << 20
HUB = "hf:"
"""In place of a directory: each benchmark from its own place on the hub."""


@dataclass(frozen=True)
class Record:
    """One row.

    Attributes:
        where: file and line, or data set and row.
        values: by column.
    """

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """The rows of one split.

    Attributes:
        split: its name.
        records: the rows in order.
        hashes: sha256 of each file, or of a hub's rows as JSON.
    """

    split: str
    records: Sequence[Record]
    hashes: Mapping[str, str]


def read_rows(benchmark: Benchmark, data: str, split: str | None = None) -> Rows:
    """Returns the rows that are scored.

    Args:
        benchmark: definition.
        data: a directory of local copies, a file, or "hf:".
        split: its name; by default the benchmark's own.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    if data == HUB:
        hub = _hub(benchmark)
        return _from_hub(hub, split or hub.split)
    if Path(data).is_file():
        return read_files(Path(data).name.split(".")[0], [Path(data)])
    folder = _folder(benchmark, Path(data))
    if benchmark.whole_folder:
        return read_files(folder.name, _files(folder, ""))
    wanted = (split,) if split else benchmark.splits
    for name in wanted:
        if files := _files(folder, name):
            return read_files(name, files)
    there = sorted({path.name.split(".")[0] for path in _files(folder, "")})
    raise UserError(
        f"{folder} has no file {' or '.join(wanted)} ({', '.join(FORMATS)}).",
        f"It has {', '.join(there)}: --split {there[0]}." if there else "Put the benchmark's files there.",
    )


def read_shots(benchmark: Benchmark, data: str) -> Rows | None:
    """Returns the rows that few-shot examples come from; None where these have no file of their own."""
    if data == HUB:
        hub = _hub(benchmark)
        return None if hub.shots == hub.split else _from_hub(hub, hub.shots)
    if Path(data).is_file() or benchmark.whole_folder:
        return None
    folder = _folder(benchmark, Path(data))
    for name in benchmark.shots_from:
        if files := _files(folder, name):
            return read_files(name, files)
    return None


def _hub(benchmark: Benchmark) -> Hub:
    if benchmark.hub is None:
        raise UserError(f"{benchmark.name} has no place on the hub.", "Give a local copy: --data DIR.")
    return benchmark.hub


def _folder(benchmark: Benchmark, data: Path) -> Path:
    """Returns the benchmark's folder: below the directory, one level deeper, or the directory itself."""
    if not data.is_dir():
        raise UserError(f"{data} does not exist.", "Give the directory of the benchmarks' files, or hf: for the hub.")
    if benchmark.folder:
        inside = [data / benchmark.folder, *sorted(data.glob(f"*/{benchmark.folder}"))]
        if found := next((path for path in inside if path.is_dir()), None):
            return found
        if data.name != Path(benchmark.folder).name and not _files(data, ""):
            raise UserError(f"{data} has no folder {benchmark.folder}.", "docs/evaluation.md lists its files.")
    return data


def _files(folder: Path, stem: str) -> list[Path]:
    """Returns the files of a name, or of its shards (NAME-00000-of-00002.parquet); all files for an empty name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _is_named(path, stem))


def _is_named(path: Path, stem: str) -> bool:
    if suffix_of(path) not in FORMATS or path.name.startswith("."):
        return False
    name = Path(uncompressed_name(path)).stem
    return not stem or name == stem or name.startswith(f"{stem}-0")


def read_files(split: str, files: Sequence[Path]) -> Rows:
    """Returns the rows of some files, one after another.

    Raises:
        UserError: a row is bad, or there is none.
    """
    records = [Record(place(path, number), values) for path in files for number, values in _read(path)]
    if not records:
        raise UserError(f"{files[0] if files else split} holds no row.", "Give a file with one example a row.")
    return Rows(split, records, {path.name: sha256_of(path) for path in files})


def _read(path: Path) -> Iterator[Row]:
    rules = Rules(_bad, LONGEST_ROW, lambda header: None)
    kind = format_of(path)
    if kind == ".jsonl":
        return json_rows(path, rules)
    if kind == ".parquet":
        return parquet_rows(path, rules, _parquet_columns(path))
    if kind in (".csv", ".tsv"):
        return table_rows(path, rules, tabs=kind == ".tsv")
    raise UserError(f"{path} has no columns.", f"A benchmark is read from {', '.join(FORMATS)}.")


def _bad(message: str, hint: str) -> None:
    raise UserError(message, hint)


def _parquet_columns(path: Path) -> list[str]:
    names: list[str] = []
    rules = Rules(_bad, LONGEST_ROW, names.extend)
    next(iter(parquet_rows(path, rules, ())), None)
    return names


def _from_hub(hub: Hub, split: str) -> Rows:
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hub", "Reading benchmarks from the hub") from None
    records = []
    try:
        configurations = datasets.get_dataset_config_names(hub.path) if hub.name == "*" else [hub.name]
        for name in configurations:
            where = f"{HUB}{hub.path}{f'/{name}' if name else ''}:{split}"
            rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(hub.path, name, split=split)
            records += [Record(f"{where}, row {number}", values) for number, values in enumerate(rows, 1)]
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"Cannot read {HUB}{hub.path}, part {split!r}: {reason}.",
            "Check the network, or give a local copy: --data DIR.",
        ) from None
    if not records:
        raise UserError(f"{HUB}{hub.path}, part {split!r}, holds no row.", "Give another part: --split NAME.")
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.values, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return Rows(split, records, {f"{HUB}{hub.path}": digest.hexdigest()})
