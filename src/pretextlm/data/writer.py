"""Writing a store: files grow split by split in a working directory that is renamed when it is complete."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pretextlm
from pretextlm.data.manifest import (
    FORMAT,
    SPLITS,
    VERSION,
    FileRecord,
    Manifest,
    SourceRecord,
    SplitCounts,
    TokenizerRecord,
)
from pretextlm.errors import UserError
from pretextlm.files import flush


@dataclass(frozen=True)
class Chunk:
    """Encoded documents, concatenated.

    Attributes:
        tokens: (N,) token ids.
        word_starts: (N,) bool, True where a word begins.
        lengths: (D,) tokens of each document; they sum to N.
        document_bytes: (D,) UTF-8 bytes of each document.
        document_sources: (D,) row of each document's source in the table of sources.
        sentences: (S,) offset in `tokens` of the first token of each sentence, ascending.
    """

    tokens: NDArray[np.uint32]
    word_starts: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    document_bytes: NDArray[np.uint32]
    document_sources: NDArray[np.uint32]
    sentences: NDArray[np.int64]

    def select(self, documents: NDArray[np.bool_]) -> Chunk:
        """Returns the documents for which the mask (D,) is True."""
        keep = np.repeat(documents, self.lengths)
        place: NDArray[np.int64] = np.cumsum(keep) - keep
        return Chunk(
            self.tokens[keep],
            self.word_starts[keep],
            self.lengths[documents],
            self.document_bytes[documents],
            self.document_sources[documents],
            place[self.sentences[keep[self.sentences]]],
        )


class _File:
    """A file whose SHA-256 is updated as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self._hash = path, 0, hashlib.sha256()
        self._file = path.open("wb")

    def append(self, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values).view(np.uint8).data
        self._hash.update(data)
        self.bytes += self._file.write(data)

    def close(self) -> FileRecord:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileRecord(bytes=self.bytes, sha256=self._hash.hexdigest())


class SplitWriter:
    """Appends chunks to the files of one split.

    Args:
        path: directory of the split; it is created.
        token_dtype: "uint16" or "uint32".
    """

    def __init__(self, path: Path, token_dtype: str) -> None:
        path.mkdir(parents=True)
        self._dtype = np.dtype(token_dtype).newbyteorder("<")
        names = ("tokens", "documents", "document_bytes", "document_sources", "sentences", "word_starts")
        self._files = {name: _File(path / f"{name}.bin") for name in names}
        self._files["documents"].append(np.zeros(1, "<u8"))
        self._bits = np.zeros(0, bool)
        self.tokens = self.documents = self.sentences = self.words = self.text_bytes = 0
        self.max_id = -1

    def append(self, chunk: Chunk) -> None:
        """Append the documents of a chunk."""
        self._files["tokens"].append(chunk.tokens.astype(self._dtype))
        self._files["documents"].append((self.tokens + np.cumsum(chunk.lengths)).astype("<u8"))
        self._files["document_bytes"].append(chunk.document_bytes.astype("<u4"))
        self._files["document_sources"].append(chunk.document_sources.astype("<u4"))
        self._files["sentences"].append((self.tokens + chunk.sentences).astype("<u8"))
        self._append_bits(chunk.word_starts)
        self.tokens += len(chunk.tokens)
        self.documents += len(chunk.lengths)
        self.sentences += len(chunk.sentences)
        self.words += int(np.count_nonzero(chunk.word_starts))
        self.text_bytes += int(chunk.document_bytes.sum(dtype=np.uint64))
        self.max_id = max(self.max_id, int(chunk.tokens.max(initial=0)) if len(chunk.tokens) else -1)

    def _append_bits(self, flags: NDArray[np.bool_]) -> None:
        """Append one bit per flag. Complete bytes are written; up to seven bits are kept for the next chunk."""
        bits = np.concatenate([self._bits, flags])
        whole = len(bits) // 8 * 8
        self._files["word_starts"].append(np.packbits(bits[:whole], bitorder="little"))
        self._bits = bits[whole:]

    def close(self) -> tuple[SplitCounts, dict[str, FileRecord]]:
        """Close the files.

        Returns:
            The counts of the split, and the record of each file by its name.
        """
        self._files["word_starts"].append(np.packbits(self._bits, bitorder="little"))
        counts = SplitCounts(
            tokens=self.tokens,
            documents=self.documents,
            sentences=self.sentences,
            words=self.words,
            text_bytes=self.text_bytes,
            max_id=self.max_id,
        )
        return counts, {f"{name}.bin": file.close() for name, file in self._files.items()}


class StoreWriter:
    """Builds a store in the directory `work` and renames it when it is complete.

    Args:
        work: working directory on the file system of the final store; existing content is removed.
        vocab_size: number of token ids; decides between two and four bytes per token.
        tokenizer_json: content of tokenizer.json.
    """

    def __init__(self, work: Path, vocab_size: int, tokenizer_json: str) -> None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        self.work, self._vocab_size = work, vocab_size
        self._token_dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
        self.splits = {name: SplitWriter(work / name, self._token_dtype) for name in SPLITS}
        self._tokenizer = _write(work / "tokenizer.json", tokenizer_json)

    def commit(
        self,
        out: Path,
        sources: Sequence[SourceRecord],
        options: dict[str, Any],
        tokenizer_kind: str = "given",
        overwrite: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        """Write the manifest and rename the working directory to `out`.

        Raises:
            UserError: `out` exists and may not be replaced.
        """
        counts, files = {}, {"tokenizer.json": self._tokenizer}
        for name, split in self.splits.items():
            counts[name], records = split.close()
            files |= {f"{name}/{file}": record for file, record in records.items()}
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            pretextlm=pretextlm.__version__,
            token_dtype=self._token_dtype,  # type: ignore[arg-type]
            tokenizer=TokenizerRecord(kind=tokenizer_kind, vocab_size=self._vocab_size),
            splits=counts,
            sources=tuple(sources),
            options=options,
            files=files,
            notes=tuple(notes),
        )
        _write(self.work / "manifest.json", manifest.signed().to_json())
        move_into_place(self.work, out, overwrite)


def _write(path: Path, text: str) -> FileRecord:
    file = _File(path)
    file.append(np.frombuffer(text.encode(), np.uint8))
    return file.close()


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Check that `out` may be written.

    Raises:
        UserError: `out` exists and `overwrite` is False, or `out` is not a store.
    """
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UserError(f"{out} already exists.", "Give another --out, or --overwrite to replace it.")
    if not (out / "manifest.json").is_file():
        raise UserError(f"{out} is not a store, so it is not overwritten.", "Give another --out.")


def move_into_place(work: Path, out: Path, overwrite: bool) -> None:
    """Rename a finished directory to `out`. An old store is kept as `out`.previous until the new one is in place."""
    refuse_existing(out, overwrite)
    previous = out.with_name(out.name + ".previous")
    if out.exists():
        shutil.rmtree(previous, ignore_errors=True)
        out.rename(previous)
    work.rename(out)
    flush(out.parent)
    shutil.rmtree(previous, ignore_errors=True)
