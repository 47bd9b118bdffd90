"""Encoding documents in batches: text → tokens, word starts and sentence starts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.file_formats import Document, parts_of
from pretextlm.data.sentences import sentence_starts
from pretextlm.data.tokenizer import CONTINUES, tokenizer_errors, vocabulary_of
from pretextlm.data.word_boundaries import code_points, first_visible, word_numbers
from pretextlm.data.writer import Chunk
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

I64 = NDArray[np.int64]

_PIECE = 1 << 17
"""Characters per call of the tokenizer: longer texts are cut into pieces of about this size."""

_CUT = re.compile(r"(?<=\S) (?=\S)")


class TextEncoder:
    """Encodes documents with one tokenizer. The only special id it can yield is that of the unknown token.

    Args:
        tokenizer: from data/tokenizer.py.

    Attributes:
        vocab_size: number of token ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = vocabulary_of(tokenizer)
        self._is_special, self._unknown = vocabulary.is_special, vocabulary.unk
        self.vocab_size = len(self._is_special)
        self._byte_lengths = _byte_lengths(tokenizer)

    def encode(self, documents: Sequence[Document], sources: Sequence[int] | None = None) -> Chunk:
        """Encode documents. The two texts of a pair are encoded separately, and count as its two sentences.

        Args:
            documents: (D,) texts or pairs of texts; an empty text has no tokens.
            sources: (D,) row of each document's source in the table of sources; 0 if not given.

        Returns:
            The encoded documents in order.

        Raises:
            UserError: the tokenizer produced a special token from text.
        """
        parts = [parts_of(document) for document in documents]
        chunk = self._encode_texts(list(chain.from_iterable(parts)))
        if len(chunk.lengths) > len(documents):
            chunk = _join(chunk, np.array([len(part) for part in parts], np.int64))
        rows = np.array(sources if sources is not None else [0] * len(documents), np.uint32)
        return replace(chunk, document_sources=rows)

    def count(self, chunk: Chunk, sources: int) -> I64:
        """Returns (2, sources) the tokens of each source in a chunk, and how many of them are the unknown token."""
        rows = np.repeat(chunk.document_sources, chunk.lengths)
        unknown = rows[chunk.tokens == self._unknown]
        return np.stack([np.bincount(some, minlength=sources) for some in (rows, unknown)])

    def _encode_texts(self, texts: list[str]) -> Chunk:
        pieces = [_pieces(text) for text in texts]
        flat = list(chain.from_iterable(pieces))
        encodings = self._encode(flat)
        piece_tokens = np.array([len(encoding) for encoding in encodings], np.int64)
        tokens = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.uint32, int(piece_tokens.sum()))
        if self._is_special[tokens].any():
            name = self.tokenizer.id_to_token(int(tokens[self._is_special[tokens]][0]))
            raise UserError(f"The tokenizer made the special token {name!r} from text.", "Use another tokenizer.")
        piece_starts = _offsets([len(piece) for piece in flat])
        joined = "".join(flat)
        if self._byte_lengths is None:
            begin, end = _by_offsets(encodings, piece_tokens, piece_starts)
        else:
            begin, end = _by_bytes(joined.encode(), self._byte_lengths[tokens])
        first_piece = _offsets([len(p) for p in pieces])
        document_tokens = _offsets(piece_tokens)[first_piece]
        document_characters = piece_starts[first_piece]
        codes = code_points(joined)
        sentences = _sentence_characters(texts, document_characters)
        numbers = word_numbers(codes, document_characters, sentences)
        words = numbers[first_visible(codes, begin, end)]
        nonempty = document_tokens[:-1][np.diff(document_tokens) > 0]
        word_starts = np.diff(words, prepend=0) > 0
        word_starts[nonempty] = True
        sentence_tokens = np.searchsorted(words, numbers[sentences])
        return Chunk(
            tokens=tokens,
            word_starts=word_starts,
            lengths=np.diff(document_tokens),
            document_bytes=np.array([len(text.encode()) for text in texts], np.uint32),
            document_sources=np.zeros(len(texts), np.uint32),
            sentences=np.unique(np.concatenate([nonempty, sentence_tokens[sentence_tokens < len(tokens)]])),
        )

    def _encode(self, texts: list[str]) -> list[Encoding]:
        encode = self.tokenizer.encode_batch if self._byte_lengths is None else self.tokenizer.encode_batch_fast
        with tokenizer_errors():
            return encode(texts, add_special_tokens=False)


def _join(chunk: Chunk, parts: I64) -> Chunk:
    """Merge encoded texts into documents of parts[d] texts each (1 or 2).

    Returns:
        A chunk of documents; of a pair's sentences, only the first of each text is kept.
    """
    first = _offsets(parts)[:-1]
    starts = _offsets(chunk.lengths)
    text = np.searchsorted(starts, chunk.sentences, side="right") - 1
    keep = (np.repeat(parts, parts) == 1)[text] | (starts[text] == chunk.sentences)
    return replace(
        chunk,
        lengths=np.add.reduceat(chunk.lengths, first),
        document_bytes=np.add.reduceat(chunk.document_bytes, first),
        sentences=chunk.sentences[keep],
    )


def _offsets(lengths: Sequence[int] | I64) -> I64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])


def _pieces(text: str) -> list[str]:
    """Cut a long text before single spaces, where no token can cross; at any character if it has no spaces."""
    if len(text) <= _PIECE:
        return [text]
    pieces, start = [], 0
    while len(text) - start > _PIECE:
        cut = _CUT.search(text, start + _PIECE // 2, start + _PIECE)
        stop = cut.start() if cut else start + _PIECE
        pieces.append(text[start:stop])
        start = stop
    return [*pieces, text[start:]]


def _byte_lengths(tokenizer: Tokenizer) -> I64 | None:
    """Returns (V,) the UTF-8 bytes of text of each token, or None if the tokenizer does not preserve every byte."""
    values = json.loads(tokenizer.to_str())
    steps = values["pre_tokenizer"] or {}
    last = (steps.get("pretokenizers") or [steps])[-1]
    exact = last.get("type") == "ByteLevel" and not last.get("add_prefix_space") and values["normalizer"] is None
    others = [step.get("type") for step in steps.get("pretokenizers", [])[:-1]]
    behaviours = [step.get("behavior") for step in steps.get("pretokenizers", [])[:-1]]
    added = any(not token["special"] for token in values["added_tokens"])
    if not exact or added or set(others) - {"Split"} or set(behaviours) - {"Isolated"}:
        return None
    lengths = np.zeros(vocabulary_of(tokenizer).size, np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = len(token.removeprefix(CONTINUES))
    return lengths


def _by_bytes(text: bytes, lengths: I64) -> tuple[I64, I64]:
    """Returns the character range [begin, end) of each token, computed from the tokens' byte lengths."""
    ends = np.cumsum(lengths)
    if len(text) != (int(ends[-1]) if len(ends) else 0):
        raise UserError("The tokenizer loses or adds bytes of a text.", "Use another tokenizer.")
    leads = (np.frombuffer(text, np.uint8) & 0xC0) != 0x80
    character = np.cumsum(leads)
    return character[ends - lengths] - 1, character[ends - 1]


def _by_offsets(encodings: list[Encoding], counts: I64, starts: I64) -> tuple[I64, I64]:
    """Returns the same as `_by_bytes` from the tokenizer's offsets, which count the characters of each piece."""
    spans = chain.from_iterable(chain.from_iterable(encoding.offsets) for encoding in encodings)
    offsets = np.fromiter(spans, np.int64, 2 * int(counts.sum())).reshape(-1, 2)
    offsets += np.repeat(starts[:-1], counts)[:, None]
    return np.minimum(offsets[:, 0], max(int(starts[-1]) - 1, 0)), offsets[:, 1]


def _sentence_characters(texts: Sequence[str], starts: I64) -> I64:
    """Returns the offsets in the concatenated text at which sentences begin."""
    found = [sentence_starts(text) + start for text, start in zip(texts, starts[:-1].tolist(), strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *found])
