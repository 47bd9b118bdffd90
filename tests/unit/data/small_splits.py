"""A split made from plain lists, for tests that need exact tokens rather than text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretextlm.data.store import Split


@dataclass(frozen=True)
class AFrame:
    begin: int | None = None
    end: int | None = None
    lead: int | None = None
    sentences: bool = False


@dataclass(frozen=True)
class AVariant:
    raw: int
    overlap: int = 0
    name: str = "main"
    length: int = 0
    decoder_length: int = 0
    weight: float = 1.0
    restart: bool = False


def split_of(documents: list[list[int]], word_starts: list[bool] | None = None) -> Split:
    """A split with these documents; by default every token begins a word."""
    flat = np.array([token for document in documents for token in document], np.uint16)
    lengths = [len(document) for document in documents]
    flags = np.ones(len(flat), bool) if word_starts is None else np.array(word_starts, bool)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
    return Split(
        tokens=flat,
        documents=offsets,
        document_bytes=np.array(lengths, np.uint32),
        document_sources=np.zeros(len(documents), np.uint32),
        sentences=offsets[:-1],
        word_bits=np.packbits(flags, bitorder="little"),
    )
