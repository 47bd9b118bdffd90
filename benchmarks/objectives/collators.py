"""Peers that can be installed: Transformers' collators, with each input they take.

From the usual (lists of ids, which are padded and turned into arrays) to the kindest (one ready matrix with the special
tokens already marked, which leaves them the draw alone).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from benchmarks.objectives.timing import Peer, Sample, padded
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForPermutationLanguageModeling,
    DataCollatorForSeq2Seq,
)

from pretextlm.batch import IGNORE

WHOLE_WORD_ROWS = 32
"""Rows at once for whole words: the collator makes a (rows, T, T) array, and is fastest where that fits the cache."""
PERMUTATION_ROWS = 32
"""Rows at once: two (rows, T, T) arrays of floats are a part of its batch."""
PAIRS, PAIRS_AT_ONCE = 1024, 64
"""Pairs in all, and in a batch that is padded to its longest."""


def causal(sample: Sample) -> list[Peer]:
    """A copy of the rows as labels, which the model shifts; and the loop of plain training scripts."""
    count = len(sample.rows)
    matrix = sample.matrix(count).astype(np.int64)
    lists, tensors = matrix.tolist(), [torch.from_numpy(row) for row in matrix]
    collator = DataCollatorForLanguageModeling(sample.text.peer_tokenizer, mlm=False)

    def loop() -> tuple[Any, Any]:
        return np.stack([np.array(r[:-1]) for r in lists]), np.stack([np.array(r[1:]) for r in lists])

    return [
        Peer("Transformers, tensors", lambda: collator(tensors), sample.tokens),
        Peer("loop over rows, lists", loop, sample.tokens),
    ]


def masked(sample: Sample) -> list[Peer]:
    """Transformers' collator with lists, with tensors, and its masking alone on ready matrices."""
    matrix = sample.matrix(len(sample.rows)).astype(np.int64)
    special = sample.vocabulary.is_special[matrix]
    lists, arrays = matrix.tolist(), list(matrix)
    tensors = [torch.from_numpy(row) for row in matrix]
    tensor, special_tensor = torch.from_numpy(matrix), torch.from_numpy(special)
    default = DataCollatorForLanguageModeling(sample.text.peer_tokenizer)
    as_numpy = DataCollatorForLanguageModeling(sample.text.peer_tokenizer, return_tensors="np", seed=0)
    works = {
        "Transformers, lists": lambda: default(lists),
        "Transformers, tensors": lambda: default(tensors),
        "Transformers, numpy mode": lambda: as_numpy(arrays),
        "its masking alone, tensors": lambda: default.torch_mask_tokens(tensor.clone(), special_tensor),
        "its masking alone, numpy": lambda: as_numpy.numpy_mask_tokens(matrix.copy(), special),
    }
    return [Peer(label, work, sample.tokens) for label, work in works.items()]


def whole_words(sample: Sample) -> list[Peer]:
    """The same collator's whole words, from ready matrices with the offsets that tell it where words begin."""
    rows = sample.rows
    matrix = torch.from_numpy(rows.matrix(rows.tokens).astype(np.int64))
    special = torch.from_numpy(sample.vocabulary.is_special[matrix.numpy()])
    begin = np.cumsum(rows.matrix(rows.word_starts), axis=1) + np.arange(rows.width)  # a gap before a word, none inside
    offsets = torch.from_numpy(np.stack([begin, begin + 1], axis=-1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collator = DataCollatorForLanguageModeling(sample.text.peer_tokenizer, whole_word_mask=True)

    def work() -> None:
        for i in range(0, len(rows), WHOLE_WORD_ROWS):
            part = slice(i, i + WHOLE_WORD_ROWS)
            collator.torch_mask_tokens(matrix[part].clone(), special[part], offsets[part])

    return [Peer("Transformers, its masking alone", work, sample.tokens)]


def permutation(sample: Sample) -> list[Peer]:
    """Transformers' collator, with tensors and with arrays; it wants rows of even length."""
    count = min(2 * PERMUTATION_ROWS, len(sample.rows))
    matrix = sample.matrix(count)[:, : sample.rows.width // 2 * 2].astype(np.int64)
    parts = [matrix[i : i + PERMUTATION_ROWS] for i in range(0, count, PERMUTATION_ROWS)]
    tensors = [[torch.from_numpy(row) for row in part] for part in parts]
    arrays = [list(part) for part in parts]
    default = DataCollatorForPermutationLanguageModeling(sample.text.peer_tokenizer)
    as_numpy = DataCollatorForPermutationLanguageModeling(sample.text.peer_tokenizer, return_tensors="np")
    tokens = sample.tokens_in(count)
    return [
        Peer("Transformers, tensors", lambda: [default(part) for part in tensors], tokens),
        Peer("Transformers, numpy mode", lambda: [as_numpy(part) for part in arrays], tokens),
    ]


def pairs_to_masked(sample: Sample) -> list[Peer]:
    """A pair to a row, padded: lists joined with [CLS] and [SEP], then padded and masked by Transformers' collator."""
    pairs = pairs_of(sample, PAIRS)
    vocab, room = sample.vocabulary, sample.length - 3
    collator = DataCollatorForLanguageModeling(sample.text.peer_tokenizer)

    def rows() -> Iterator[tuple[list[int], list[int]]]:
        for one, other in pairs:
            a, b = one[: max(room - len(other), room // 2)], other[: max(room - len(one), room // 2)]
            yield [vocab.cls, *a, vocab.sep, *b, vocab.sep], [0] * (len(a) + 2) + [1] * (len(b) + 1)

    def padded_by_it() -> None:
        features = []
        for ids, types in rows():
            special = special_mask(ids, types)
            features.append({"input_ids": ids, "token_type_ids": types, "special_tokens_mask": special})
        for i in range(0, len(features), PAIRS_AT_ONCE):
            collator(features[i : i + PAIRS_AT_ONCE])

    def masked_by_it() -> None:
        found = list(rows())
        for i in range(0, len(found), PAIRS_AT_ONCE):
            mask_rows(collator, found[i : i + PAIRS_AT_ONCE], vocab.pad)

    tokens = sum(len(ids) - 3 for ids, _ in rows())
    return [
        Peer("Transformers, a padded row a pair", padded_by_it, tokens),
        Peer("its masking alone, padded by numpy", masked_by_it, tokens),
    ]


def special_mask(ids: list[int], types: list[int]) -> list[int]:
    """Of [CLS] A [SEP] B [SEP]."""
    mask = [0] * len(ids)
    mask[0] = mask[-1] = mask[types.index(1) - 1] = 1
    return mask


def mask_rows(collator: DataCollatorForLanguageModeling, rows: list[tuple[list[int], list[int]]], pad: int) -> Any:
    """Ids, labels and types of rows (ids, types), padded here and masked by the collator."""
    ids, types = padded([row[0] for row in rows], pad), padded([row[1] for row in rows], 0)
    special = padded([special_mask(*row) for row in rows], 1)
    return *collator.torch_mask_tokens(torch.from_numpy(ids), torch.from_numpy(special)), types


def pairs_to_text(sample: Sample) -> list[Peer]:
    """A pair to a row, padded, by Transformers' collator for sequence-to-sequence models, and by numpy."""
    pairs = pairs_of(sample, PAIRS)
    vocab, room = sample.vocabulary, sample.length - 1
    collator = DataCollatorForSeq2Seq(sample.text.peer_tokenizer)

    def by_it() -> None:
        for i in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[i : i + PAIRS_AT_ONCE]
            collator([{"input_ids": [*a[:room], vocab.eos], "labels": [*b[:room], vocab.eos]} for a, b in some])

    def by_numpy() -> None:
        for i in range(0, len(pairs), PAIRS_AT_ONCE):
            some = pairs[i : i + PAIRS_AT_ONCE]
            padded([[*a[:room], vocab.eos] for a, _ in some], vocab.pad)
            target = padded([[*b[:room], vocab.eos] for _, b in some], IGNORE)
            np.concatenate([np.full((len(target), 1), vocab.pad), target[:, :-1]], axis=1)

    tokens = sum(len(a) + len(b) for a, b in pairs)
    return [
        Peer("Transformers, a padded row a pair", by_it, tokens),
        Peer("a padded row a pair, numpy", by_numpy, tokens),
    ]


def pairs_of(sample: Sample, count: int) -> list[tuple[list[int], list[int]]]:
    """Pairs in random order, each two lists."""
    split = sample.split
    tokens, starts = split.tokens, split.sentences.astype(np.int64)
    chosen = random.Random(0).sample(range(split.num_documents - 1), min(count, split.num_documents - 1))
    return [
        (tokens[starts[2 * i] : starts[2 * i + 1]].tolist(), tokens[starts[2 * i + 1] : starts[2 * i + 2]].tolist())
        for i in chosen
    ]
