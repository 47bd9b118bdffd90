"""Rows by document: no row mixes groups of documents or sources, and nothing is lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.unit.data.small_splits import split_of

from pretextlm.data.document_rows import by_document
from pretextlm.data.interleave import InterleavedReader
from pretextlm.data.mixture import Mixture
from pretextlm.data.packed_pairs import PackedPairs, PairFrame, RowCapacity
from pretextlm.data.row_shapes import Frame, Variant

PAD, BOS, EOS = 9000, 9001, 9002


def text_split(lengths: list[int], sources: list[int]):
    flat = np.arange(sum(lengths))
    split = split_of([part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])])
    return dataclasses.replace(split, document_sources=np.array(sources, np.uint32))


def pair_split(sizes: list[int]):
    """Pairs of three and two tokens, so many of each source; the tokens of pair n are 5n … 5n+4."""
    count = sum(sizes)
    split = text_split([5] * count, np.repeat(np.arange(len(sizes)), sizes).tolist())
    starts = (np.arange(count)[:, None] * 5 + [0, 3]).reshape(-1)
    return dataclasses.replace(split, sentences=starts.astype(np.uint64), parts=(2,) * len(sizes))


def read_all(reader):
    """The rows of one pass, one by one."""
    rows = []
    for number in range(reader.rows_per_pass):
        read = reader.read(np.array([number]), np.zeros(1, np.int64), 0, pad=PAD)
        rows.append((read.tokens.tolist(), read.segment_ids.tolist(), read.variant))
    return rows


def test_the_example_of_the_documentation():
    split = split_of([[7, 8, 9, 6, 5], [4], [3, 3]])
    reader = by_document(Mixture(split, Frame(), [Variant("main", 4, 4)]), 0)
    assert [tokens for tokens, _, _ in read_all(reader)] == [[7, 8, 9, 6], [5, PAD, PAD, PAD], [4, 3, 3, PAD]]
    assert reader.documents(np.arange(3), 0).tolist() == [0, 0, 1]


@pytest.mark.parametrize("frame", [Frame(), Frame(BOS, EOS), Frame(lead=BOS, end=EOS)], ids=str)
@pytest.mark.parametrize("shapes", [[(8, 0)], [(9, 1)], [(8, 0), (5, 0), (12, 0)]], ids=str)
def test_rows_hold_each_token_once_and_no_two_groups_or_sources(frame, shapes):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 40, 50).tolist()
    sources = [0] * 30 + [1] * 20
    split = text_split(lengths, sources)
    variants = [Variant(str(i), raw, raw, overlap=overlap) for i, (raw, overlap) in enumerate(shapes)]
    reader = by_document(Mixture(split, frame, variants), 0)
    owner = np.repeat(np.arange(50), lengths)
    seen = np.zeros(split.num_tokens, np.int64)
    owners: dict[int, set[int]] = {}
    kinds = []
    for number, (tokens, segments, variant) in enumerate(read_all(reader)):
        text = np.array([t for t, s in zip(tokens, segments, strict=True) if s >= 0 and t < PAD], np.int64)
        assert PAD not in [t for t, s in zip(tokens, segments, strict=True) if s >= 0]
        kept = text[: len(text) - variants[variant].overlap] if len(text) == variants[variant].raw else text
        np.add.at(seen, kept, 1)
        group = int(reader.documents(np.array([number]), 0)[0])
        owners.setdefault(group, set()).update(owner[text].tolist())
        assert {sources[d] for d in owners[group]} <= set(reader.sources(np.array([number]), 0).tolist())
        kinds.append(variant)
    assert (seen >= 1).all()
    assert seen.sum() <= split.num_tokens + len(kinds) * variants[0].overlap
    assert sum(map(len, owners.values())) == 50  # each document in one group
    long = [n for n, length in enumerate(lengths) if length > 12]
    assert all(owners[n] == {n} for n in long)
    counts = np.bincount(kinds, minlength=len(shapes))
    assert counts.max() - counts.min() <= 1  # variants keep their shares over all groups


def test_a_row_of_pairs_has_one_source_and_all_pairs_are_read():
    reader = PackedPairs(pair_split([13, 1, 6]), PairFrame(end=EOS), RowCapacity(total=14), PAD)
    mixed = [{t // 5 for t in tokens if t < PAD} for tokens, _, _ in read_all(reader)]
    assert any(min(row) < 13 < max(row) for row in mixed)
    apart = by_document(reader, 0)
    rows = [{t // 5 for t in tokens if t < PAD} for tokens, _, _ in read_all(apart)]
    assert sorted(pair for row in rows for pair in row) == list(range(20))
    sources = np.repeat([0, 1, 2], [13, 1, 6])
    assert [{*sources[list(row)].tolist()} for row in rows] == [
        {source} for source in apart.sources(np.arange(len(rows)), 0).tolist()
    ]
    assert [min(row) for row in rows] == apart.documents(np.arange(len(rows)), 0).tolist()


def test_interleaved_readers_take_rows_from_all_their_text():
    pairs = PackedPairs(pair_split([30, 30]), PairFrame(end=EOS), RowCapacity(total=7), PAD)
    text = Mixture(text_split([7] * 8, [2] * 8), Frame(), [Variant("main", 7, 7)])
    both = by_document(InterleavedReader([pairs, text], [0.5, 0.5], [1, 1]), 0)
    assert both.rows_per_pass == 17  # the text would begin again with the next row
    found = [row for row in read_all(both) if row[2] == 0]
    assert len(found) == len({tuple(tokens) for tokens, _, _ in found}) == 9
    numbers = np.arange(17)
    assert set(both.sources(numbers, 0).tolist()) == {0, 1, 2}
    assert len(set(both.documents(numbers, 0).tolist())) == 17
