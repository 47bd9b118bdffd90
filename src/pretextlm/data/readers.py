"""Documents out of files: text, JSON lines and Parquet, each fault named with its file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pretextlm.data.streams import COMPRESSIONS, DamagedError, lines, open_bytes
from pretextlm.errors import UserError, did_you_mean, missing_extra

TextMode = Literal["file", "paragraphs", "lines"]


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read.

    Attributes:
        field: of a JSON line, Parquet or hub row, the one that holds the text.
        text_mode: what one document of a text file is: the file, each run of lines between blank ones, or each line.
        on_error: stop at a bad document, or leave it out and count it.
        max_document_bytes: a line (a JSON line, a row) above it is a bad document.
        split_long: longer documents are cut, at paragraphs, into pieces of a quarter of these characters; 0 never.
    """

    field: str = "text"
    text_mode: TextMode = "file"
    on_error: Literal["error", "skip"] = "error"
    max_document_bytes: int = 64 << 20
    split_long: int = 1 << 18


@dataclass
class Reader:
    """Reads files, counting the bad documents that it leaves out."""

    options: ReadOptions
    skipped: int = field(default=0)

    def read(self, path: Path) -> Iterator[str]:
        """Documents of one file, format by its name. Raises UserError for a bad document, unless they are skipped."""
        yield from self.guard(FORMATS[format_of(path)](self, path))

    def guard(self, documents: Iterator[str]) -> Iterator[str]:
        """Pass documents on; a source that fails midway is a bad document too, and ends there."""
        try:
            for document in documents:
                yield from self._pieces(document)
        except DamagedError:
            if self.options.on_error == "error":
                raise
            self.skipped += 1

    def _pieces(self, document: str) -> Iterator[str]:
        longest = self.options.split_long
        if not longest or len(document) <= longest:
            yield document
        else:
            yield from cut(document, longest // 4)

    def bad(self, message: str, hint: str) -> None:
        """Count a bad document, or raise it as a UserError."""
        if self.options.on_error == "error":
            raise UserError(message, f"{hint} Or leave such documents out: --on-error skip.")
        self.skipped += 1

    def text_of(self, value: Any, where: str) -> str | None:
        """The value of a field as a document, None where it is bad."""
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            self.bad(f"{where}: the field {self.options.field!r} is {kind}, not text.", "Give another --field.")
        elif "\0" in value:
            self.bad(f"{where}: the text holds a NUL character.", "Clean the source.")
        elif not _encodes(value):
            self.bad(f"{where}: the text holds half a character (a lone surrogate).", "Clean the source.")
        elif len(value) > self.options.max_document_bytes:
            self.bad(f"{where}: the document has {len(value):,} characters.", "Raise --max-document-mb.")
        else:
            return value
        return None

    def decoded_lines(self, path: Path, stream: BinaryIO) -> Iterator[tuple[str, str | None]]:
        """(place, line) of a file in UTF-8, line ends as one newline; None for a bad line, already counted."""
        limit = self.options.max_document_bytes
        for number, line in lines(stream, limit):
            where = f"{path}, line {number}"
            if line is None:
                self.bad(f"{where}: longer than {limit:,} bytes.", "Raise --max-document-mb, or break the line.")
                yield where, None
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                self.bad(f"{where}: byte {error.start + 1} is not UTF-8.", "Convert the file to UTF-8.")
                yield where, None
                continue
            if text.endswith("\r\n"):
                text = text[:-2] + "\n"
            yield where, text


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cut(document: str, longest: int) -> Iterator[str]:
    """Cut at blank lines where there are any, else at line ends, else at spaces: no piece above `longest` characters.

    The pieces together are the document.
    """
    start = 0
    while len(document) - start > longest:
        stop = 0
        for separator in ("\n\n", "\n", " "):
            found = document.rfind(separator, start + longest // 2, start + longest - len(separator) + 1)
            if found >= 0:
                stop = found + len(separator)
                break
        stop = stop or start + longest
        yield document[start:stop]
        start = stop
    yield document[start:]


def _read_text(reader: Reader, path: Path) -> Iterator[str]:
    modes = {"file": _whole_file, "paragraphs": _paragraphs, "lines": _single_lines}
    with open_bytes(path) as stream:
        yield from modes[reader.options.text_mode](reader, _text_lines(reader, path, stream))


def _text_lines(reader: Reader, path: Path, stream: BinaryIO) -> Iterator[str | None]:
    for where, line in reader.decoded_lines(path, stream):
        if line is not None and "\0" in line:
            reader.bad(f"{where}: the text holds a NUL character.", "Is this a text file? Clean it.")
            yield None
        else:
            yield line


def _whole_file(reader: Reader, lines: Iterator[str | None]) -> Iterator[str]:
    """The file is one document; a long one is cut as it is read, so that a file of any size takes bounded memory."""
    longest = reader.options.split_long
    parts: list[str] = []
    size, is_long = 0, False
    for line in lines:
        if line is None:
            return  # a bad line makes the document bad
        parts.append(line)
        size += len(line)
        if longest and size > longest:
            *whole, rest = cut("".join(parts), longest // 4)
            yield from whole
            parts, size, is_long = [rest], len(rest), True
    rest = "".join(parts)
    yield from cut(rest, longest // 4) if is_long else [rest]


def _paragraphs(reader: Reader, lines: Iterator[str | None]) -> Iterator[str]:
    """A document ends at a blank line, and at a bad one."""
    parts: list[str] = []
    for line in lines:
        if line is not None and line.strip():
            parts.append(line)
        elif parts:
            yield "".join(parts).rstrip("\n")
            parts = []
    if parts:
        yield "".join(parts).rstrip("\n")


def _single_lines(reader: Reader, lines: Iterator[str | None]) -> Iterator[str]:
    for line in lines:
        if line is not None:
            yield line.rstrip("\n")


def _read_json_lines(reader: Reader, path: Path) -> Iterator[str]:
    name = reader.options.field
    with open_bytes(path) as stream:
        for where, line in reader.decoded_lines(path, stream):
            if line is None or not line.strip():
                continue
            try:
                values = json.loads(line, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                reader.bad(f"{where}: not JSON ({error or 'nested too deeply'}).", "Write one JSON object a line.")
                continue
            if not isinstance(values, dict):
                reader.bad(f"{where}: {type(values).__name__}, not an object.", "Write one JSON object a line.")
            elif name not in values:
                reader.bad(f"{where}: no field {name!r}.", f"Give --field. {did_you_mean(name, map(str, values))}")
            elif (text := reader.text_of(values[name], where)) is not None:
                yield text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _read_parquet(reader: Reader, path: Path) -> Iterator[str]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise missing_extra("pyarrow", "data", "Reading .parquet files") from None
    name, row = reader.options.field, 0
    try:
        with parquet.ParquetFile(path) as file:
            if name not in file.schema_arrow.names:
                hint = did_you_mean(name, file.schema_arrow.names)
                raise UserError(f"{path} has no column {name!r}.", f"Give --field. {hint}")
            for batch in file.iter_batches(batch_size=256, columns=[name]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    if (text := reader.text_of(value, f"{path}, row {row}")) is not None:
                        yield text
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        what = f"{path}, after row {row}: damaged or not Parquet: {reason}."
        raise DamagedError(what, "Fetch the file again.") from None


FORMATS: dict[str, Callable[[Reader, Path], Iterator[str]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def format_of(path: Path, also: tuple[str, ...] = (".md", ".rst", ".py")) -> str:
    """ ".txt", ".jsonl" or ".parquet" by the file's name; `also` are further endings of text. Raises UserError."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in also:
        return ".txt"
    if last not in FORMATS or (last == ".parquet" and path.suffix.lower() != ".parquet"):
        raise UserError(
            f"{path}: pretextlm does not read this kind of file.",
            "It reads .txt, .jsonl (both also .gz, .zst) and .parquet, and directories of them.",
        )
    return last
