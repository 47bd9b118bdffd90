"""Texts to be shown, as splits in memory: in pieces of the example tokenizer, or in tokens of a store's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.preview.example_tokenizer import Pieces

Parts = list[str]
"""A document as its texts: one, or the two of a pair."""


@dataclass(frozen=True)
class EncodedDocument:
    """A document in tokens.

    Attributes:
        ids: of its tokens.
        word_starts: for each token, whether a word begins there.
        sentences: places of the tokens with which sentences begin; of a pair, those of its two parts.
        parts: 1, or 2 for a pair.
    """

    ids: list[int]
    word_starts: list[bool]
    sentences: list[int]
    parts: int

    def first(self, count: int) -> EncodedDocument:
        """Returns its first `count` tokens."""
        kept = [place for place in self.sentences if place < count]
        return EncodedDocument(self.ids[:count], self.word_starts[:count], kept, self.parts)


@dataclass(frozen=True)
class EncodedText:
    """Documents in tokens of one vocabulary.

    Attributes:
        documents: in their order.
        vocabulary: of the tokenizer.
        names: text of a token id.
        tokenizer: where the tokens come from, in words.
    """

    documents: list[EncodedDocument]
    vocabulary: Vocabulary
    names: dict[int, str]
    tokenizer: str

    @classmethod
    def of(cls, documents: Sequence[Parts], store: Path | None) -> EncodedText:
        """Returns the documents in tokens of the store's tokenizer, or of one made from them."""
        return _by_pieces(documents) if store is None else _by_store(documents, store)


def split_of(documents: Sequence[EncodedDocument]) -> Split:
    """Returns the documents as a split in memory."""
    lengths = np.array([len(document.ids) for document in documents])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    begins = [start + place for start, one in zip(offsets.tolist(), documents, strict=False) for place in one.sentences]
    flags = np.array([flag for document in documents for flag in document.word_starts], bool)
    return Split(
        tokens=np.array([token for document in documents for token in document.ids], np.int32),
        documents=offsets.astype(np.uint64),
        document_bytes=lengths.astype(np.uint32),
        document_sources=np.array([document.parts - 1 for document in documents], np.uint32),
        sentences=np.array(begins, np.uint64),
        word_bits=np.packbits(flags, bitorder="little"),
        parts=(1, 2),
    )


def _documents(
    documents: Sequence[Parts],
    ids: Sequence[list[int]],
    word_starts: Sequence[list[bool]],
    sentences: Sequence[list[int]],
) -> list[EncodedDocument]:
    """Returns documents from the tokens of their parts, which follow each other in `ids`."""
    found, at = [], 0
    for parts in documents:
        of = slice(at, at + len(parts))
        begins = sentences[at] if len(parts) == 1 else [0, len(ids[at])]
        tokens, starts = list(chain.from_iterable(ids[of])), list(chain.from_iterable(word_starts[of]))
        found.append(EncodedDocument(tokens, starts, begins, len(parts)))
        at += len(parts)
    return found


def _by_pieces(documents: Sequence[Parts]) -> EncodedText:
    """Returns documents in tokens of a tokenizer made from them."""
    pieces = Pieces.of([part for parts in documents for part in parts])
    note = "made from this text alone: words, long ones cut into pieces (give --store for a real one)"
    found = _documents(documents, pieces.documents, pieces.word_starts, pieces.sentences)
    return EncodedText(found, pieces.vocabulary, {i: _readable(t) for i, t in enumerate(pieces.tokens)}, note)


def _by_store(documents: Sequence[Parts], path: Path) -> EncodedText:
    """Returns documents in tokens of a store's tokenizer."""
    from pretextlm.data.encode import TextEncoder
    from pretextlm.data.store import Store

    store = Store.open(path)
    chunk = TextEncoder(store.tokenizer).encode([part for parts in documents for part in parts])
    ends = np.cumsum(chunk.lengths)
    pieces = [part.tolist() for part in np.split(chunk.tokens, ends[:-1])]
    starts = [part.tolist() for part in np.split(chunk.word_starts, ends[:-1])]
    begins = np.split(chunk.sentences, np.searchsorted(chunk.sentences, ends[:-1]))
    sentences = [(part - first).tolist() for part, first in zip(begins, ends - chunk.lengths, strict=True)]
    vocabulary = store.vocabulary
    texts = store.tokenizer.decode_batch([[i] for i in range(vocabulary.size)], skip_special_tokens=False)
    names = {i: _readable(text) for i, text in enumerate(texts)}
    return EncodedText(
        _documents(documents, pieces, starts, sentences), vocabulary, names, f"of the store {store.path}"
    )


def _readable(text: str) -> str:
    """Returns a token with visible white space; a part of a character, which cannot be printed, as a lozenge."""
    return text.replace(" ", "▁").replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "◊") or "∅"
