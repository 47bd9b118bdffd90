"""Prefix language modelling: T5's cuts, the published shift by one place, and halves that leave no padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import keyed, rows_of, take, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.objectives.prefix import PrefixLayout
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.prefix_split import PrefixSplit, prefix_range

V = vocabulary()
POSSIBLE = 1e-4


def collate(rows, **options):
    return build("prefix", options).collate(rows, V, keyed(rows))


def packed(count=12, width=41, seed=0):
    """Rows of several documents, some of one token."""
    rng = np.random.default_rng(seed)
    opens = rng.random((count, width)) < 0.15
    opens[:, 0] = False
    return rows_of(text(count, width, V, seed), segments=np.cumsum(opens, axis=1))


def shown_and_written(batch):
    """For each row of an encoder-decoder's batch the (source, target) of each of its segments, without ends."""
    found = []
    for row in range(len(batch.input_ids)):
        halves = []
        for half in range(batch.segment_ids[row].max() + 1):
            source = batch.input_ids[row][batch.segment_ids[row] == half].tolist()
            target = batch.decoder_labels[row][batch.decoder_segment_ids[row] == half].tolist()
            assert source.pop() == target.pop() == V.eos
            halves.append((source, target))
        found.append(halves)
    return found


def test_the_shift_is_that_of_the_published_converter():
    """Inputs 9 4 6 1, targets 3 9 1: the place that reads the last input is bidirectional and predicts the first."""
    tokens = np.tile([0, 9, 4, 6, 1, 3, 9, 1], (400, 1))
    batch = collate(rows_of(tokens))
    found = np.flatnonzero(batch.prefix[:, 0] == 5)
    assert len(found)
    for row in found:
        assert batch.input_ids[row].tolist() == [0, 9, 4, 6, 1, 3, 9]
        assert batch.labels[row].tolist() == [IGNORE] * 4 + [3, 9, 1]
        assert (np.arange(7) < batch.prefix[row]).astype(int).tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert batch.attention == "prefix"


def test_rows_are_as_the_docstring_shows():
    tokens = np.tile([V.bos, 107, 108, 109, 104, 105, V.eos], (200, 1))
    batch = collate(rows_of(tokens))
    row = np.flatnonzero(batch.prefix[:, 0] == 4)[0]
    assert batch.input_ids[row].tolist() == tokens[0, :-1].tolist()
    assert batch.labels[row].tolist() == [IGNORE, IGNORE, IGNORE, 104, 105, V.eos]
    assert batch.prefix[row].tolist() == [4] * 6


def test_packed_rows_equal_the_slow_loop():
    rows = packed()
    batch = collate(rows)
    tokens, segments = rows.matrix(rows.tokens), rows.matrix(rows.segment_ids)
    for row in range(len(rows)):
        labels, prefix = [IGNORE] * 40, [0] * 40
        for segment in range(segments[row].max() + 1):
            places = np.flatnonzero(segments[row] == segment).tolist()
            shown = next((int(batch.prefix[row, p]) for p in places if p < 40), 1)
            assert 1 <= shown <= max(len(places) - 1, 1)
            for number, place in enumerate(places[:-1]):
                if number >= shown - 1:
                    labels[place] = int(tokens[row, place + 1])
            for place in places:
                if place < 40:
                    prefix[place] = shown
        assert batch.labels[row].tolist() == labels
        assert batch.prefix[row].tolist() == prefix
    assert (batch.input_ids == tokens[:, :-1]).all()
    assert (batch.segment_ids == segments[:, :-1]).all()
    assert (batch.position_ids == rows.matrix(rows.position_ids)[:, :-1]).all()


def test_what_is_shown_sees_all_that_is_shown_and_nothing_written_is_seen_before_its_time():
    rows = packed(6, 30)
    batch = collate(rows)
    mask = may_attend(
        batch.segment_ids, batch.segment_ids, batch.position_ids, batch.position_ids, batch.prefix, batch.attention
    )
    for row in range(6):
        for query in range(29):
            shown = batch.position_ids[row, query] < batch.prefix[row, query]
            for key in range(29):
                same = batch.segment_ids[row, query] == batch.segment_ids[row, key]
                inside = batch.position_ids[row, key] < batch.prefix[row, key]
                assert mask[row, query, key] == (same and (inside or (not shown and key <= query)))
            if batch.labels[row, query] != IGNORE and query < 28:
                assert not mask[row, query, query + 1]  # the token it predicts


@pytest.mark.parametrize(("rate", "least"), [(0.5, 1), (0.25, 4), (0.1, 6), (0.01, 8)])
def test_the_number_shown_is_uniform_from_the_least_to_all_but_one(rate, least):
    tokens = text(20_000, 9, V)
    segments = np.tile([0] * 9, (20_000, 1))
    shown = collate(rows_of(tokens, segments=segments), rate=rate).prefix[:, 0]
    assert prefix_range(9, rate) == (least, 8)
    counts = np.bincount(shown, minlength=9)[least:]
    assert counts.sum() == 20_000
    if least < 8:
        assert stats.chisquare(counts).pvalue > POSSIBLE


def test_documents_of_a_row_are_cut_independently():
    segments = np.tile([0] * 7 + [1] * 7, (30_000, 1))
    batch = collate(rows_of(text(30_000, 14, V), segments=segments))
    table = np.zeros((6, 6))
    np.add.at(table, (batch.prefix[:, 0] - 1, batch.prefix[:, -1] - 1), 1)
    assert stats.chisquare(table.reshape(-1)).pvalue > POSSIBLE


def test_a_document_of_one_token_has_no_target():
    rows = rows_of(text(1, 5, V), segments=np.array([[0, 1, 1, 1, 2]]))
    batch = collate(rows)
    assert batch.labels[0, 0] == IGNORE
    assert batch.labels[0, 3] == IGNORE  # the next document's first token is not predicted
    assert (batch.labels[0, 1:3] != IGNORE).any()


def test_packed_rows_that_end_in_padding_have_no_label_there():
    tokens, segments = text(4, 12, V), np.zeros((4, 12), int)
    for row, length in enumerate((12, 7, 1, 0)):
        tokens[row, length:], segments[row, length:] = V.pad, -1
    batch = collate(rows_of(tokens, segments=segments))
    for row, length in enumerate((12, 7, 1, 0)):
        assert (batch.labels[row, max(length - 1, 0) :] == IGNORE).all()
        assert (batch.labels[row] != IGNORE).any() == (length > 1)
        assert (batch.segment_ids[row, length:] == -1).all()
    whole = collate(rows_of(text(4, 12, V)))
    assert (batch.labels[0] == whole.labels[0]).all()


def test_every_token_of_a_stream_is_shown_or_written_once():
    documents = [text(1, n, V, n)[0].tolist() for n in (3, 30, 1, 12, 55)]
    objective = build("prefix")
    reader = objective.reader(split_of(documents), V, 16)
    numbers = np.arange(reader.rows_per_pass)
    rows = reader.read(numbers, np.zeros_like(numbers), 0, pad=V.pad)
    batch = objective.collate(rows, V, CounterRNG.of(0, 0, rows.example_ids))
    stream = [t for document in documents for t in (V.bos, *document, V.eos)]
    read = batch.input_ids[batch.segment_ids >= 0].tolist()
    assert read == stream[: len(read)]
    assert len(stream) - len(read) <= 1  # the last token may only be predicted
    written = np.flatnonzero(batch.labels.reshape(-1) != IGNORE)
    assert (batch.labels.reshape(-1)[written] == np.array([*stream, 0])[written + 1]).all()


@given(st.integers(1, 60), st.floats(0.01, 0.5), st.integers(0, 99))
def test_halves_together_are_the_text(length, rate, seed):
    rows = rows_of(text(8, length, V, seed))
    batch = build("prefix", {"rate": rate, "layout": "encoder_decoder"}).collate(rows, V, keyed(rows, seed))
    widths = PrefixSplit(rate).widths(length)
    assert batch.input_ids.shape == batch.segment_ids.shape == (8, widths[0])
    assert batch.decoder_labels.shape == batch.decoder_input_ids.shape == (8, widths[1])
    for row, halves in enumerate(shown_and_written(batch)):
        assert len(halves) == (2 if length > 3 else 1)
        assert [t for s, w in halves for t in s + w] == rows.matrix(rows.tokens)[row].tolist()
        for source, target in halves:
            assert source
            assert target or length == 1
            least = prefix_range(len(source + target), rate)[0]
            assert len(source) >= least or length % 2


def test_halves_equal_the_slow_loop():
    rows = rows_of(text(20, 23, V))
    batch = PrefixSplit(0.3, lead=True).pair_rows(rows.matrix(rows.tokens), rows.example_ids, V, keyed(rows), lead=99)
    for row in range(20):
        cut = int(np.flatnonzero(batch.input_ids[row] == V.eos)[0]) - 1
        others = batch.input_ids.shape[1] - 4 - cut
        one, two = rows.matrix(rows.tokens)[row][:11].tolist(), rows.matrix(rows.tokens)[row][11:].tolist()
        first, second = [99, *one[:cut], V.eos], [99, *two[:others], V.eos]
        assert batch.input_ids[row].tolist() == first + second
        assert batch.segment_ids[row].tolist() == [0] * len(first) + [1] * len(second)
        assert batch.position_ids[row].tolist() == [*range(len(first)), *range(len(second))]
        rest, tail = one[cut:], two[others:]
        assert batch.decoder_labels[row].tolist() == [*rest, V.eos, *tail, V.eos]
        assert batch.decoder_input_ids[row].tolist() == [V.pad, *rest, V.pad, *tail]
        assert batch.decoder_segment_ids[row].tolist() == [0] * (len(rest) + 1) + [1] * (len(tail) + 1)
        assert batch.decoder_position_ids[row].tolist() == [*range(len(rest) + 1), *range(len(tail) + 1)]


@pytest.mark.parametrize(("rate", "length"), [(0.5, 16), (0.25, 16), (0.25, 21), (0.3, 22)])
def test_each_half_is_cut_uniformly_and_one_late_where_the_other_is_early(rate, length):
    halves = PrefixSplit(rate)
    assert halves.is_exact(length)
    rows = rows_of(text(15_000, length, V))
    batch = halves.pair_rows(rows.matrix(rows.tokens), rows.example_ids, V, keyed(rows))
    first = np.count_nonzero(batch.segment_ids == 0, axis=1) - 1
    second = np.count_nonzero(batch.segment_ids == 1, axis=1) - 1
    assert len(set((first + second).tolist())) == 1
    for shown, size in ((first, length // 2), (second, length - length // 2)):
        least, most = prefix_range(size, rate)
        counts = np.bincount(shown, minlength=most + 1)[least:]
        assert counts.sum() == 15_000
        assert len(counts) == most - least + 1
        assert stats.chisquare(counts).pvalue > POSSIBLE


def test_a_half_sees_nothing_of_the_other():
    rows = rows_of(text(5, 20, V))
    batch = collate(rows, layout="encoder_decoder")
    cross = may_attend(batch.decoder_segment_ids, batch.segment_ids)
    for row in range(5):
        source_of = np.where(batch.segment_ids[row] == 0, 0, 1)
        target_of = np.where(batch.decoder_segment_ids[row] == 0, 0, 1)
        assert (cross[row] == (target_of[:, None] == source_of)).all()
    assert batch.attention == "bidirectional"


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.15, 0.37])
def test_halves_fill_rows_of_any_length(rate):
    objective = build("prefix", {"rate": rate, "layout": "encoder_decoder"})
    for length in (*range(4, 80), 512, 1023):
        (variant,) = objective.variants(V, length)
        assert variant.length == length
        assert variant.raw + 4 == variant.length + variant.decoder_length
    (variant,) = build("prefix", {"layout": "encoder_decoder"}).variants(V, 512)
    assert (variant.raw, variant.decoder_length) == (1020, 512)
    assert objective.supported_architectures() == ("encoder_decoder",)


def test_halves_of_rows_that_end_in_padding_are_those_of_the_shorter_text():
    tokens, lengths = text(6, 30, V), (30, 29, 4, 3, 1, 0)
    segments = np.where(np.arange(30) < np.array(lengths)[:, None], 0, -1)
    tokens[segments < 0] = V.pad
    rows = rows_of(tokens, segments=segments)
    batch = collate(rows, layout="encoder_decoder")
    for row, length in enumerate(lengths):
        if not length:
            assert (batch.input_ids[row] == V.pad).all()
            assert (batch.decoder_labels[row] == IGNORE).all()
            assert (batch.segment_ids[row] == -1).all()
            continue
        short = rows_of(tokens[row : row + 1, :length], first_id=row)
        alone = collate(short, layout="encoder_decoder")
        width, reach = alone.input_ids.shape[1], alone.decoder_labels.shape[1]
        for name in ("input_ids", "segment_ids", "position_ids"):
            assert (getattr(batch, name)[row, :width] == getattr(alone, name)[0]).all()
        assert (batch.segment_ids[row, width:] == -1).all()
        for name in ("decoder_input_ids", "decoder_labels", "decoder_segment_ids", "decoder_position_ids"):
            assert (getattr(batch, name)[row, :reach] == getattr(alone, name)[0]).all()
        assert (batch.decoder_labels[row, reach:] == IGNORE).all()
        assert (batch.decoder_segment_ids[row, reach:] == -1).all()


@pytest.mark.parametrize("layout", ["prefix", "encoder_decoder"])
def test_a_row_comes_out_the_same_alone(layout):
    rows = packed(20, 40)
    whole = collate(rows, layout=layout)
    for which in (np.array([7]), np.array([19, 2])):
        some = collate(take(rows, which), layout=layout)
        for name in ("input_ids", "labels", "prefix", "decoder_labels", "segment_ids", "decoder_segment_ids"):
            array = getattr(some, name)
            assert array is None or (array == getattr(whole, name)[which]).all()


@pytest.mark.parametrize(
    ("options", "length", "part"),
    [({}, 0, "at least 1"), ({"layout": "encoder_decoder"}, 3, "at least 4")],
)
def test_a_length_that_cannot_work_is_refused(options, length, part):
    with pytest.raises(UserError, match=part):
        build("prefix", options).variants(V, length)
    build("prefix", options).variants(V, length + 1)


def test_more_than_half_cannot_be_written_on_average():
    with pytest.raises(UserError, match="rate"):
        build("prefix", {"rate": 0.6})


def test_frames_and_blanks_follow_the_layout():
    joint, pair = build("prefix"), build("prefix", {"layout": "encoder_decoder"})
    assert (joint.frame(V).begin, joint.frame(V).end) == (V.bos, V.eos)
    assert (pair.frame(V).begin, pair.frame(V).end) == (None, None)
    assert joint.supported_architectures() == ("decoder",)
    assert isinstance(joint.blank_layout(V, "decoder"), PrefixLayout)
    assert isinstance(pair.blank_layout(V, "encoder_decoder"), PrefixLayout)
