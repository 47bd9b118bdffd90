"""manifest.json: the content of a store and its provenance. docs/architecture.md describes its layout on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from pretextlm.config import Config
from pretextlm.errors import UserError
from pretextlm.plain_files import read_json

FORMAT: Final = "pretextlm store"
VERSION = 1
SPLITS = ("train", "validation")
SPLIT_FILES = (
    "tokens.bin",
    "documents.bin",
    "document_bytes.bin",
    "document_sources.bin",
    "sentences.bin",
    "word_starts.bin",
)
MAX_MANIFEST_BYTES = 64 << 20


class FileRecord(Config):
    """Size and SHA-256 of one file of the store."""

    bytes: int
    sha256: str


class SplitCounts(Config):
    """Counts of one split. `max_id` is the largest token id, -1 if the split has no tokens."""

    tokens: int
    documents: int
    sentences: int
    words: int
    text_bytes: int
    max_id: int


class SourceRecord(Config):
    """One file, package or dataset that text was read from.

    Attributes:
        sha256: hash of the texts read from it, in order.
        documents: number of documents, without `empty` and `skipped` (malformed) ones.
        parts: 2 if the documents are source–target pairs, else 1.
        left_out: number of files of a directory that were not read, by suffix and reason.
        tokens, unknown: of its documents, and those that are the unknown token; 0 in stores made before they were
            counted.
    """

    name: str
    licence: str | None
    sha256: str
    bytes: int
    documents: int
    empty: int = 0
    skipped: int = 0
    parts: int = Field(1, ge=1, le=2)
    left_out: dict[str, int] = Field(default_factory=dict)
    tokens: int = 0
    unknown: int = 0


class TokenizerRecord(Config):
    """Provenance of the tokenizer: the kind that was trained or the place it was taken from, and its size."""

    kind: str
    vocab_size: int


class Manifest(Config):
    """All fields of manifest.json.

    Attributes:
        notes: what could not be done as asked, for people.
        sha256: of all other fields; "" in stores of earlier versions.
    """

    format: Literal["pretextlm store"]
    version: int
    pretextlm: str
    token_dtype: Literal["uint16", "uint32"]
    tokenizer: TokenizerRecord
    splits: dict[str, SplitCounts]
    sources: tuple[SourceRecord, ...]
    options: dict[str, Any]
    files: dict[str, FileRecord]
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def digest(self) -> str:
        """Returns the SHA-256 of all fields but `sha256`."""
        return hashlib.sha256(self.model_copy(update={"sha256": ""}).to_json().encode()).hexdigest()

    def signed(self) -> Manifest:
        """Returns the manifest with its own SHA-256, as it is written."""
        return self.model_copy(update={"sha256": self.digest()})

    def to_json(self) -> str:
        """Returns the text of the file. Equal manifests give equal bytes."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def read_manifest(store: Path) -> Manifest:
    """Returns the manifest of a store.

    Raises:
        UserError: manifest.json is missing, damaged or of another format version.
    """
    path = store / "manifest.json"
    try:
        values = read_json(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise _no_store(store) from None
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.", "Prepare the data again.") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of a store.", "Give a directory made by `pretextlm data prepare`.")
    if values.get("version") != VERSION:
        raise UserError(
            f"{store} has format version {values.get('version')!r}; this pretextlm reads version {VERSION}.",
            "Prepare the data again with this version.",
        )
    manifest = Manifest.parse(values, where=str(path))
    if manifest.sha256 and manifest.sha256 != manifest.digest():
        raise UserError(f"{path} is damaged: it is not what was written.", "Prepare the data again.")
    if set(manifest.splits) != set(SPLITS):
        raise UserError(f"{path} names the splits {sorted(manifest.splits)}.", f"A store has {', '.join(SPLITS)}.")
    return manifest


def _no_store(store: Path) -> UserError:
    previous = store.with_name(store.name + ".previous")
    if not store.exists() and previous.is_dir():
        return UserError(
            f"There is no store at {store}: its replacement was interrupted.",
            f"The previous store is intact: rename {previous} to {store}, or prepare again.",
        )
    if store.exists():
        return UserError(f"{store} is not a store: it has no manifest.json.", _MAKE)
    if store.is_absolute():
        return UserError(f"The store {store} does not exist.", f"If it was moved, name its place. {_MAKE}")
    looked = "A relative path is looked for in the working directory, then beside the recipe's file."
    return UserError(f"The store {store} does not exist: there is no {store.absolute()}.", f"{looked} {_MAKE}")


_MAKE = "Make a store with: pretextlm data prepare SOURCE --out DIR"
