"""Peers that read documents: sentence pairs as in BERT's code, and filling in the middle of each document's text.

Written for this benchmark.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from benchmarks.objectives.collators import PAIRS_AT_ONCE, mask_rows
from benchmarks.objectives.masking_loops import ROWS, instead, take_words, words_of
from benchmarks.objectives.timing import Peer, Sample, padded
from transformers import DataCollatorForLanguageModeling

from pretextlm.batch import IGNORE
from pretextlm.data.special_tokens import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

os.environ["TOKENIZERS_PARALLELISM"] = "false"

Document = list[list[int]]
"""Sentences of tokens."""
Pair = tuple[list[int], list[int], int]
"""The two parts and the label."""


def pairs_of(documents: list[Document], room: int, kinds: tuple[str, ...], rng: random.Random) -> Iterator[Pair]:
    """Pairs of runs of sentences of all documents, one after another.

    Args:
        kinds: how B may relate to A, each as likely: "next", "previous" or "random".
    """
    for number, document in enumerate(documents):
        target = rng.randint(2, room) if rng.random() < 0.1 else room
        chunk: Document = []
        length = at = 0
        while at < len(document):
            chunk.append(document[at])
            length += len(document[at])
            at += 1
            if at < len(document) and length < target:
                continue
            cut = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a = [token for sentence in chunk[:cut] for token in sentence]
            kind = kinds[int(rng.random() * len(kinds))]
            if "random" in kinds and len(chunk) == 1:
                kind = "random"
            if kind == "random":
                other = number
                while other == number:
                    other = rng.randrange(len(documents))
                b: list[int] = []
                for sentence in documents[other][rng.randrange(len(documents[other])) :]:
                    b += sentence
                    if len(b) >= target - len(a):
                        break
                at -= len(chunk) - cut
            else:
                b = [token for sentence in chunk[cut:] for token in sentence]
            if a and b:
                if kind == "previous":
                    a, b = b, a
                yield *_fitted(a, b, room, rng), kinds.index(kind)
            chunk, length = [], 0


def _fitted(a: list[int], b: list[int], room: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """The longer part loses tokens, each at its front or back."""
    bounds = [[0, len(a)], [0, len(b)]]
    sizes = [len(a), len(b)]
    while sum(sizes) > room:
        longer = int(sizes[1] >= sizes[0])
        sizes[longer] -= 1
        if rng.random() < 0.5:
            bounds[longer][0] += 1
        else:
            bounds[longer][1] -= 1
    return a[bounds[0][0] : bounds[0][1]], b[bounds[1][0] : bounds[1][1]]


def sentence_pairs(sample: Sample) -> list[Peer]:
    """BERT's builder with its masks, and the same with Transformers' collator for the masks."""
    objective: Any = sample.objective
    kinds = tuple(kind.relation for kind in objective.kinds)
    vocab, room = sample.vocabulary, sample.length - 3
    documents = _sentences(sample, ROWS * sample.length // 300)
    collator = DataCollatorForLanguageModeling(sample.text.peer_tokenizer)

    def rows() -> Iterator[tuple[list[int], list[int], int]]:
        """Ids, types and labels of whole rows."""
        for a, b, label in pairs_of(documents, room, kinds, random.Random(0)):
            yield [vocab.cls, *a, vocab.sep, *b, vocab.sep], [0] * (len(a) + 2) + [1] * (len(b) + 1), label

    def plain() -> Any:
        rng = random.Random(1)
        special = vocab.special - {vocab.unk}
        inputs, labels, types, relations = [], [], [], []
        for ids, parts, label in rows():
            words = words_of(ids, [True] * len(ids), special)
            row, targets = ids[:], [IGNORE] * len(ids)
            for places in take_words(words, max(1, round(0.15 * len(words))), rng):
                for place in places:
                    targets[place] = ids[place]
                    row[place] = instead(ids[place], vocab, rng)
            inputs.append(row)
            labels.append(targets)
            types.append(parts)
            relations.append(label)
        return padded(inputs, vocab.pad), padded(labels, IGNORE), padded(types, 0), np.array(relations)

    def with_collator() -> Any:
        found = list(rows())
        for i in range(0, len(found), PAIRS_AT_ONCE):
            mask_rows(collator, [(ids, types) for ids, types, _ in found[i : i + PAIRS_AT_ONCE]], vocab.pad)
        return np.array([label for _, _, label in found])

    tokens = sum(len(ids) - 3 for ids, _, _ in rows())
    return [
        Peer("loop as in BERT's code", plain, tokens),
        Peer("the same, Transformers' masks", with_collator, tokens),
    ]


def _sentences(sample: Sample, count: int) -> list[Document]:
    split = sample.split
    documents, starts = split.documents.astype(np.int64), split.sentences.astype(np.int64)
    found = []
    for i in range(min(count, split.num_documents)):
        begin, end = documents[i], documents[i + 1]
        inside = starts[np.searchsorted(starts, begin, side="right") : np.searchsorted(starts, end)]
        found.append([part.tolist() for part in np.split(split.tokens[begin:end], inside - begin)])
    return found


def fill_in_middle(sample: Sample) -> list[Peer]:
    """Each document decoded, cut between characters, and its three parts encoded; one by one, and many at once."""
    vocab, tokenizer = sample.vocabulary, sample.tokenizer
    count = min(ROWS, len(sample.rows))
    prefix, suffix, middle = ([vocab.id_of(name)] for name in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE))
    width = sample.rows.width
    begin, end = {vocab.bos}, {vocab.eos}
    segments = sample.rows.matrix(sample.rows.segment_ids)[:count]
    rows = [
        [part.tolist() for part in np.split(ids, np.flatnonzero(np.diff(parts)) + 1)]
        for ids, parts in zip(sample.matrix(count), segments, strict=True)
    ]

    def parts_of(ids: list[int]) -> tuple[list[int], list[int], list[int]]:
        """Frame, text, frame."""
        first, last = int(ids[0] in begin), len(ids) - int(ids[-1] in end)
        return ids[:first], ids[first:last], ids[last:]

    def cut(text: str, rng: random.Random) -> tuple[str, str, str]:
        low, high = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        return text[:low], text[low:high], text[high:]

    def joined(p: list[int], m: list[int], s: list[int], rng: random.Random) -> list[int]:
        if rng.random() < 0.5:
            return prefix + p + suffix + s + middle + m
        return prefix + suffix + s + middle + p + m

    def finished(flat: list[list[int]]) -> Any:
        whole = padded([row[:width] for row in flat], vocab.pad)
        return whole[:, :-1], whole[:, 1:]

    def one_by_one() -> Any:
        rng = random.Random(0)
        out = []
        for row in rows:
            new: list[int] = []
            for ids in row:
                head, text, tail = parts_of(ids)
                if text and rng.random() < 0.5:
                    parts = cut(tokenizer.decode(text), rng)
                    p, m, s = (tokenizer.encode(part, add_special_tokens=False).ids for part in parts)
                    new += head + joined(p, m, s, rng) + tail
                else:
                    new += ids
            out.append(new)
        return finished(out)

    def at_once() -> Any:
        rng = random.Random(0)
        chosen = [(r, d) for r, row in enumerate(rows) for d, ids in enumerate(row) if rng.random() < 0.5]
        framed = [parts_of(rows[r][d]) for r, d in chosen]
        texts = tokenizer.decode_batch([text for _, text, _ in framed])
        pieces = [part for text in texts for part in cut(text, rng)]
        codes = [found.ids for found in tokenizer.encode_batch_fast(pieces, add_special_tokens=False)]
        out = [list(row) for row in rows]
        for i, ((r, d), (head, _, tail)) in enumerate(zip(chosen, framed, strict=True)):
            out[r][d] = head + joined(codes[3 * i], codes[3 * i + 1], codes[3 * i + 2], rng) + tail
        return finished([[token for ids in row for token in ids] for row in out])

    tokens = sample.tokens_in(count)
    return [
        Peer("decoded and encoded, one by one", one_by_one, tokens),
        Peer("decoded and encoded, many at once", at_once, tokens),
    ]
