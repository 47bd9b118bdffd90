"""Mixtures of denoisers: UL2's numbers, exact shares, and every kind of row whole to the token."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import rows_of, take, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.config import apply_overrides, write_toml
from pretextlm.counter_rng import CounterRNG
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

MODES = ("[NLU]", "[NLG]", "[S2S]", "[R]", "[S]", "[X]")


def with_modes(sentinels=130):
    """A vocabulary with mode tokens and many sentinels."""
    plain = vocabulary(size=1000)
    marks = tuple(range(600, 600 + sentinels))
    further = {mode: 900 + i for i, mode in enumerate(MODES)}
    return replace(plain, sentinels=marks, further=further, special=plain.special | set(marks) | set(further.values()))


V = with_modes()
LAYOUTS = ["encoder_decoder", "prefix"]
TABLES = ["ul2", "teaching"]
UL2 = [(3.0, 0.15), (8.0, 0.15), (3.0, 0.5), (8.0, 0.5), (64.0, 0.15), (64.0, 0.5)]


def rows_for(variant, index, count=6, seed=0):
    return replace(rows_of(text(count, variant.raw, V, seed)), variant=index)


def collate(objective, rows, seed=1):
    return objective.collate(rows, V, CounterRNG.of(seed, 0, rows.example_ids))


def pieces(batch, row):
    """(source, target) of every part of a row, without what is padding; a target ends with </s>."""
    if batch.decoder_input_ids is None:
        shown = int(batch.prefix[row].max())
        return [(batch.input_ids[row, :shown].tolist(), batch.labels[row][batch.labels[row] != IGNORE].tolist())]
    segments = np.zeros_like(batch.input_ids[row]) if batch.segment_ids is None else batch.segment_ids[row]
    labels = batch.decoder_labels[row]
    of_target = np.zeros_like(labels) if batch.decoder_segment_ids is None else batch.decoder_segment_ids[row]
    parts = range(segments.max() + 1)
    return [(batch.input_ids[row][segments == p].tolist(), labels[of_target == p].tolist()) for p in parts]


def restored(source, target, mode=None):
    """The text that a part came from."""
    assert source.pop() == target.pop() == V.eos
    if mode is not None:
        assert source.pop(0) == V.further[mode]
    order = {s: i for i, s in enumerate(V.sentinels)}
    if not any(t in order for t in source):
        return source + target
    spans: list[list[int]] = []
    for token in target:
        if token in order:
            assert order[token] == len(spans)
            spans.append([])
        else:
            spans[-1].append(token)
    out = []
    for token in source:
        out += spans[order[token]] if token in order else [token]
    return out


@pytest.mark.parametrize(
    ("index", "raw", "target", "spans"),
    [(0, 568, 114, 28), (1, 588, 100, 11), (2, 766, 512, 128), (3, 908, 512, 57), (4, 600, 92, 1), (5, 1006, 512, 8)],
)
def test_without_mode_tokens_row_sizes_are_those_of_ul2(index, raw, target, spans):
    objective = build("denoisers", {"modes": False})
    variant = objective.variants(V, 512)[index]
    assert (variant.raw, variant.length, variant.decoder_length) == (raw, 512, target)
    batch = collate(objective, rows_for(variant, index, 2))
    assert np.isin(batch.input_ids, V.sentinels).sum(axis=1).tolist() == [spans, spans]


def test_the_last_of_ul2_is_a_prefix_language_model_that_writes_a_quarter_on_average():
    objective = build("denoisers", {"modes": False})
    variant = objective.variants(V, 512)[6]
    assert (variant.raw, variant.length, variant.decoder_length) == (682, 512, 174)
    batch = collate(objective, rows_for(variant, 6, 2000))
    written = np.count_nonzero(batch.decoder_segment_ids == 0, axis=1) - 1
    assert (written.min(), written.max()) == (1, 171)
    assert abs(written.mean() / 341 - 0.25) < 0.02
    assert not np.isin(batch.input_ids, V.sentinels).any()


def test_with_mode_tokens_every_kind_still_fills_the_same_row():
    plain, moded = (build("denoisers", {"modes": m}).variants(V, 512) for m in (False, True))
    assert [v.length for v in moded] == [512] * 7
    for index, (without, within) in enumerate(zip(plain, moded, strict=True)):
        assert within.raw < without.raw
        narrower = build("denoisers", {"modes": False}).variants(V, 511)[index]
        if index < 6:  # one mode token before one source; half hidden, the target may be a token longer
            more = within.raw - narrower.raw
            assert within.decoder_length - narrower.decoder_length == more
            assert more in (0, int(UL2[index][1] == 0.5))
        assert within.decoder_length <= 512


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"modes": False}, {"edges": "free"}])
def test_rows_have_the_declared_widths_and_lose_nothing(table, layout, options):
    objective = build("denoisers", {"table": table, "layout": layout, **options})
    for index, variant in enumerate(objective.variants(V, 128)):
        rows = rows_for(variant, index)
        batch = collate(objective, rows)
        assert batch.input_ids.shape == (6, variant.length)
        assert 126 <= variant.length <= 128
        if layout == "encoder_decoder":
            assert variant.length == 128
            assert batch.decoder_labels.shape == batch.decoder_input_ids.shape == (6, variant.decoder_length)
            assert (batch.decoder_labels != IGNORE).all()
        else:
            assert variant.decoder_length == 0
        mode = objective.table[index].mode if objective.modes else None
        for row in range(6):
            whole = [t for source, target in pieces(batch, row) for t in restored(source, target, mode)]
            assert whole == rows.matrix(rows.tokens)[row].tolist()
        for array in (batch.input_ids, batch.targets, batch.segment_ids, batch.prefix, batch.decoder_position_ids):
            assert array is None or (array.dtype == np.int32 and array.flags.c_contiguous)


def test_decoders_read_the_target_one_place_later_in_each_part():
    objective = build("denoisers")
    for index, variant in enumerate(objective.variants(V, 64)):
        batch = collate(objective, rows_for(variant, index))
        shifted = np.roll(batch.decoder_labels, 1, axis=1)
        starts = np.zeros(shifted.shape, bool)
        starts[:, 0] = True
        if batch.decoder_segment_ids is not None:
            starts[:, 1:] = np.diff(batch.decoder_segment_ids, axis=1) > 0
        assert (batch.decoder_input_ids == np.where(starts, V.pad, shifted)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_spans_of_the_teaching_table_keep_to_their_ranges(layout):
    objective = build("denoisers", {"table": "teaching", "layout": layout})
    for index, variant in enumerate(objective.variants(V, 512)):
        low, high = objective.table[index].mean_span_length
        batch = collate(objective, rows_for(variant, index, 150))
        seen = set()
        for row in range(150):
            ((_, target),) = pieces(batch, row)
            places = [i for i, t in enumerate(target) if t in V.sentinels] + [len(target) - 1]
            lengths = [after - here - 1 for here, after in pairwise(places)]
            assert low <= min(lengths) <= max(lengths) <= high
            seen |= set(lengths)
        assert seen == set(range(low, high + 1))


def test_a_single_span_is_always_last_unless_edges_are_free():
    row = {"mode": "[NLG]", "mean_span_length": 64.0, "rate": 0.15}
    for edges, places in (("t5", 1), ("free", 300)):
        objective = build("denoisers", {"table": [row], "edges": edges})
        (variant,) = objective.variants(V, 512)
        batch = collate(objective, rows_for(variant, 0, 1000))
        rows, columns = np.nonzero(np.isin(batch.input_ids, V.sentinels))
        assert rows.tolist() == list(range(1000))
        assert len(set(columns.tolist())) >= places
        assert (columns == 510).all() == (edges == "t5")


def test_in_one_row_the_source_sees_itself_and_no_target_is_seen_before_its_time():
    objective = build("denoisers", {"layout": "prefix"})
    for index, variant in enumerate(objective.variants(V, 40)):
        batch = collate(objective, rows_for(variant, index, 4))
        zeros, positions = np.zeros_like(batch.input_ids), np.tile(np.arange(variant.length), (4, 1))
        mask = may_attend(zeros, zeros, positions, positions, batch.prefix, batch.attention)
        for row in range(4):
            shown = int(batch.prefix[row, 0])
            assert (batch.labels[row] != IGNORE).tolist() == (np.arange(variant.length) >= shown - 1).tolist()
            inside = np.arange(variant.length) < shown
            expected = inside | (positions[0] <= positions[0][:, None])
            assert (mask[row] == expected).all()
            assert batch.input_ids[row, shown - 1] == V.eos


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"final_sentinel": True, "edges": "free"}])
def test_rows_that_end_in_padding_are_corrupted_as_the_shorter_text_they_are(table, layout, options):
    objective = build("denoisers", {"table": table, "layout": layout, **options})
    for index, variant in enumerate(objective.variants(V, 96)):
        lengths = [variant.raw, variant.raw - 1, 40, 5, 2, 1, 0, 40]
        tokens = text(8, variant.raw, V)
        segments = np.where(np.arange(variant.raw) < np.array(lengths)[:, None], 0, -1)
        tokens[segments < 0] = V.pad
        batch = collate(objective, replace(rows_of(tokens, segments=segments), variant=index))
        assert batch.input_ids.shape == (8, variant.length)
        for row, length in enumerate(lengths):
            padding = batch.segment_ids[row] < 0
            assert (batch.input_ids[row][padding] == V.pad).all()
            if batch.labels is not None:
                assert (batch.labels[row][padding] == IGNORE).all()
            if not length:
                assert padding.all()
                assert (batch.targets[row] == IGNORE).all()
                continue
            short = replace(rows_of(tokens[row : row + 1, :length], first_id=row), variant=index)
            alone = collate(objective, short)
            width, reach = alone.input_ids.shape[1], alone.targets.shape[1]
            assert padding.sum() == variant.length - width
            assert (batch.input_ids[row, :width] == alone.input_ids[0]).all()
            assert (batch.targets[row, :reach] == alone.targets[0]).all()
            assert (batch.targets[row, reach:] == IGNORE).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_comes_out_the_same_alone_or_in_any_batch(layout):
    objective = build("denoisers", {"layout": layout})
    for index, variant in enumerate(objective.variants(V, 64)):
        rows = rows_for(variant, index, 12)
        whole = collate(objective, rows)
        which = np.array([9, 2, 4])
        some = collate(objective, replace(take(rows, which), variant=index))
        assert (some.input_ids == whole.input_ids[which]).all()
        assert (some.targets == whole.targets[which]).all()


@pytest.mark.parametrize(("table", "shares"), [("ul2", [1] * 7), ("teaching", [2, 1, 1])])
def test_any_run_of_rows_has_exact_shares_and_every_token_is_read_once(table, shares):
    words = V.ordinary[V.ordinary < 600]
    documents = [words[(np.arange(n) * 7 + n) % len(words)].tolist() for n in (900, 31, 400, 2100, 1, 700)]
    objective = build("denoisers", {"table": table})
    reader = objective.reader(split_of(documents), V, 64)
    block = sum(shares)
    places = np.arange(5, 5 + 6 * block)
    numbers, _ = reader.shuffled(places, seed=3)
    for first in range(0, 5 * block):  # any run, wherever it begins
        run = numbers[first : first + block]
        counts = Counter(reader.read(run[group], np.zeros(len(group), int), 0).variant for group in reader.groups(run))
        assert len(counts) == len(shares)
        assert [len(run[g]) for g in reader.groups(run)] == shares
    numbers = np.arange(reader.rows_per_pass)
    texts = {}
    for group in reader.groups(numbers):
        rows = reader.read(numbers[group], np.zeros(len(group), int), 0, pad=V.pad)
        batch = collate(objective, rows)
        mode = objective.table[rows.variant].mode
        for row, number in enumerate(numbers[group].tolist()):
            parts = [([t for t in s if t != V.pad], [t for t in w if t != IGNORE]) for s, w in pieces(batch, row)]
            texts[number] = [t for s, w in parts for t in restored(s, w, mode)]
    assert [t for number in sorted(texts) for t in texts[number]] == [t for d in documents for t in d]


def test_too_few_sentinels_name_the_denoiser_and_what_would_do():
    hundred = with_modes(100)
    with pytest.raises(UserError) as fault:
        build("denoisers").variants(hundred, 512)
    assert "'NLG 3 at 0.5' needs 127 sentinels" in fault.value.message
    assert "--sentinels 127" in fault.value.hint
    longest = int(fault.value.hint.split("at most ")[1].split()[0])
    build("denoisers").variants(hundred, longest)
    with pytest.raises(UserError):
        build("denoisers").variants(hundred, longest + 1)
    build("denoisers").variants(hundred, 256)
    build("denoisers", {"table": "teaching"}).variants(hundred, 512)


def test_a_missing_mode_token_is_named_before_any_work():
    bare = replace(V, further={m: V.further[m] for m in ("[NLU]", "[NLG]")})
    with pytest.raises(UserError, match=r"\[S2S\]"):
        build("denoisers").variants(bare, 256)
    build("denoisers", {"modes": False}).variants(bare, 256)


@pytest.mark.parametrize(
    ("table", "length", "part"),
    [
        ("ul2", 3, "fit"),
        ("teaching", 8, "at least"),
        ([{"mode": "[S2S]", "kind": "prefix"}], 5, "at least 6"),
        ([{"mode": "[X]", "mean_span_length": (12, 64), "rate": 0.15}], 40, "too short to hide a span of 12"),
    ],
)
def test_a_length_that_cannot_work_is_refused(table, length, part):
    with pytest.raises(UserError, match=part):
        build("denoisers", {"table": table}).variants(V, length)


def test_a_row_too_short_for_a_span_is_told_the_length_that_would_do():
    options = {"table": [{"mode": "[X]", "mean_span_length": (12, 64), "rate": 0.15}]}
    with pytest.raises(UserError) as fault:
        build("denoisers", options).variants(V, 40)
    least = int(fault.value.hint.split("at least ")[1].split()[0])
    build("denoisers", options).variants(V, least)
    with pytest.raises(UserError):
        build("denoisers", options).variants(V, least - 1)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"table": "ul3"}, "Did you mean 'ul2'?"),
        ({"table": []}, "table"),
        ({"table": 3}, "table"),
        ({"table": [{"mean_span_length": 3.0}]}, "table.0.mode"),
        ({"table": [{"mode": "[Q]", "mean_span_length": 3.0}]}, "[NLU]"),
        ({"table": [{"mode": "[R]", "mean_span_lenght": 3.0}]}, "Did you mean 'mean_span_length'?"),
        ({"table": [{"mode": "[R]"}]}, "a mean of at least 1"),
        ({"table": [{"mode": "[R]", "mean_span_length": 0.5}]}, "a mean of at least 1"),
        ({"table": [{"mode": "[R]", "mean_span_length": [5, 2]}]}, "low ≤ high"),
        ({"table": [{"mode": "[R]", "mean_span_length": [0, 2]}]}, "1 ≤ low"),
        ({"table": [{"mode": "[R]", "mean_span_length": [2.5, 4]}]}, "[low, high]"),
        ({"table": [{"mode": "[R]", "mean_span_length": "long"}]}, "[low, high]"),
        ({"table": [{"mode": "[R]", "mean_span_length": 3.0, "rate": 1.0}]}, "rate"),
        ({"table": [{"mode": "[R]", "mean_span_length": 3.0, "weight": 0}]}, "weight"),
        ({"table": [{"mode": "[S]", "kind": "prefix", "mean_span_length": 3.0}]}, "has no spans"),
        ({"table": [{"mode": "[S]", "kind": "prefix", "rate": 0.6}]}, "at most one half"),
        ({"table": [{"mode": "[R]", "mean_span_length": 3.0}] * 2}, "two denoisers are called 'R 3 at 0.15'"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(options, part):
    with pytest.raises(UserError) as fault:
        build("denoisers", options)
    assert part in str(fault.value)


def test_a_table_may_be_written_in_toml_and_comes_back_from_a_record():
    wanted = {"table": [{"mode": "[R]", "mean_span_length": [3, 8]}, {"mode": "[S2S]", "kind": "prefix", "rate": 0.25}]}
    values = {"objective": {"name": "denoisers", **wanted}}
    read = apply_overrides({}, [line for line in write_toml(wanted).splitlines() if line])
    objective = build("denoisers", read)
    assert objective == build("denoisers", wanted)
    assert [row.title for row in objective.table] == ["R 3-8 at 0.15", "S2S prefix at 0.25"]
    assert build("denoisers", objective.model_dump(mode="json")) == objective
    assert values["objective"]["name"] == objective.name


def test_the_presets_are_the_published_table_and_the_tutorials():
    ul2 = build("denoisers").table
    assert [(row.mean_span_length, row.rate) for row in ul2[:6]] == UL2
    assert [row.mode for row in ul2] == ["[NLU]"] * 2 + ["[NLG]"] * 4 + ["[S2S]"]
    assert (ul2[6].kind, ul2[6].rate) == ("prefix", 0.25)
    assert len({row.weight for row in ul2}) == 1
    teaching = build("denoisers", {"table": "teaching"}).table
    assert [(r.mode, r.mean_span_length, r.rate, r.weight) for r in teaching] == [
        ("[R]", (3, 8), 0.15, 0.5),
        ("[S]", (1, 3), 0.15, 0.25),
        ("[X]", (12, 64), 0.5, 0.25),
    ]


def test_names_may_be_given_and_the_layout_says_the_architecture():
    objective = build("denoisers", {"table": [{"name": "gaps", "mode": "[R]", "mean_span_length": 3}]})
    assert [v.name for v in objective.variants(V, 64)] == ["gaps"]
    assert objective.supported_architectures() == ("encoder_decoder",)
    assert build("denoisers", {"layout": "prefix"}).supported_architectures() == ("decoder",)
    assert (objective.frame(V).begin, objective.frame(V).end, objective.frame(V).lead) == (None, None, None)
