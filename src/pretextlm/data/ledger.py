"""The documents of one source as they are prepared: counted, hashed, and parted at the validation tail."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator

from pretextlm.data.file_formats import Document, ReadOptions, parts_of
from pretextlm.data.manifest import SourceRecord
from pretextlm.data.sources import Source


class Ledger:
    """Counts and hashes the documents of one source."""

    def __init__(self, source: Source, licence: str | None) -> None:
        self.source, self.licence = source, licence or source.licence
        self.bytes = self.count = self.empty = self.skipped = 0
        self._hash = hashlib.sha256()

    def documents(self, options: ReadOptions, tail: float | None) -> Iterator[tuple[Document, bool]]:
        """Yields each document that is not blank, and whether it lies in the last `tail` of the source's characters."""
        reader = self.source.reader(options)
        before_tail = sys.maxsize
        if tail is not None:
            count = sum(_characters(document) for document in self.source.documents(self.source.reader(options)))
            before_tail = int(count * (1 - tail))
        for document, in_tail in _part(self.source.documents(reader), before_tail):
            texts = parts_of(document)
            if not any(text.strip() for text in texts):
                self.empty += 1
                continue
            for data in (text.encode() for text in texts):
                self._hash.update(len(data).to_bytes(8, "little") + data)
                self.bytes += len(data)
            self.count += 1
            yield document, in_tail
        self.skipped = reader.skipped

    def record(self) -> SourceRecord:
        return SourceRecord(
            name=self.source.name,
            licence=self.licence,
            sha256=self._hash.hexdigest(),
            bytes=self.bytes,
            documents=self.count,
            empty=self.empty,
            skipped=self.skipped,
            parts=self.source.parts,
            left_out=dict(self.source.left_out),
        )


def _characters(document: Document) -> int:
    return sum(len(text) for text in parts_of(document))


def _part(documents: Iterator[Document], first: int) -> Iterator[tuple[Document, bool]]:
    """Yields documents and whether they lie after the first `first` characters; a text is cut at that place."""
    place = 0
    for document in documents:
        before, place = first - place, place + _characters(document)
        if isinstance(document, str) and 0 < before < len(document):
            yield document[:before], False
            yield document[before:], True
        else:
            yield document, before <= 0
