"""Fill in the middle: the text comes back character by character, cuts are uniform, and the rest is a causal model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import rows_of
from tests.unit.objectives.hand_rows import vocabulary as without_text

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.encode import TextEncoder
from pretextlm.data.row_shapes import Variant
from pretextlm.data.rows import StreamReader
from pretextlm.data.special_tokens import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from pretextlm.data.token_splits import TokenSplits
from pretextlm.data.tokenizer import KINDS, train_tokenizer, vocabulary_of
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

POSSIBLE = 1e-4
"""A test of chance fails by chance in one of ten thousand seeds; the seeds are fixed."""
DOCUMENTS = [
    "The ship sailed at dawn, and nobody aboard knew where it was going.",
    "배는 새벽에 떠났고 아무도 그 배가 어디로 가는지 몰랐다. 🙂🏳️‍🌈 日本語",
    "a",
    " é e\u0301\n\tमرحبا <fim_prefix> </s>",
    "They were content. " * 6,
    "!!",
]


class Text:
    """A tokenizer and rows of documents as the stream reader gives them."""

    def __init__(self, kind="bpe", size=700):
        self.tokenizer = train_tokenizer(kind, DOCUMENTS * 4, size)
        self.vocabulary = vocabulary_of(self.tokenizer)

    def rows(self, documents, raw, numbers, padded=False):
        chunks = [TextEncoder(self.tokenizer).encode([d]).tokens.tolist() for d in documents]
        frame = build("fill_in_middle").frame(self.vocabulary)
        reader = StreamReader(split_of(chunks), frame, Variant("main", raw=raw, length=raw - 1))
        return reader.read(np.asarray(numbers), pad=self.vocabulary.pad if padded else None)

    def all_in_one_row(self, documents, count=1):
        """Every row holds all documents and room enough for what is added."""
        row = self.rows(documents, 600, [0], padded=True)
        parts = (row.tokens, row.segment_ids, row.position_ids, row.word_starts)
        return replace(
            row,
            **dict(zip(("tokens", "segment_ids", "position_ids", "word_starts"), (np.tile(p, count) for p in parts))),
            offsets=np.arange(count + 1) * row.width,
            example_ids=np.arange(count),
        )

    def decode(self, ids):
        return self.tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)

    def collate(self, rows, epoch=0, **options):
        rng = CounterRNG.of(1, epoch, rows.example_ids)
        return build("fill_in_middle", options).collate(rows, self.vocabulary, rng)

    @property
    def marks(self):
        return [self.vocabulary.id_of(mark) for mark in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)]


@pytest.fixture(scope="module", params=KINDS)
def any_text(request):
    return Text(request.param)


@pytest.fixture(scope="module")
def bpe():
    return Text()


def documents_of(batch, row):
    """Tokens of each document in a row, the last label with them."""
    ids, segments = batch.input_ids[row], batch.segment_ids[row]
    found = []
    for segment in range(int(segments.max()) + 1):
        (places,) = np.nonzero(segments == segment)
        last = batch.labels[row, places[-1]]
        found.append([*ids[places].tolist(), *([int(last)] if last != IGNORE else [])])
    return found


def parts(document, text):
    """(prefix, middle, suffix, suffix first) of a document, or None if it is as it was; asserts its form."""
    vocabulary, (prefix_mark, suffix_mark, middle_mark) = text.vocabulary, text.marks
    if document[0] == vocabulary.bos:
        document = document[1:]
    if document and document[-1] == vocabulary.eos:
        document = document[:-1]
    if prefix_mark not in document:
        assert not set(text.marks) & set(document)
        return None
    assert [document.count(mark) for mark in text.marks] == [1, 1, 1]
    assert document[0] == prefix_mark
    suffix_at, middle_at = document.index(suffix_mark), document.index(middle_mark)
    assert suffix_at < middle_at
    between, suffix, after = document[1:suffix_at], document[suffix_at + 1 : middle_at], document[middle_at + 1 :]
    assert not vocabulary.is_special[between + suffix + after].any()
    return between, suffix, after


def test_documents_come_back_character_by_character(any_text):
    text = any_text
    rows = text.all_in_one_row(DOCUMENTS, 60)
    for suffix_first in (0.0, 1.0):
        batch = text.collate(rows, rate=1.0, suffix_first=suffix_first)
        for row in range(60):
            documents = documents_of(batch, row)
            assert len(documents) == len(DOCUMENTS)
            for ids, original in zip(documents, DOCUMENTS, strict=True):
                assert (ids[0], ids[-1]) == (text.vocabulary.bos, text.vocabulary.eos)
                between, suffix, after = parts(ids, text)
                if suffix_first:
                    assert not between
                    assert text.decode(after + suffix) == original
                else:
                    assert text.decode(between + after + suffix) == original
                for part in (between, suffix, after):
                    assert "\ufffd" not in text.decode(part)  # no character is cut


def slow_cut(ids, characters, splits):
    """Two lists: what stands before the character with this number, and the rest."""
    for place, token in enumerate(ids):
        here = int(splits.characters[token])
        if characters < here:
            left, right, end = splits.parts[2 * (splits.first[token] + characters) + np.arange(3)]
            halves = splits.pool[left:right].tolist(), splits.pool[right:end].tolist()
            return [*ids[:place], *halves[0]], [*halves[1], *ids[place + 1 :]]
        characters -= here
    return list(ids), []


def slow(rows, text, rate, suffix_first, rng):
    """The same document by document."""
    vocabulary, (prefix_mark, suffix_mark, middle_mark) = text.vocabulary, text.marks
    splits, out = vocabulary.token_splits, []
    most = int(rows.segment_ids.max()) + 1
    choice, cuts = rng.bits(0, most), rng.bits(1, most)
    for row in range(len(rows)):
        ids, segments = rows.matrix(rows.tokens)[row], rows.matrix(rows.segment_ids)[row]
        made = []
        for segment in [*range(int(segments.max()) + 1), -1]:
            document = ids[segments == segment].tolist()
            head = [document.pop(0)] if document and document[0] == vocabulary.bos else []
            tail = [document.pop()] if document and document[-1] == vocabulary.eos else []
            total = int(splits.characters[document].sum()) if segment >= 0 else 0
            if total and (int(choice[row, segment]) >> 32) < rate * 2**32:
                word = int(cuts[row, segment])
                low, high = sorted(part * (total + 1) >> 32 for part in (word >> 32, word & 0xFFFFFFFF))
                rest, suffix = slow_cut(document, high, splits)
                prefix, middle = slow_cut(rest, low, splits)
                if (int(choice[row, segment]) & 0xFFFFFFFF) < suffix_first * 2**32:
                    document = [prefix_mark, suffix_mark, *suffix, middle_mark, *prefix, *middle]
                else:
                    document = [prefix_mark, *prefix, suffix_mark, *suffix, middle_mark, *middle]
            made += [(t, segment, n if segment >= 0 else 0) for n, t in enumerate([*head, *document, *tail])]
        out.append(made[: rows.width])
    return np.array(out)


@pytest.mark.parametrize(("raw", "padded"), [(30, False), (49, True), (7, False), (2, True)])
@pytest.mark.parametrize(("rate", "suffix_first"), [(0.5, 0.5), (1.0, 0.3)])
def test_rows_equal_those_made_document_by_document(any_text, raw, padded, rate, suffix_first):
    rows = any_text.rows(DOCUMENTS, raw, np.arange(40) if not padded else np.arange(12), padded)
    rng = CounterRNG.of(1, 0, rows.example_ids)
    wanted = slow(rows, any_text, rate, suffix_first, rng)
    batch = any_text.collate(rows, rate=rate, suffix_first=suffix_first)
    tokens, segments, positions = np.moveaxis(wanted, 2, 0)
    assert (batch.input_ids == tokens[:, :-1]).all()
    assert (batch.segment_ids == segments[:, :-1]).all()
    assert (batch.position_ids == positions[:, :-1]).all()
    inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    assert (batch.labels == np.where(inside, tokens[:, 1:], IGNORE)).all()
    assert batch.attention == "causal"
    for array in (batch.input_ids, batch.labels, batch.segment_ids, batch.position_ids):
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
        assert array.shape == (len(rows), raw - 1)


def test_both_cuts_are_uniform_from_the_start_of_the_text_to_its_end(bpe):
    original = "ship"
    count = 20_000
    row = bpe.rows([original], 20, [0], padded=True)
    rows = rows_of(np.tile(row.tokens, (count, 1)), segments=np.tile(row.segment_ids, (count, 1)), first_id=0)
    batch = bpe.collate(rows, rate=1.0, suffix_first=0.0)
    seen = Counter(tuple(ids) for ids in batch.input_ids.tolist())
    cuts = Counter()
    for ids, times in seen.items():
        between, suffix, after = parts([t for t in ids if t != bpe.vocabulary.pad], bpe)
        prefix, middle = bpe.decode(between), bpe.decode(after)
        assert prefix + middle + bpe.decode(suffix) == original
        cuts[len(prefix), len(prefix) + len(middle)] += times
    law = {(i, j): (1 if i == j else 2) / 25 for i in range(5) for j in range(i, 5)}
    assert set(cuts) == set(law)
    assert stats.chisquare([cuts[k] for k in law], [count * p for p in law.values()]).pvalue > POSSIBLE


def test_so_many_documents_are_rearranged_and_so_many_of_these_suffix_first(bpe):
    count, size = 6000, len(DOCUMENTS[0])
    batch = bpe.collate(bpe.all_in_one_row(DOCUMENTS[:1], count), rate=0.3, suffix_first=0.7)
    marked = (batch.input_ids == bpe.marks[0]).any(axis=1)
    tolerance = stats.norm.isf(POSSIBLE / 2)
    assert abs(marked.sum() - 0.3 * count) < tolerance * np.sqrt(0.21 * count)
    # Nothing stands between the first two marks when the suffix comes first, or when the prefix is empty.
    share = 0.7 + 0.3 * (1 - (size / (size + 1)) ** 2)
    together = (batch.input_ids[marked, 2] == bpe.marks[1]).sum()
    assert abs(together - share * marked.sum()) < tolerance * np.sqrt(share * (1 - share) * marked.sum())


def test_documents_that_are_not_rearranged_are_as_in_causal_language_modelling(bpe):
    rows = bpe.rows(DOCUMENTS, 33, np.arange(50))
    causal = build("causal").collate(rows, bpe.vocabulary, CounterRNG.of(1, 0, rows.example_ids))
    never = bpe.collate(rows, rate=0.0)
    for field in ("input_ids", "labels", "segment_ids", "position_ids"):
        assert (getattr(never, field) == getattr(causal, field)).all()
    some = bpe.collate(rows, rate=0.3)
    unchanged = ~np.isin(some.input_ids, bpe.marks).any(axis=1) & ~np.isin(some.labels, bpe.marks).any(axis=1)
    assert 10 < unchanged.sum() < 50
    assert (some.input_ids == causal.input_ids)[unchanged].all()
    whole = bpe.all_in_one_row(DOCUMENTS, 40)
    originals = documents_of(build("causal").collate(whole, bpe.vocabulary, CounterRNG.of(1, 0, whole.example_ids)), 0)
    batch = bpe.collate(whole)
    same = [
        ids == originals[nth]
        for row in range(40)
        for nth, ids in enumerate(documents_of(batch, row))
        if parts(ids, bpe) is None
    ]
    assert len(same) > 80
    assert all(same)


def test_what_a_row_holds_of_a_document_is_rearranged_as_the_piece_it_is(bpe):
    """The row begins and ends inside a document, so no <s> stands before it and no </s> after."""
    rows = bpe.rows([DOCUMENTS[4] * 3], 40, np.arange(4))
    batch = bpe.collate(rows, rate=1.0)
    for row in (1, 2):
        assert batch.segment_ids[row].max() == 0
        assert batch.input_ids[row, 0] == bpe.marks[0]
        assert bpe.vocabulary.bos not in batch.input_ids[row]
    assert batch.input_ids[0, :2].tolist() == [bpe.vocabulary.bos, bpe.marks[0]]


def test_padding_makes_room_and_stays_padding(bpe):
    rows = bpe.all_in_one_row(DOCUMENTS[:2], 2)
    tokens, segments = rows.matrix(rows.tokens), rows.matrix(rows.segment_ids)
    tokens[1], segments[1] = bpe.vocabulary.pad, -1  # nothing but padding
    before = (segments[0] >= 0).sum()
    batch = bpe.collate(rows_of(tokens, segments=segments), rate=1.0)
    real = batch.segment_ids >= 0
    assert real[0].sum() >= before + 6
    assert not real[1].any()
    assert (batch.input_ids[~real] == bpe.vocabulary.pad).all()
    assert (batch.labels[~real] == IGNORE).all()
    assert (batch.position_ids[~real] == 0).all()


def test_without_isolation_a_row_is_one_run_of_text(bpe):
    rows = bpe.rows(DOCUMENTS, 50, np.arange(10))
    batch, apart = bpe.collate(rows, isolate=False), bpe.collate(rows)
    assert batch.segment_ids is None
    assert batch.position_ids is None
    assert (batch.input_ids == apart.input_ids).all()
    assert (batch.labels[:, :-1] == batch.input_ids[:, 1:]).all()


def test_a_cut_that_cannot_be_spelled_moves_and_loses_nothing(bpe):
    """Every second cut inside a token moves to its start, so that the earlier of two may come after the later."""
    splits = bpe.vocabulary.token_splits
    halves = []
    for token in range(bpe.vocabulary.size):
        own = []
        for nth in range(splits.characters[token]):
            left, right, end = splits.parts[2 * (splits.first[token] + nth) + np.arange(3)]
            own.append((splits.pool[left:right].tolist(), splits.pool[right:end].tolist()))
            if nth % 2 == 0:
                own[-1] = ([], [token])
        halves.append(own)
    odd = Text.__new__(Text)
    odd.tokenizer, odd.vocabulary = (
        bpe.tokenizer,
        replace(bpe.vocabulary, make_token_splits=lambda: TokenSplits.of(halves)),
    )
    batch = odd.collate(odd.all_in_one_row(DOCUMENTS[:1], 400), rate=1.0, suffix_first=0.0)
    for row in range(400):
        (ids,) = documents_of(batch, row)
        between, suffix, after = parts(ids, odd)
        assert odd.decode(between + after + suffix) == DOCUMENTS[0]


def test_a_row_is_the_same_alone_and_in_any_batch_and_changes_with_the_epoch(bpe):
    rows = bpe.rows(DOCUMENTS, 40, np.arange(30))
    whole = bpe.collate(rows)
    for which in ([4], [29, 3, 17]):
        part = bpe.collate(bpe.rows(DOCUMENTS, 40, which))
        for field in ("input_ids", "labels", "segment_ids", "position_ids"):
            assert (getattr(part, field) == getattr(whole, field)[which]).all()
    again = bpe.collate(rows, epoch=1)
    assert (again.input_ids != whole.input_ids).any(axis=1).sum() >= 20


def test_rows_are_those_of_a_causal_model(bpe):
    objective = build("fill_in_middle")
    (variant,) = objective.variants(bpe.vocabulary, 64)
    assert (variant.raw, variant.length, variant.overlap) == (65, 64, 1)
    frame = objective.frame(bpe.vocabulary)
    assert (frame.begin, frame.end, frame.lead) == (bpe.vocabulary.bos, bpe.vocabulary.eos, None)


def test_what_cannot_be_is_refused(bpe):
    for options in ({"rate": 1.5}, {"rate": -0.1}, {"suffix_first": 2.0}, {"spm": 0.5}):
        with pytest.raises(UserError):
            build("fill_in_middle", options)
    with pytest.raises(UserError, match="<fim_prefix>"):
        build("fill_in_middle").variants(without_text(), 64)
    with pytest.raises(UserError, match="spelled"):
        build("fill_in_middle").variants(replace(bpe.vocabulary, make_token_splits=None), 64)
    with pytest.raises(UserError, match="are empty"):
        build("fill_in_middle").variants(bpe.vocabulary, 0)
