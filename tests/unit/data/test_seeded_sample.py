"""Samples of documents and rows: every source in proportion, every document equally likely, whole documents only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.unit.data.small_splits import split_of

from pretextlm.data.document_rows import by_document
from pretextlm.data.mixture import Mixture
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.seeded_sample import allotted, sample_documents, sampled, sampled_rows


def split_with(sizes: list[int], length: int = 10):
    """A split of sources with so many documents each; token n of the split is n, and lengths vary around `length`."""
    lengths = 1 + np.random.default_rng(0).integers(0, 2 * length, sum(sizes))
    flat = np.arange(int(lengths.sum()))
    split = split_of([part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])])
    return dataclasses.replace(split, document_sources=np.repeat(np.arange(len(sizes)), sizes).astype(np.uint32))


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [([50, 30, 1], 8, [4, 3, 1]), ([3, 4, 5], 7, [2, 2, 3]), ([1000, 5, 5, 5], 5, [2, 1, 1, 1]), ([9], 4, [4])],
)
def test_sources_share_in_proportion_and_each_has_one(sizes, count, expected):
    assert allotted(np.array(sizes), count).tolist() == expected


def test_with_more_sources_than_places_some_have_none():
    assert sorted(allotted(np.array([5] * 10), 4).tolist()) == [0] * 6 + [1] * 4


def test_every_document_of_a_source_is_as_likely_as_another():
    sources = np.repeat([0, 1], [5, 7])
    drawn = np.zeros(12)
    for seed in range(3000):
        drawn[sampled(sources, 4, seed)] += 1 / 3000
    assert drawn == pytest.approx(np.repeat([2 / 5, 2 / 7], [5, 7]), abs=0.03)


def test_documents_are_whole_from_every_source_and_all_parts_of_it():
    split = split_with([60, 30, 1])
    found = sample_documents(split, 12, 0, seed=3)
    assert np.bincount(found.document_sources).tolist() == [7, 4, 1]
    originals = [split.document(i).tolist() for i in range(split.num_documents)]
    chosen = [originals.index(found.document(i).tolist()) for i in range(12)]
    assert chosen == sorted(chosen)
    assert max(chosen[:7]) > 30
    assert found.document_bytes.tolist() == [split.document_bytes[i] for i in chosen]
    assert found.sentences.tolist() == found.documents[:-1].tolist()
    assert found.word_starts(np.arange(found.num_tokens)).all()
    assert sample_documents(split, 12, 0, seed=4).tokens.tolist() != found.tokens.tolist()


def test_a_limit_on_tokens_is_met_on_average_and_none_means_all():
    split = split_with([60, 30, 1])
    sizes = [sample_documents(split, 0, 200, seed).num_tokens for seed in range(100)]
    assert np.mean(sizes) == pytest.approx(200, rel=0.1)
    assert sample_documents(split, 0, 0, 1).num_tokens == split.num_tokens
    assert sample_documents(split, 0, 1, 1).num_documents == 3  # one of each source


def test_documents_without_text_are_never_chosen():
    found = sample_documents(split_of([[1, 2], [], [3], []]), 0, 0, 1)
    assert [found.document(i).tolist() for i in range(found.num_documents)] == [[1, 2], [3]]


def test_rows_are_a_sample_of_the_whole_pass_with_each_source():
    split = split_with([200, 100, 2])
    reader = by_document(Mixture(split, Frame(), [Variant("main", 16, 16)]), 0)
    numbers = sampled_rows(reader, 24, seed=5)
    assert len(set(numbers.tolist())) == 24
    assert set(reader.sources(numbers, 0).tolist()) == {0, 1, 2}
    assert numbers.max() > 0.9 * reader.rows_per_pass
    assert sampled_rows(reader, 24, seed=5).tolist() == numbers.tolist()
    assert sampled_rows(reader, 10**6, seed=5).tolist() == list(range(reader.rows_per_pass))
