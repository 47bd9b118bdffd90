"""The prepared corpus on disk, memory-mapped: opening takes the same time and memory for a corpus of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.manifest import SPLIT_FILES, SPLITS, FileRecord, Manifest, SplitCounts, read_manifest
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.plain_files import open_plain

if TYPE_CHECKING:
    from tokenizers import Tokenizer


TOKENIZER: Final = "tokenizer.json"
FILES = (TOKENIZER, *(f"{split}/{file}" for split in SPLITS for file in SPLIT_FILES))
SMALL_BYTES = 4 << 20
"""Files up to this size, and the tokenizer, are compared with their hashes whenever a store is opened."""


@dataclass(frozen=True)
class Split:
    """One split of a store. All arrays are read-only memory maps.

    Attributes:
        tokens: (N,) uint16 or uint32 token ids of the text, without special tokens.
        documents: (D+1,) uint64; document i is tokens[documents[i]:documents[i+1]].
        document_bytes: (D,) uint32 UTF-8 bytes of each document.
        document_sources: (D,) uint32 row of each document's source in the manifest's `sources`.
        sentences: (S,) uint64 token offset of the first token of each sentence.
        word_bits: (⌈N/8⌉,) uint8, one bit per token, lowest bit first: 1 if a word begins at the token.
        parts: (sources,) 2 for sources whose documents are source–target pairs (their two "sentences" are the two
            texts), 1 for the others. Empty if no source has pairs.
    """

    tokens: NDArray[Any]
    documents: NDArray[np.uint64]
    document_bytes: NDArray[np.uint32]
    document_sources: NDArray[np.uint32]
    sentences: NDArray[np.uint64]
    word_bits: NDArray[np.uint8]
    parts: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        return len(self.document_bytes)

    @cached_property
    def text_bytes(self) -> int:
        """Returns the UTF-8 bytes of all documents."""
        return int(self.document_bytes.sum(dtype=np.uint64))

    def document(self, index: int) -> NDArray[np.int64]:
        """Returns the token ids of one document.

        Raises:
            IndexError: `index` is outside 0 … num_documents - 1.
        """
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        start, stop = int(self.documents[index]), int(self.documents[index + 1])
        return self.tokens[start:stop].astype(np.int64)

    def word_starts(self, indices: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Returns a bool array of the shape of `indices`: True where a word begins at that token offset."""
        low = (indices & 7).astype(np.uint8)
        low = np.right_shift(self.word_bits.take(indices >> 3), low, out=low)
        low &= 1
        return low.view(np.bool_)

    def first_documents(self, count: int) -> Split:
        """Returns a view of the first `count` documents, or of all if there are fewer."""
        count = max(0, min(count, self.num_documents))
        tokens = int(self.documents[count])
        return Split(
            tokens=self.tokens[:tokens],
            documents=self.documents[: count + 1],
            document_bytes=self.document_bytes[:count],
            document_sources=self.document_sources[:count],
            sentences=self.sentences[: int(np.searchsorted(self.sentences, tokens))],
            word_bits=self.word_bits[: (tokens + 7) // 8],
            parts=self.parts,
        )

    @cached_property
    def pairs(self) -> NDArray[np.bool_]:
        """Returns (D,) bool, True for documents that are source–target pairs."""
        table = np.array(self.parts, np.uint8) == 2
        return table[self.document_sources] if table.any() else np.zeros(self.num_documents, bool)

    def plain(self) -> Split:
        """Returns the documents that are not pairs; a view if they come first, as `data prepare` writes them."""
        pairs = self.pairs
        first = int(np.argmax(pairs)) if pairs.any() else len(pairs)
        if pairs[first:].all():
            return self.first_documents(first)
        return self.select(~pairs)

    def select(self, chosen: NDArray[np.bool_]) -> Split:
        """Returns a copy of some documents, in their order.

        Args:
            chosen: (D,) True for these documents.
        """
        if chosen.all():
            return self
        documents = self.documents.view(np.int64)
        begins, lengths = documents[:-1][chosen], np.diff(documents)[chosen]
        ends = np.cumsum(lengths)
        # Token i of the copy is token i + shift of this split; the shift is constant within a document:
        # documents [0, 3) and [5, 7) are copied from 0 1 2 5 6.
        tokens = np.arange(int(lengths.sum())) + np.repeat(begins - (ends - lengths), lengths)
        sentences = self.sentences.view(np.int64)
        first, after = np.searchsorted(sentences, begins), np.searchsorted(sentences, begins + lengths)
        counts = after - first
        nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        shift = np.repeat(begins - (ends - lengths), counts)
        return Split(
            tokens=self.tokens[tokens],
            documents=np.concatenate([[0], ends]).astype(np.uint64),
            document_bytes=self.document_bytes[chosen],
            document_sources=self.document_sources[chosen],
            sentences=(sentences[np.repeat(first, counts) + nth] - shift).astype(np.uint64),
            word_bits=np.packbits(self.word_starts(tokens), bitorder="little"),
            parts=self.parts,
        )


@dataclass(frozen=True)
class Store:
    """A prepared corpus. Create it with :meth:`open`.

    Attributes:
        path: directory of the store.
        manifest: content of manifest.json as plain values.
        train, validation: the two splits; they have no document in common.
    """

    path: Path
    manifest: dict[str, Any]
    train: Split
    validation: Split

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Memory-map the files of a store.

        Sizes, counts, the largest token id and the hashes of small files are checked here; those of large files by
        :meth:`verify` only.

        Returns:
            The opened store.

        Raises:
            UserError: a file is missing or disagrees with the manifest.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for name in SPLITS:
            _check_counts(path / name, manifest.splits[name], manifest)
        parts = tuple(source.parts for source in manifest.sources)
        train, validation = (
            _map_split(path / name, manifest.splits[name], manifest.token_dtype, parts) for name in SPLITS
        )
        for name in FILES:
            record = manifest.files.get(name)
            if record is None or name == TOKENIZER or record.bytes <= SMALL_BYTES:
                _check_hash(path, name, manifest.files)
        return cls(path, manifest.model_dump(mode="json"), train, validation)

    def __fspath__(self) -> str:
        """Return the directory as text, so that a store is accepted where a path is."""
        return str(self.path)

    def __repr__(self) -> str:
        sizes = (f"{name}={counts['tokens']:,} tokens" for name, counts in self.manifest["splits"].items())
        return f"Store({str(self.path)!r}, {', '.join(sizes)})"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Returns the store's tokenizer, loaded on first use. Encoding text with it never yields a special token id."""
        from pretextlm.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(self.path / TOKENIZER)
        size, expected = tokenizer.get_vocab_size(), self.manifest["tokenizer"]["vocab_size"]
        if size != expected:
            raise UserError(
                f"{self.path / TOKENIZER} has {size:,} entries, the store was made with {expected:,}.",
                "The file was replaced: prepare the data again.",
            )
        return tokenizer

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Returns the size and the special token ids of the tokenizer."""
        from pretextlm.data.tokenizer import vocabulary_of

        return vocabulary_of(self.tokenizer)

    def verify(self) -> None:
        """Read every file completely and compare it with the manifest.

        Raises:
            UserError: names the first file whose SHA-256 or content differs.
        """
        files = read_manifest(self.path).files
        for name in FILES:
            _check_hash(self.path, name, files)
        for name, split in (("train", self.train), ("validation", self.validation)):
            if (split.documents[1:] < split.documents[:-1]).any():
                raise _damaged(self.path / name / "documents.bin")
            if int(split.tokens.max(initial=0)) >= self.manifest["tokenizer"]["vocab_size"]:
                raise _damaged(self.path / name / "tokens.bin")


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: its content is not what was written.", "Prepare the data again with --overwrite."
    )


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Prepare the data again.") from None


def _check_hash(store: Path, name: str, records: Mapping[str, FileRecord]) -> None:
    if name not in records or sha256_of(store / name) != records[name].sha256:
        raise _damaged(store / name)


def _check_counts(path: Path, counts: SplitCounts, manifest: Manifest) -> None:
    if min(counts.tokens, counts.documents, counts.sentences) < 0:
        raise UserError(f"The manifest gives {path} a negative count.", "Prepare the data again.")
    if counts.max_id >= manifest.tokenizer.vocab_size:
        raise UserError(
            f"{path} holds token id {counts.max_id}, the vocabulary has {manifest.tokenizer.vocab_size:,} entries.",
            "The tokens belong to another tokenizer: prepare the data again.",
        )


def _map_split(path: Path, counts: SplitCounts, token_dtype: str, parts: tuple[int, ...]) -> Split:
    n, d, s = counts.tokens, counts.documents, counts.sentences
    shapes = dict(
        zip(
            SPLIT_FILES,
            [(token_dtype, n), ("<u8", d + 1), ("<u4", d), ("<u4", d), ("<u8", s), ("u1", (n + 7) // 8)],
            strict=True,
        )
    )
    arrays = {
        name.removesuffix(".bin").replace("word_starts", "word_bits"): _map(path / name, np.dtype(dtype), length)
        for name, (dtype, length) in shapes.items()
    }
    split = Split(**arrays, parts=parts)
    if split.documents[0] != 0 or split.documents[-1] != n:
        raise UserError(f"{path / 'documents.bin'} does not fit tokens.bin.", "Prepare the data again.")
    return split


def _map(path: Path, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Prepare the data again.") from None
    if size != length * dtype.itemsize:
        raise UserError(
            f"{path} is {size:,} bytes; the manifest says {length * dtype.itemsize:,}.",
            "The file was cut or replaced: prepare the data again.",
        )
    if not length:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r", shape=(length,)))
