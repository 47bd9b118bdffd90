"""The stream reader against an obvious reference, and the promise that nothing is lost or read twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.data.small_splits import AFrame, AVariant, split_of

from pretextlm.data.rows import StreamReader
from pretextlm.errors import UserError

BEGIN, END, LEAD, PAD = 60001, 60002, 60003, 60004


def framed(documents, flags, frame):
    """The stream as a list of (token, document, word start)."""
    stream, place = [], 0
    for number, document in enumerate(documents):
        if frame.begin is not None:
            stream.append((frame.begin, number, True))
        for token in document:
            stream.append((token, number, flags[place]))
            place += 1
        if frame.end is not None:
            stream.append((frame.end, number, True))
    return stream


def reference_row(stream, number, frame, variant, pad=None):
    """One row, entry by entry: (tokens, segments, positions, word starts)."""
    start = number * (variant.raw - variant.overlap) % len(stream)
    row, segment, position, last = [], 0, 0, None
    if frame.lead is not None:
        row.append((frame.lead, 0, 0, True))
        position = 1
    for place in range(start, start + variant.raw):
        token, document, word = stream[place % len(stream)]
        owner = (place // len(stream), document)
        if last is not None and owner != last:
            segment, position = segment + 1, 0
        if pad is not None and place >= len(stream):
            row.append((pad, -1, 0, False))
        else:
            row.append((token, segment, position, word))
        last, position = owner, position + 1
    return row


documents_strategy = st.lists(st.integers(0, 12), min_size=1, max_size=9)
frames = st.builds(AFrame, st.sampled_from([None, BEGIN]), st.sampled_from([None, END]), st.sampled_from([None, LEAD]))


def build(lengths, word_seed):
    tokens = iter(range(sum(lengths)))
    documents = [[next(tokens) for _ in range(n)] for n in lengths]
    flags = (np.random.default_rng(word_seed).random(sum(lengths)) < 0.5).tolist()
    return documents, flags


@settings(max_examples=300, deadline=None)
@given(
    documents_strategy,
    frames,
    st.integers(1, 40),
    st.integers(0, 3),
    st.lists(st.integers(0, 200), min_size=1, max_size=8),
    st.booleans(),
    st.integers(0, 5),
)
def test_rows_equal_a_slow_reference(lengths, frame, raw, overlap, numbers, padded, word_seed):
    variant = AVariant(raw, min(overlap, raw - 1))
    documents, flags = build(lengths, word_seed)
    stream = framed(documents, flags, frame)
    if not stream:
        with pytest.raises(UserError):
            StreamReader(split_of(documents, flags), frame, variant)
        return
    reader = StreamReader(split_of(documents, flags), frame, variant)
    assert reader.size == len(stream)
    pad = PAD if padded else None
    rows = reader.read(np.array(numbers), pad)
    expected = [entry for number in numbers for entry in reference_row(stream, number, frame, variant, pad)]
    got = zip(
        rows.tokens.tolist(),
        rows.segment_ids.tolist(),
        rows.position_ids.tolist(),
        rows.word_starts.tolist(),
        strict=True,
    )
    assert list(got) == expected
    assert rows.example_ids.tolist() == numbers
    assert rows.width == raw + (frame.lead is not None)
    assert [a.dtype for a in (rows.tokens, rows.segment_ids, rows.position_ids)] == [np.int32] * 3
    assert rows.word_starts.dtype == np.bool_


@pytest.mark.parametrize("frame", [AFrame(), AFrame(begin=BEGIN), AFrame(BEGIN, END)])
@pytest.mark.parametrize("raw", [1, 7, 64, 5000])
def test_the_rows_of_a_pass_are_the_stream(frame, raw):
    lengths = np.random.default_rng(0).integers(0, 90, 50).tolist()
    documents, flags = build(lengths, 0)
    stream = [token for token, _, _ in framed(documents, flags, frame)]
    reader = StreamReader(split_of(documents, flags), frame, AVariant(raw))
    tokens = reader.read(np.arange(reader.rows_per_pass)).tokens.tolist()
    assert tokens[: reader.size] == stream
    assert tokens[reader.size :] == (stream * (raw // reader.size + 2))[: len(tokens) - reader.size]
    padded = reader.read(np.arange(reader.rows_per_pass), pad=PAD)
    assert padded.tokens[padded.segment_ids >= 0].tolist() == stream


def test_a_causal_row_reads_the_first_token_of_the_next_row():
    documents, flags = build([30, 41, 2], 0)
    reader = StreamReader(split_of(documents, flags), AFrame(end=END), AVariant(raw=9, overlap=1))
    rows = reader.read(np.arange(reader.rows_per_pass))
    matrix = rows.matrix(rows.tokens)
    assert (matrix[1:, 0] == matrix[:-1, -1]).all()
    predicted = matrix[:, 1:].reshape(-1)[: reader.size].tolist()
    stream = [token for token, _, _ in framed(documents, flags, AFrame(end=END))]
    assert predicted == stream[1:] + stream[:1]


def test_sentences_begin_where_the_split_says_and_at_no_token_of_the_frame():
    documents = [list(range(10, 18)), list(range(20, 23)), [], list(range(30, 36))]
    split = dataclasses.replace(split_of(documents), sentences=np.array([0, 3, 5, 8, 11, 14], np.uint64))
    for frame in (AFrame(sentences=True), AFrame(BEGIN, END, LEAD, sentences=True), AFrame(end=END, sentences=True)):
        rows = StreamReader(split, frame, AVariant(7)).read(np.arange(9))
        firsts = {10, 13, 15, 20, 30, 33}
        assert (rows.sentence_starts == np.isin(rows.tokens, list(firsts))).all()
        padded = StreamReader(split, frame, AVariant(7)).read(np.arange(5), PAD)
        assert (padded.sentence_starts == np.isin(padded.tokens, list(firsts))).all()


def test_reading_changes_neither_the_row_numbers_nor_the_split():
    split = split_of([[1, 2, 3], [4, 5]])
    reader = StreamReader(split, AFrame(begin=BEGIN, lead=LEAD), AVariant(3))
    numbers = np.array([0, 1, 5])
    before = numbers.copy(), split.tokens.copy(), split.documents.copy()
    reader.read(numbers)
    assert np.array_equal(numbers, before[0])
    assert np.array_equal(split.tokens, before[1])
    assert np.array_equal(split.documents, before[2])


def test_the_first_documents_of_a_split_are_a_split():
    documents, flags = build([3, 0, 5, 9], 1)
    split = split_of(documents, flags).first_documents(3)
    assert (split.num_documents, split.num_tokens, split.text_bytes) == (3, 8, 8)
    assert split.document(2).tolist() == documents[2]
    assert split.word_starts(np.arange(8)).tolist() == flags[:8]
    assert split.first_documents(99).num_documents == 3
    with pytest.raises(IndexError):
        split.document(3)
