"""Pairs of sentences against BERT's builder as a plain loop, and what each label promises."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import vocabulary

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG, mix
from pretextlm.data import sentence_pair_index as pair_index
from pretextlm.data.sentence_pair_index import CHUNK, CUT_A, CUT_B, PARTNER, TARGET, Kind, heads, reachable, truncated
from pretextlm.data.sentence_pairs import PairReader
from pretextlm.errors import UserError

V = vocabulary()
FIRST = 100  # text tokens count up from here, so that a token says where it stood
POSSIBLE = 1e-4
BERT = (Kind("next", 1 / 2, 0), Kind("random", 1 / 2, 1))
ALBERT = (Kind("next", 1 / 2, 0), Kind("previous", 1 / 2, 1))
STRUCTBERT = (Kind("next", 1 / 3, 0), Kind("previous", 1 / 3, 1), Kind("random", 1 / 3, 2))
ALL = (BERT, ALBERT, STRUCTBERT)
RANDOM_LABEL = {BERT: 1, ALBERT: None, STRUCTBERT: 2}


def split_with(lengths):
    """A split with the given lengths of sentences in each document."""
    flat = np.array([n for sentences in lengths for n in sentences], np.int64)
    split = split_of([[0] * sum(sentences) for sentences in lengths], [i % 3 != 1 for i in range(flat.sum())])
    tokens = np.arange(FIRST, FIRST + flat.sum()).astype(np.uint32)
    return dataclasses.replace(split, tokens=tokens, sentences=(np.cumsum(flat) - flat).astype(np.uint64))


def reader_of(lengths, length=23, kinds=BERT, **options):
    return PairReader(split_with(lengths), V, length, kinds, **options)


def word(seed, epoch, number, stream):
    return int(CounterRNG.of(seed, epoch, number).bits(stream, 1)[0, 0])


def below(draw, high):
    return (draw & 0xFFFFFFFF) * high >> 32


def tosses(seed, epoch, number, stream):
    """Fair coins, one after another: True for the front."""
    key = CounterRNG.of(seed, epoch, number).keys
    for nth in itertools.count():
        bits = int(CounterRNG(mix(key ^ np.uint64(nth))).bits(stream, 1)[0, 0])
        yield from (bool(bits >> (63 - place) & 1) for place in range(64))


def plain_builder(lengths, room, kinds, short, seed, epoch):
    """BERT's builder, token by token, with the keyed draws: (A, B, label, sentences of the chunk).

    Without a random kind, the rule of PairIndex for single sentences.
    """
    tokens = itertools.count(FIRST)
    documents = [[[next(tokens) for _ in range(n)] for n in sentences] for sentences in lengths]
    documents = [document for document in documents if document]
    firsts = np.cumsum([0, *map(len, documents)]).tolist()
    relations = [kind.relation for kind in kinds]
    instances = []
    for number, document in enumerate(documents):
        target = room
        draw = word(seed, epoch, number, TARGET)
        if (draw >> 32) / 2**32 < short:
            target = 2 + below(draw, room - 1)
        i = 0
        while i < len(document):
            first, chunk, size = firsts[number] + i, [], 0
            while i < len(document) and (not chunk or size < target):
                chunk.append(document[i])
                size += len(document[i])
                i += 1
            if "random" not in relations:
                if len(document) == 1:
                    break
                if len(chunk) == 1:
                    chunk.append(document[i])
                    i += 1
                if len(document) - i == 1:
                    if len(chunk) > 2:
                        chunk.pop()
                        i -= 1
                    else:
                        chunk.append(document[i])
                        i += 1
            draw = word(seed, epoch, first, CHUNK)
            a_end = 1 + below(draw, len(chunk) - 1) if len(chunk) > 1 else 1
            sums = list(itertools.accumulate(kind.share for kind in kinds))
            which = next(k for k, total in enumerate(sums) if (draw >> 32) / 2**32 < total or k == len(kinds) - 1)
            if len(chunk) == 1:
                which = relations.index("random")
            a, b = list(itertools.chain(*chunk[:a_end])), list(itertools.chain(*chunk[a_end:]))
            if relations[which] == "random":
                draw = word(seed, epoch, first, PARTNER)
                other = [d for d in range(len(documents)) if d != number][(draw >> 32) * (len(documents) - 1) >> 32]
                b = []
                for sentence in documents[other][below(draw, len(documents[other])) :]:
                    b += sentence
                    if len(b) >= target - len(a):
                        break
                i -= len(chunk) - a_end
            if relations[which] == "previous":
                a, b = b, a
            coins = {0: tosses(seed, epoch, first, CUT_A), 1: tosses(seed, epoch, first, CUT_B)}
            while len(a) + len(b) > room:
                longer = a if len(a) > len(b) else b
                longer.pop(0 if next(coins[0 if longer is a else 1]) else -1)
            instances.append((a, b, kinds[which].label, len(chunk)))
    return instances


def parts(rows):
    """(A, B, label) of each row."""
    tokens, types = rows.matrix(rows.tokens), rows.matrix(rows.token_type_ids)
    found = []
    for row, kind, label in zip(tokens, types, rows.row_labels.tolist(), strict=True):
        found.append((row[(row >= FIRST) & (kind == 0)].tolist(), row[(row >= FIRST) & (kind == 1)].tolist(), label))
    return found


def everything(reader, seed=1, epoch=0):
    count = len(reader.pairs(seed, epoch))
    return reader.read(np.arange(count), np.full(count, epoch), seed)


def owners(lengths):
    """Document of every text token."""
    owner = np.repeat(np.arange(len(lengths)), [sum(sentences) for sentences in lengths])
    return lambda token: int(owner[token - FIRST])


def random_lengths(documents, seed=0, longest=12, sentences=9):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, longest, rng.integers(1, sentences)).tolist() for _ in range(documents)]


lengths_strategy = st.lists(st.lists(st.integers(1, 15), max_size=9), min_size=2, max_size=9)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(lengths_strategy, st.integers(2, 30), st.sampled_from(ALL), st.sampled_from([0.0, 0.5]), st.integers(0, 99))
def test_pairs_equal_berts_builder_under_the_same_draws(lengths, room, kinds, short, seed):
    texts = [sentences for sentences in lengths if sentences]
    if max(map(len, texts), default=0) < 2 if kinds is ALBERT else len(texts) < 2:
        with pytest.raises(UserError):
            reader_of(lengths, room + 3, kinds, short=short)
        return
    reader = reader_of(lengths, room + 3, kinds, short=short)
    for epoch in (0, 3):
        expected = [instance[:3] for instance in plain_builder(lengths, room, kinds, short, seed, epoch)]
        assert parts(everything(reader, seed, epoch)) == expected


def test_pairs_equal_berts_builder_on_longer_texts():
    lengths = random_lengths(60, longest=90, sentences=60)
    for kinds in ALL:
        expected = [instance[:3] for instance in plain_builder(lengths, 125, kinds, 0.1, 7, 2)]
        assert parts(everything(reader_of(lengths, 128, kinds), 7, 2)) == expected


@pytest.mark.parametrize("kinds", ALL)
def test_working_documents_off_in_blocks_changes_nothing(kinds, monkeypatch):
    lengths = random_lengths(80)
    whole = reader_of(lengths, 40, kinds).index.pairs(3, 1)
    for size in (1, 7, 64):
        monkeypatch.setattr(pair_index, "SENTENCES_AT_ONCE", size)
        for name, array in vars(reader_of(lengths, 40, kinds).index.pairs(3, 1)).items():
            assert np.array_equal(array, getattr(whole, name)), name


@pytest.mark.parametrize("kinds", ALL)
def test_a_row_is_cls_a_sep_b_sep_and_padding(kinds):
    reader = reader_of(random_lengths(40), 24, kinds)
    rows = everything(reader)
    shape = (len(rows), 24)
    assert rows.width == 24
    flags = reader.split.word_starts(np.arange(reader.split.num_tokens))
    read = (rows.tokens, rows.segment_ids, rows.position_ids, rows.word_starts, rows.token_type_ids)
    for number, (a, b, _) in enumerate(parts(rows)):
        tokens, segments, positions, starts, types = (array.reshape(shape)[number].tolist() for array in read)
        used, padding = len(a) + len(b) + 3, 24 - len(a) - len(b) - 3
        assert tokens == [V.cls, *a, V.sep, *b, V.sep] + [V.pad] * padding
        assert segments == [0] * used + [-1] * padding
        assert positions == [*range(used)] + [0] * padding
        assert types == [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * padding
        text = [[bool(flags[token - FIRST]) for token in part] for part in (a, b)]
        assert starts == [True, *text[0], True, *text[1], True] + [False] * padding
    assert rows.example_ids.tolist() == list(range(len(rows)))
    assert [a.dtype for a in (*read, rows.row_labels)] == [np.int32] * 3 + [np.bool_] + [np.int32] * 2
    assert rows.example_ids.dtype == np.int64


@pytest.mark.parametrize("kinds", ALL)
def test_each_label_keeps_its_promise(kinds):
    lengths = random_lengths(300)
    owner = owners(lengths)
    room = 2 * max(map(sum, lengths))  # nothing is too long, and a chunk is a document or what is left of one
    relations = {kind.label: kind.relation for kind in kinds}
    seen = set()
    for a, b, label in parts(everything(reader_of(lengths, room + 3, kinds))):
        assert a == list(range(a[0], a[0] + len(a)))
        assert b == list(range(b[0], b[0] + len(b)))
        if relations[label] == "next":
            assert b[0] == a[-1] + 1
        if relations[label] == "previous":
            assert a[0] == b[-1] + 1
        documents = {owner(token) for token in a + b}
        assert len(documents) == (2 if relations[label] == "random" else 1)
        seen.add(label)
    assert seen == set(relations)


@pytest.mark.parametrize("kinds", ALL)
def test_a_pair_that_is_cut_still_has_both_parts_and_lacks_only_tokens_at_their_ends(kinds):
    lengths = random_lengths(200, longest=40)
    owner = owners(lengths)
    relations = {kind.label: kind.relation for kind in kinds}
    for room in (2, 3, 10, 33):
        for a, b, label in parts(everything(reader_of(lengths, room + 3, kinds))):
            assert len(a) >= 1
            assert len(b) >= 1
            assert len(a) + len(b) <= room
            assert a == list(range(a[0], a[0] + len(a)))
            assert b == list(range(b[0], b[0] + len(b)))
            same = owner(a[0]) == owner(b[0])
            assert same == (relations[label] != "random")
            if relations[label] != "random":
                assert (a[-1] < b[0]) == (relations[label] == "next")


def test_swapping_changes_the_order_and_nothing_else():
    lengths = random_lengths(300)
    room = 2 * max(map(sum, lengths))
    swapped = (Kind("next", 0.0, 0), Kind("previous", 1.0, 1))
    straight = (Kind("next", 1.0, 0), Kind("previous", 0.0, 1))
    one = parts(everything(reader_of(lengths, room + 3, straight)))
    other = parts(everything(reader_of(lengths, room + 3, swapped)))
    mixed = parts(everything(reader_of(lengths, room + 3, ALBERT)))
    assert {label for _, _, label in one} == {0}
    assert {label for _, _, label in other} == {1}
    assert [(a, b) for a, b, _ in one] == [(b, a) for a, b, _ in other]
    assert all(m == (o if m[2] else s) for m, s, o in zip(mixed, one, other, strict=True))


@pytest.mark.parametrize("kinds", ALL)
@pytest.mark.parametrize("short", [0.0, 1.0])
def test_every_sentence_is_used_once_an_epoch_and_none_is_lost(kinds, short):
    rng = np.random.default_rng(3)
    lengths = [[1] * int(n) for n in rng.integers(2, 60, 200)]  # words for sentences: never too long together
    random = RANDOM_LABEL[kinds]
    room = 20
    used = []
    for a, b, label in parts(everything(reader_of(lengths, room + 3, kinds, short=short))):
        used += a if label == random else a + b
    assert sorted(used) == list(range(FIRST, FIRST + sum(map(len, lengths))))


def test_sentence_order_reads_single_sentences_along_and_skips_documents_of_one():
    lengths = [[4], [3, 2], [9, 9, 1], [5, 5, 5, 1], [30, 2, 2, 2], []]
    found = parts(everything(reader_of(lengths, 13, ALBERT, short=0.0)))
    first = np.cumsum([FIRST, *map(sum, lengths)]).tolist()
    by_document = [[p for p in found if first[d] <= p[0][0] < first[d + 1]] for d in range(6)]
    assert list(map(len, by_document)) == [0, 1, 1, 2, 2, 0]
    last = by_document[3][1]  # [5 5 5 1] is read as [5 5] [5 1]
    assert sorted(last[0] + last[1]) == list(range(first[3] + 10, first[3] + 16))


@pytest.mark.slow
def test_the_share_of_random_partners_is_a_half_and_half_the_single_sentences():
    lengths = random_lengths(800, longest=30)
    for kinds, share in ((BERT, 1 / 2), (STRUCTBERT, 1 / 3)):
        reader = reader_of(lengths, 43, kinds, short=0.1)
        labels = everything(reader, 11).row_labels
        sizes = np.array([size for *_, size in plain_builder(lengths, 40, kinds, 0.1, 11, 0)])
        single, more = np.count_nonzero(sizes == 1), np.count_nonzero(sizes > 1)
        assert (labels[sizes == 1] == RANDOM_LABEL[kinds]).all()
        random = np.count_nonzero(labels == RANDOM_LABEL[kinds])
        assert abs(random - single - share * more) < 4 * np.sqrt(more * share * (1 - share))
        assert min(single, more) > 200


def test_the_kinds_come_in_their_shares():
    lengths = [[1] * 40] * 300
    for kinds in ALL:
        pairs = reader_of(lengths, 13, kinds, short=0.0).pairs(5, 0)
        counts = np.bincount(pairs.label, minlength=len(kinds))
        if kinds is not ALBERT:  # the last sentence of a document, if alone, can only have a random partner
            singles = sum(size == 1 for *_, size in plain_builder(lengths, 10, kinds, 0.0, 5, 0))
            counts[RANDOM_LABEL[kinds]] -= singles
        assert stats.chisquare(counts, [kind.share * counts.sum() for kind in kinds]).pvalue > POSSIBLE


@pytest.mark.slow
def test_any_other_document_is_equally_likely_from_any_of_its_sentences_on():
    lengths = [[1] * 5, [1] * 2, [1] * 9, [1] * 3, [1] * 4]
    owner = owners(lengths)
    first = np.cumsum([FIRST, *map(len, lengths)])
    pairs = np.zeros((5, 5), int)
    starts = np.zeros(9, int)
    reader = reader_of(lengths, 9, (Kind("random", 1.0, 1),), short=0.0)
    for epoch in range(1500):
        found = reader.index.pairs(2, epoch)
        for a, b in zip(found.a + FIRST, found.b + FIRST, strict=True):
            pairs[owner(a), owner(b)] += 1
            if owner(b) == 2 and owner(a) == 1:  # A of one token, B of up to five: never cut
                starts[b - first[2]] += 1
    assert (np.diag(pairs) == 0).all()
    for row in range(5):
        assert stats.chisquare(np.delete(pairs[row], row)).pvalue > POSSIBLE
    assert stats.chisquare(starts).pvalue > POSSIBLE


def test_a_chunk_is_cut_after_any_of_its_sentences_but_the_last():
    reader = reader_of([[1] * 6] * 6000, 9, ALBERT, short=0.0)
    pairs = reader.pairs(4, 0)
    assert len(pairs) == 6000
    for label in (0, 1):
        counts = np.bincount(pairs.a_length[pairs.label == label], minlength=7)
        assert counts[[0, 6]].tolist() == [0, 0]
        assert stats.chisquare(counts[1:6]).pvalue > POSSIBLE


def test_a_share_of_the_documents_has_rows_of_any_length():
    lengths = [[1] * 100] * 5000
    reader = reader_of(lengths, 13, (Kind("next", 1.0, 0),), short=0.3)
    pairs = reader.pairs(6, 0)
    document_starts = np.flatnonzero(np.isin(pairs.a, np.arange(5000) * 100))
    sizes = np.bincount((pairs.a_length + pairs.b_length)[document_starts], minlength=11)
    assert sizes.sum() == 5000
    assert stats.binomtest(int(sizes[:10].sum()), 5000, 0.3 * 8 / 9).pvalue > POSSIBLE
    assert stats.chisquare(sizes[2:10]).pvalue > POSSIBLE


def test_truncation_takes_from_the_longer_part_one_token_after_another():
    for room in (2, 3, 8, 9):
        for a, b in itertools.product(range(1, 22), repeat=2):
            one, other = a, b
            while one + other > room:
                if one > other:
                    one -= 1
                else:
                    other -= 1
            kept = truncated(np.array([a]), np.array([b]), room)
            assert (int(kept[0][0]), int(kept[1][0])) == (one, other)


def test_each_token_taken_is_at_the_front_or_back_by_the_toss_of_a_coin():
    for n in (1, 7, 64, 65, 150):
        rng = CounterRNG.of(1, 0, np.arange(20_000))
        counts = np.bincount(heads(rng, CUT_A, np.full(20_000, n)), minlength=n + 1)
        assert len(counts) == n + 1
        expected = stats.binom.pmf(np.arange(n + 1), n, 0.5) * 20_000
        likely = expected > 5
        observed = np.append(counts[likely], counts[~likely].sum())
        expected = np.append(expected[likely], expected[~likely].sum())
        some = expected > 0
        assert stats.chisquare(observed[some], expected[some]).pvalue > POSSIBLE
    mixed = np.array([0, 3, 0, 200, 64])
    rng = CounterRNG.of(1, 0, np.arange(5))
    alone = [int(heads(CounterRNG(rng.keys[i : i + 1]), CUT_A, mixed[i : i + 1])[0]) for i in range(5)]
    assert heads(rng, CUT_A, mixed).tolist() == alone
    assert heads(rng, CUT_A, np.zeros(5, np.int64)).tolist() == [0] * 5


def test_what_is_reachable_is_what_a_walk_finds():
    rng = np.random.default_rng(0)
    for size in (1, 2, 50, 700):
        roots = np.unique(np.concatenate([[0], rng.integers(0, size, 3)]))
        after = np.append(roots[1:], size)[np.searchsorted(roots, np.arange(size), side="right") - 1]
        onward = np.minimum(np.arange(size) + rng.integers(1, 4, size), after)
        found, place = [], 0
        while place < size:
            found.append(place)
            place = int(onward[place])
        assert reachable(onward, roots).tolist() == found


@pytest.mark.parametrize("kinds", ALL)
def test_a_row_is_the_same_alone_in_any_order_and_from_any_thread(kinds):
    lengths = random_lengths(150)
    reader = reader_of(lengths, 30, kinds)
    numbers, epochs = reader.shuffled(np.arange(700), 9)
    assert set(epochs.tolist()) >= {0, 1, 2}
    whole = reader.read(numbers, epochs, 9)

    def same(rows, places):
        return all(
            np.array_equal(getattr(rows, name), getattr(whole, name).reshape(700, -1)[places].reshape(-1))
            for name in ("tokens", "segment_ids", "position_ids", "word_starts", "token_type_ids", "row_labels")
        )

    for places in (np.array([5]), np.arange(700)[::-1], np.array([699, 3, 350])):
        assert same(reader_of(lengths, 30, kinds).read(numbers[places], epochs[places], 9), places)
    shared = reader_of(lengths, 30, kinds)

    def work(start):
        places = np.arange(start, start + 50)
        drawn = shared.shuffled(places, 9)
        return np.array_equal(drawn, (numbers[places], epochs[places])) and same(shared.read(*drawn, 9), places)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [*range(0, 700, 50), *range(650, -1, -50)]))


def test_every_epoch_is_a_permutation_of_its_own_rows():
    reader = reader_of(random_lengths(50), 30)
    sizes = [len(reader.pairs(1, epoch)) for epoch in range(4)]
    assert len(set(sizes)) > 1
    numbers, epochs = reader.shuffled(np.arange(sum(sizes)), 1)
    for epoch, size in enumerate(sizes):
        assert sorted(numbers[epochs == epoch].tolist()) == list(range(size))
    assert (numbers[: sizes[0]] != np.arange(sizes[0])).any()
    late = reader_of(random_lengths(50), 30).shuffled(np.array([sum(sizes) - 1, 0]), 1)
    assert late[0].tolist() == [numbers[-1], numbers[0]]
    assert late[1].tolist() == [3, 0]
    assert reader.groups(numbers[:5])[0].tolist() == [0, 1, 2, 3, 4]


def test_epochs_and_seeds_pair_anew_and_copies_come_again():
    lengths = random_lengths(100)
    reader = reader_of(lengths, 30)

    def read(reader, seed, epoch):
        return parts(everything(reader, seed, epoch))

    assert read(reader, 1, 0) == read(reader, 1, 0)
    assert read(reader, 1, 0) != read(reader, 1, 1)
    assert read(reader, 1, 0) != read(reader, 2, 0)
    copied = reader_of(lengths, 30, copies=2)
    assert read(copied, 1, 2) == read(copied, 1, 0) == read(reader, 1, 0)
    assert read(copied, 1, 3) == read(reader, 1, 1)
    first = [copied.shuffled(np.arange(30), 1)[0], copied.shuffled(np.arange(30) + 2 * len(copied.pairs(1, 0)), 1)[0]]
    assert not np.array_equal(*first)  # the order is new all the same


def test_the_size_of_an_epoch_and_of_its_rows_is_known_beforehand():
    reader = reader_of(random_lengths(200), 30)
    rows = everything(reader, 0, 0)
    assert reader.rows_per_pass == len(rows)
    assert reader.tokens_per_row == pytest.approx((rows.tokens >= FIRST).sum() / len(rows))


def test_a_number_past_the_end_of_its_epoch_reads_as_padding():
    reader = reader_of(random_lengths(20), 30)
    count = len(reader.pairs(8, 0))
    rows = reader.read(np.array([count - 1, count, count + 100]), np.zeros(3, np.int64), 8, pad=V.pad)
    assert parts(rows)[0] == parts(everything(reader, 8))[-1]
    assert (rows.matrix(rows.tokens)[1:] == V.pad).all()
    assert (rows.matrix(rows.segment_ids)[1:] == -1).all()
    assert not rows.matrix(rows.word_starts)[1:].any()
    assert rows.row_labels[1:].tolist() == [IGNORE, IGNORE]


@pytest.mark.parametrize("kinds", ALL)
def test_tiny_texts_and_long_sentences_make_rows(kinds):
    for lengths in ([[1, 1], [1]], [[], [400, 1], [], [500, 400], []], [[2, 1], [1, 900, 1, 1]]):
        for length in (5, 6, 16):
            reader = reader_of(lengths, length, kinds)
            rows = everything(reader)
            assert len(rows) >= 1
            assert all(a and b and len(a) + len(b) <= length - 3 for a, b, _ in parts(rows))


def test_a_split_whose_sentences_miss_or_double_a_documents_start_is_put_right():
    plain = split_with([[4, 3], [], [5], []])
    odd = dataclasses.replace(plain, sentences=np.array([4, 7, 12], np.uint64))  # first start missing, one at the end
    double = dataclasses.replace(plain, sentences=np.array([0, 4, 7, 7, 12], np.uint64))
    expected = parts(everything(PairReader(plain, V, 12, BERT)))
    assert parts(everything(PairReader(odd, V, 12, BERT))) == expected
    assert parts(everything(PairReader(double, V, 12, BERT))) == expected


def test_reading_changes_neither_numbers_nor_the_split():
    split = split_with(random_lengths(20))
    for array in (split.tokens, split.documents, split.sentences, split.word_bits):
        array.flags.writeable = False
    numbers = np.array([3, 0, 1])
    epochs = np.array([0, 1, 0])
    PairReader(split, V, 20, BERT).read(numbers, epochs, 0)
    assert numbers.tolist() == [3, 0, 1]
    assert epochs.tolist() == [0, 1, 0]


def test_splits_of_which_no_pair_can_be_made_are_refused():
    with pytest.raises(UserError, match="no text"):
        reader_of([[], []])
    for kinds in (BERT, STRUCTBERT):
        with pytest.raises(UserError, match="at least two documents"):
            reader_of([[3, 4, 5], []], kinds=kinds)
    with pytest.raises(UserError, match="two sentences"):
        reader_of([[3], [4]], kinds=ALBERT)
    assert len(everything(reader_of([[3, 4]], kinds=ALBERT))) == 1
