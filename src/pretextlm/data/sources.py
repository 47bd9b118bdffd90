"""Sources of `data prepare`: a file, a directory, `package:NAME` or `hf:NAME`, each a stream of documents.

The fields of its records may follow a source after a question mark:

    articles.jsonl?field=body                                           one text per record
    articles.json?field=title,meta.body.text                            of several fields, also of nested ones
    old.txt?encoding=cp949                                              another encoding than UTF-8
    wmt.tsv?source=en&target=de&prefix=translate English to German:     a pair, with a prefix that names its task
    sst2.jsonl?source=sentence&target=label&labels=negative,positive    words for the numbers 0 and 1
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pretextlm.data.directories import contents_of, listed, without_program
from pretextlm.data.encodings import checked_encoding
from pretextlm.data.file_formats import RECORDS, Document, DocumentReader, ReadOptions, format_of
from pretextlm.data.streams import DamagedError
from pretextlm.data.tables import Row
from pretextlm.errors import UserError, did_you_mean, missing_extra
from pretextlm.file_names import suffix_of

OPTIONS = ("field", "source", "target", "prefix", "labels", "encoding")
"""Options that may follow a source."""


@dataclass(frozen=True)
class Source:
    """One source of documents.

    Attributes:
        name: as the user gave it.
        licence: declared by its metadata; None if none is.
        stamp: changes if one of its files changes.
        documents: (reader) → its documents in a fixed order; may be called again for another pass.
        options: its own values of ReadOptions.
        left_out: number of files of a directory that are not read, by suffix and reason.
    """

    name: str
    licence: str | None
    stamp: str
    documents: Callable[[DocumentReader], Iterator[Document]]
    options: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        """Returns the number of texts of each document: 2 for pairs."""
        return 2 if "target" in self.options else 1

    def reader(self, options: ReadOptions) -> DocumentReader:
        """Returns a reader with these options, overridden by the source's own."""
        return DocumentReader(replace(options, **self.options))


def find_source(spec: str, options: ReadOptions | None = None) -> Source:
    """Parse a source of the command line.

    Args:
        spec: the source.
        options: which fields and encoding are read, unless the source names its own.

    Returns:
        The source.

    Raises:
        UserError: there is nothing to read.
    """
    place, own = _options(spec)
    found = _find(place, replace(options or ReadOptions(), **own), named="field" in own)
    return replace(found, name=spec, options=own)


def _find(spec: str, options: ReadOptions, named: bool) -> Source:
    """Find a source without its options; `named` says that fields are read, which texts do not have."""
    if spec.startswith("package:"):
        return _package(spec.removeprefix("package:"), options, named)
    if spec.startswith("hf:"):
        return _hub(spec.removeprefix("hf:"))
    path = Path(spec)
    if path.is_dir():
        return _directory(spec, [path], options, named)
    if not path.exists():
        raise UserError(f"{spec} does not exist.", "Give a file, a directory, package:NAME or hf:NAME.")
    if format_of(path) == ".txt" and named:
        raise UserError(f"{spec} is a text file, which has no fields.", f"Fields are read from {', '.join(RECORDS)}.")
    return _files(spec, None, [path])


def _options(spec: str) -> tuple[str, dict[str, Any]]:
    """Split PLACE?key=value&key=value into the place and values of ReadOptions. A file of that very name takes
    precedence.
    """
    mark = re.search(r"\?(?=\w+=)", spec)
    if mark is None or os.path.exists(spec):
        return spec, {}
    values: dict[str, str] = {}
    for part in re.split(r"&(?=\w+=)", spec[mark.end() :]):
        key, _, value = part.partition("=")
        if key not in OPTIONS:
            raise UserError(f"{spec} has the unknown option {key!r}.", did_you_mean(key, OPTIONS))
        if key in values or not value:
            raise UserError(f"{spec} gives {key!r} {'twice' if key in values else 'no value'}.", f"Write {key}=VALUE.")
        values[key] = value
    if ("source" in values) != ("target" in values):
        raise UserError(f"{spec} names one field of a pair.", "Name both: ?source=FIELD&target=FIELD.")
    if "field" in values and "source" in values:
        raise UserError(f"{spec} does not say what to read.", "Write ?field=FIELD, or ?source=FIELD&target=FIELD.")
    if "source" not in values and values.keys() & {"prefix", "labels"}:
        raise UserError(f"{spec} gives a single text a prefix or labels.", "They belong to a pair: source and target.")
    options: dict[str, Any] = dict(values)
    if "source" in values:
        options["field"] = options.pop("source")
    if "labels" in values:
        options["labels"] = tuple(values["labels"].split(","))
    if "encoding" in values:
        options["encoding"] = checked_encoding(values["encoding"])
    return spec[: mark.start()], options


def _files(name: str, licence: str | None, paths: list[Path]) -> Source:
    def documents(reader: DocumentReader) -> Iterator[Document]:
        for path in paths:
            yield from reader.read(path)

    return Source(name, licence, stamp(paths), documents)


def stamp(paths: list[Path]) -> str:
    """Returns a hash of the files' names, sizes and modification times."""
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def _directory(
    name: str, folders: list[Path], options: ReadOptions, named: bool, licence: str | None = None, package: bool = False
) -> Source:
    contents = contents_of(folders, options, records_only=named, follow_links=package)
    if package:
        contents = without_program(contents)
    if not contents.paths:
        what = f" Left out: {listed(contents.left_out)}" if contents.left_out else ""
        raise UserError(f"{name} holds nothing to read.{what}", _REMEDY)
    return replace(_files(name, licence, contents.paths), left_out=contents.left_out)


_REMEDY = (
    "Give a directory of text. Fields are named by --field or DIRECTORY?field=NAME, other encodings by --encoding."
)


def _package(name: str, options: ReadOptions, named: bool) -> Source:
    """Find the files of an installed package or of a module of the standard library without importing it."""
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):  # a module without a specification, as __main__
        spec = None
    if spec is None:
        raise UserError(f"The package {name!r} is not installed.", f"Install it with: pip install {name}")
    folders = [Path(place) for place in spec.submodule_search_locations or []]
    if folders:
        return _directory(f"package:{name}", folders, options, named, _declared_licence(name), package=True)
    # Modules that the interpreter holds frozen, such as os, have their source in the standard library.
    place = Path(sysconfig.get_path("stdlib"), f"{name}.py") if spec.origin == "frozen" else Path(spec.origin or "")
    if suffix_of(place) != ".py" or not place.is_file():
        raise UserError(f"{name!r} is a module without Python source.", "Give a package with text or Python files.")
    return _files(f"package:{name}", _declared_licence(name), [place])


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
    """A dataset of the Hugging Face hub (or a local directory of one), streamed."""
    rows = open_hub(spec, *hub_parts(spec))

    def documents(reader: DocumentReader) -> Iterator[Document]:
        yield from reader.guard(_hub_documents(reader, rows, spec))

    return Source(f"hf:{spec}", getattr(rows.info, "license", None) or None, "", documents)


def hub_parts(spec: str) -> tuple[str, str | None, str]:
    """Parse NAME or OWNER/NAME, then /CONFIG, then :SPLIT ("train" if not given)."""
    name, _, split = spec.partition(":")
    parts = name.split("/")
    if not Path(name).is_dir() and len(parts) == 3:
        return "/".join(parts[:2]), parts[2], split or "train"
    return name, None, split or "train"


def open_hub(spec: str, name: str, config: str | None, split: str) -> Any:
    """Open a dataset for streaming with the library `datasets`.

    Raises:
        UserError: there is no such dataset.
    """
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hub", "Reading hf: sources") from None
    try:
        return datasets.load_dataset(name, config, split=split, streaming=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"Cannot open hf:{spec}: {reason}.", "Check the name, the split and the network.") from None


def hub_rows(rows: Any, spec: str) -> Iterator[Row]:
    """Yields the rows of `open_hub`, numbered from 1.

    Raises:
        DamagedError: the stream ends with an error.
    """
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield number, row
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedError(f"hf:{spec}, after row {number}: {reason}.", "Check the data set and the network.") from None


def _hub_documents(reader: DocumentReader, rows: Any, spec: str) -> Iterator[Document]:
    for number, row in hub_rows(rows, spec):
        where = f"hf:{spec}, row {number}"
        if missing := reader.options.missing(row):
            raise UserError(f"{where}: no field {missing[0]!r}.", f"{reader.how} Known: {', '.join(row)}.")
        if (document := reader.document_of(row, where)) is not None:
            yield document
