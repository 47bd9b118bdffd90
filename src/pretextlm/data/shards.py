"""Encoded shards of a corpus under preparation, reused when an interrupted preparation is resumed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.encode import TextEncoder
from pretextlm.data.file_formats import Document, parts_of
from pretextlm.data.sampling import content_key
from pretextlm.data.writer import Chunk
from pretextlm.files import replace_file


@dataclass
class Shard:
    """Documents that are encoded together. `tail` marks those in the last part of their source."""

    documents: list[Document] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    tail: list[bool] = field(default_factory=list)
    bytes: int = 0

    def add(self, document: Document, source: int, tail: bool = False) -> None:
        self.documents.append(document)
        self.sources.append(source)
        self.tail.append(tail)
        self.bytes += sum(len(text.encode()) for text in parts_of(document))


@dataclass(frozen=True)
class EncodedShard:
    """Content of a shard file.

    Attributes:
        chunk: the encoded documents.
        keys: (D,) content key of each document.
        tail: (D,) bool, True for documents in the last part of their source.
    """

    chunk: Chunk
    keys: NDArray[np.uint64]
    tail: NDArray[np.bool_]


def save_shard(path: Path, shard: Shard, encoder: TextEncoder) -> int:
    """Encode a shard into `path`, unless that file already holds the same texts.

    Returns:
        The bytes of text in the shard.
    """
    keys = np.array([content_key("\0".join(parts_of(document))) for document in shard.documents], np.uint64)
    digest = np.frombuffer(hashlib.sha256(keys.tobytes() + bytes(str(shard.sources), "ascii")).digest(), np.uint8)
    if path.is_file() and np.array_equal(_digest(path), digest):
        return shard.bytes
    chunk = encoder.encode(shard.documents, shard.sources)
    buffer = io.BytesIO()
    tail = np.array(shard.tail, np.bool_)
    np.savez(buffer, digest=digest, keys=keys, tail=tail, **{f.name: getattr(chunk, f.name) for f in fields(chunk)})
    replace_file(path, buffer.getbuffer())
    return shard.bytes


def _digest(path: Path) -> NDArray[np.uint8]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["digest"], np.uint8)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return np.zeros(0, np.uint8)


def load_keys(path: Path) -> NDArray[np.uint64]:
    """Returns only the content keys of a shard, (D,)."""
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays["keys"], np.uint64)


def load_shard(path: Path) -> EncodedShard:
    """Returns the content of a shard file."""
    with np.load(path, allow_pickle=False) as arrays:
        chunk = Chunk(**{f.name: arrays[f.name] for f in fields(Chunk)})
        return EncodedShard(chunk, arrays["keys"], arrays["tail"])
