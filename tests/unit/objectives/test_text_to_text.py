"""Text to text: sources in, targets out, pairs apart, shares exact."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from tests.unit.data.pair_splits import random_pairs, split_with_pairs
from tests.unit.objectives.hand_rows import framed, keyed, rows_of, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.loader import Loader
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.sentinel_layout import SentinelLayout

V = vocabulary()
PAIRS = random_pairs(120)
PLAIN = [np.random.default_rng(i).integers(30, 390, 40).tolist() for i in range(30)]
SPLIT = split_with_pairs([PAIRS], PLAIN)


def objective(**options):
    return build("text_to_text", {"unsupervised": 0.0, **options})


def batch_of(objective, length=40, split=SPLIT, count=None):
    reader = objective.reader(split, V, length)
    numbers = np.arange(reader.rows_per_pass if count is None else count)
    rows = reader.read(numbers, np.zeros(len(numbers), np.int64), 1)
    return rows, objective.collate(rows, V, keyed(rows))


def hand_rows(*pairs, width):
    """One row of these pairs, </s> after each text."""
    tokens, types, segments, positions = [], [], [], []
    for number, (source, target) in enumerate(pairs):
        parts = [*source, V.eos], [*target, V.eos]
        tokens += [*parts[0], *parts[1]]
        types += [0] * len(parts[0]) + [1] * len(parts[1])
        segments += [number] * (len(parts[0]) + len(parts[1]))
        positions += range(len(parts[0]) + len(parts[1]))
    rest = width - len(tokens)
    columns = ((tokens, V.pad), (segments, -1), (positions, 0), (types, 0))
    flat = [np.array([*values, *[fill] * rest], np.int32) for values, fill in columns]
    row = rows_of(flat[0][None], segments=flat[1][None])
    return dataclasses.replace(row, position_ids=flat[2], token_type_ids=flat[3])


def test_golden_encoder_decoder():
    rows = hand_rows(([30, 31], [40]), ([32], [41, 42]), width=14)
    batch = objective().collate(rows, V, keyed(rows))
    p, e = V.pad, V.eos
    assert batch.input_ids.tolist() == [[30, 31, e, 32, e, p, p, p]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1, 1, -1, -1, -1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]
    assert batch.decoder_input_ids.tolist() == [[p, 40, p, 41, 42, p, p, p]]
    assert batch.decoder_labels.tolist() == [[40, e, 41, 42, e, *[IGNORE] * 3]]
    assert batch.decoder_segment_ids.tolist() == [[0, 0, 1, 1, 1, -1, -1, -1]]
    assert batch.decoder_position_ids.tolist() == [[0, 1, 0, 1, 2, 0, 0, 0]]
    assert batch.labels is None


def test_golden_prefix():
    rows = hand_rows(([30, 31], [40]), ([32], [41, 42]), width=12)
    batch = objective(layout="prefix").collate(rows, V, keyed(rows))
    i, e = IGNORE, V.eos
    assert batch.input_ids.tolist() == [[30, 31, e, 40, e, 32, e, 41, 42, e, V.pad, V.pad]]
    assert batch.labels.tolist() == [[i, i, 40, e, i, i, 41, 42, e, i, i, i]]
    assert batch.prefix.tolist() == [[3] * 5 + [2] * 5 + [0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0]]
    assert batch.attention == "prefix"


def recovered(batch, layout):
    """Every pair of a batch, from the arrays that the model sees and is trained on."""
    found = []
    for b in range(len(batch.input_ids)):
        segments = batch.segment_ids[b]
        for segment in range(segments.max() + 1):
            mine = segments == segment
            if layout == "encoder_decoder":
                source = batch.input_ids[b][mine].tolist()
                target = batch.decoder_labels[b][batch.decoder_segment_ids[b] == segment].tolist()
            else:
                source = batch.input_ids[b][mine & (batch.position_ids[b] < batch.prefix[b])].tolist()
                target = [label for label in batch.labels[b][mine].tolist() if label != IGNORE]
            assert source.pop() == target.pop() == V.eos
            found.append((source, target))
    return found


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
@pytest.mark.parametrize("length", [32, 61])
def test_every_pair_comes_back_from_source_and_labels(layout, length):
    _, batch = batch_of(objective(layout=layout), length)
    assert sorted(recovered(batch, layout)) == sorted(PAIRS)


@pytest.mark.parametrize("target_length", [0, 20, 64])
def test_widths_are_those_declared_and_the_last_place_of_both_rows_is_padding(target_length):
    model = objective(target_length=target_length)
    (variant,) = model.variants(V, 40)
    assert (variant.length, variant.decoder_length) == (40, target_length or 40)
    rows, batch = batch_of(model)
    assert rows.width == variant.raw
    assert batch.input_ids.shape == batch.segment_ids.shape == batch.position_ids.shape == (len(rows), 40)
    shape = (len(rows), target_length or 40)
    for array in (batch.decoder_input_ids, batch.decoder_labels, batch.decoder_segment_ids, batch.decoder_position_ids):
        assert array.shape == shape
        assert array.dtype == np.int32
        assert array.flags.c_contiguous
    assert (batch.segment_ids[:, -1] == -1).all()
    assert (batch.decoder_segment_ids[:, -1] == -1).all()
    assert sorted(recovered(batch, "encoder_decoder")) == sorted(PAIRS)


def test_both_rows_hold_the_same_segments_in_the_same_order():
    _, batch = batch_of(objective())
    for source, target in zip(batch.segment_ids, batch.decoder_segment_ids, strict=True):
        assert [k for k, _ in itertools.groupby(source)] == [k for k, _ in itertools.groupby(target)]


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_no_label_is_on_a_source_or_on_padding(layout):
    rows, batch = batch_of(objective(layout=layout))
    targets = sum(len(target) + 1 for _, target in PAIRS)
    assert objective(layout=layout).counts(batch) == {"lm": targets}
    if layout == "prefix":
        labelled = batch.labels != IGNORE
        types, last = rows.matrix(rows.token_type_ids), batch.position_ids == batch.prefix - 1
        assert (labelled <= ((types == 1) | last)).all()  # the source's </s> predicts the target's first token
        assert not (labelled & (batch.segment_ids < 0)).any()
    else:
        assert ((batch.decoder_labels != IGNORE) == (batch.decoder_segment_ids >= 0)).all()


def test_pairs_of_a_row_see_neither_each_other_nor_padding():
    _, batch = batch_of(objective())
    own = may_attend(batch.segment_ids, batch.segment_ids)
    cross = may_attend(batch.decoder_segment_ids, batch.segment_ids)
    decoder = may_attend(
        batch.decoder_segment_ids,
        batch.decoder_segment_ids,
        batch.decoder_position_ids,
        batch.decoder_position_ids,
        attention="causal",
    )
    for b in range(len(batch.input_ids)):
        encoder_of = [set(np.flatnonzero(batch.segment_ids[b] == s)) for s in range(batch.segment_ids[b].max() + 1)]
        for s, inside in enumerate(encoder_of):
            targets = np.flatnonzero(batch.decoder_segment_ids[b] == s)
            for place in inside:
                assert set(np.flatnonzero(own[b, place])) == inside
            for nth, place in enumerate(targets):
                assert set(np.flatnonzero(cross[b, place])) == inside
                assert np.flatnonzero(decoder[b, place]).tolist() == targets[: nth + 1].tolist()
    assert cross.any(axis=2).all()  # padding too sees something, else its attention would not be a number


def test_a_prefix_row_sees_its_own_source_whole_and_its_target_so_far():
    _, batch = batch_of(objective(layout="prefix"))
    seen = may_attend(
        batch.segment_ids, batch.segment_ids, batch.position_ids, batch.position_ids, batch.prefix, "prefix"
    )
    for b in range(len(batch.input_ids)):
        for place in np.flatnonzero(batch.segment_ids[b] >= 0):
            mine = np.flatnonzero(batch.segment_ids[b] == batch.segment_ids[b, place])
            reach = max(batch.prefix[b, place], batch.position_ids[b, place] + 1)
            assert np.flatnonzero(seen[b, place]).tolist() == mine[:reach].tolist()


def test_a_row_comes_out_the_same_alone_or_in_any_batch():
    for layout in ("encoder_decoder", "prefix"):
        model = objective(layout=layout)
        reader = model.reader(SPLIT, V, 40)
        _, whole = batch_of(model)
        for number in (0, 5, reader.rows_per_pass - 1):
            rows = reader.read(np.array([number]), np.array([0]), 9)
            alone = model.collate(rows, V, keyed(rows))
            for field in dataclasses.fields(alone):
                value = getattr(alone, field.name)
                if isinstance(value, np.ndarray):
                    assert (value == getattr(whole, field.name)[number]).all(), field.name


def test_rows_are_not_changed_and_a_row_of_padding_alone_works():
    rows = hand_rows(([30, 31], [40]), width=14)
    empty = dataclasses.replace(
        rows,
        tokens=np.full(14, V.pad, np.int32),
        segment_ids=np.full(14, -1, np.int32),
        position_ids=np.zeros(14, np.int32),
        token_type_ids=np.zeros(14, np.int32),
    )
    for layout in ("encoder_decoder", "prefix"):
        for some in (rows, empty):
            for array in vars(some).values():
                if isinstance(array, np.ndarray):
                    array.flags.writeable = False
        batch = objective(layout=layout).collate(empty, V, keyed(empty))
        assert objective(layout=layout).counts(batch) == {"lm": 0}
        assert (batch.segment_ids == -1).all()
        assert objective(layout=layout).counts(objective(layout=layout).collate(rows, V, keyed(rows))) == {"lm": 2}


@pytest.mark.parametrize("share", [0.5, 0.25, 0.8])
@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_the_unsupervised_share_of_the_rows_is_exact(share, layout):
    model = build("text_to_text", {"unsupervised": share, "layout": layout})
    variants = model.variants(V, 40)
    assert [variant.name for variant in variants] == ["pairs", "main"]
    assert [variant.weight for variant in variants] == pytest.approx([1 - share, share])
    loader = Loader(model.reader(SPLIT, V, 40), lambda rows, rng: model.collate(rows, V, rng), seed=4)
    for first in (0, 20, 400):
        batches = loader.step(first, 20, 64)
        pairs = [len(batch.input_ids) for batch in batches if batch.segment_ids is not None]
        plain = [len(batch.input_ids) for batch in batches if batch.segment_ids is None]
        assert pairs == [round(20 * (1 - share))]
        assert plain == [round(20 * share)]


def test_plain_rows_are_what_span_corruption_makes_of_the_plain_documents():
    model = build("text_to_text", {"unsupervised": 0.5})
    alone = build("span_corruption")
    reader, own = model.reader(SPLIT, V, 40), alone.reader(SPLIT.plain(), V, 40)
    numbers, epochs = reader.shuffled(np.arange(40), 2)
    (group,) = [g for g in reader.groups(numbers) if reader.read(numbers[g], epochs[g], 2).variant == 1]
    rows = reader.read(numbers[group], epochs[group], 2)
    expected, own_epochs = own.shuffled(np.arange(20), 2)
    assert (rows.tokens == own.read(expected, own_epochs, 2).tokens).all()
    key = keyed(rows)
    batch = model.collate(rows, V, key)
    same = alone.collate(dataclasses.replace(rows, variant=0), V, key)
    assert (batch.input_ids == same.input_ids).all()
    assert (batch.decoder_labels == same.decoder_labels).all()


def test_several_denoisers_can_share_the_plain_documents():
    table = [
        {"mode": "[NLU]", "rate": 0.15, "mean_span_length": 3.0},
        {"mode": "[S2S]", "kind": "prefix", "rate": 0.25},
    ]
    denoiser = {"name": "denoisers", "table": table}
    model = build("text_to_text", {"unsupervised": 0.5, "denoiser": denoiser})
    vocab = dataclasses.replace(V, further={"[NLU]": 390, "[S2S]": 391}, special=V.special | {390, 391})
    variants = model.variants(vocab, 40)
    assert len(variants) == 3
    assert [variant.weight for variant in variants] == pytest.approx([0.5, 0.25, 0.25])
    reader = model.reader(SPLIT, vocab, 40)
    numbers, epochs = reader.shuffled(np.arange(40), 2)
    sizes = []
    for variant, group in enumerate(reader.groups(numbers)):
        rows = reader.read(numbers[group], epochs[group], 2)
        assert rows.variant == variant
        batch = model.collate(rows, vocab, CounterRNG.of(2, epochs[group], rows.example_ids))
        assert batch.decoder_labels.shape[1] == variants[variant].decoder_length
        sizes.append(len(group))
    assert sizes == [20, 10, 10]


def test_text_shown_without_a_reader_is_plain_text():
    for rows in (rows_of(text(3, 40, V)), framed(3, 40, V)):
        batch = objective().collate(rows, V, keyed(rows))
        assert batch.decoder_labels is not None


def test_a_store_that_lacks_what_has_a_share_is_refused():
    with pytest.raises(UserError, match=r"no pairs, of which text_to_text reads a share of 0\.7") as caught:
        build("text_to_text", {"unsupervised": 0.3}).reader(split_with_pairs([], PLAIN), V, 40)
    assert "source=FIELD&target=FIELD" in caught.value.hint
    only_pairs = split_with_pairs([PAIRS])
    with pytest.raises(UserError, match=r"no plain documents, of which text_to_text reads a share of 0\.5") as caught:
        build("text_to_text").reader(only_pairs, V, 40)
    assert "unsupervised=0" in caught.value.hint
    assert objective().reader(only_pairs, V, 40).rows_per_pass > 0
    assert objective(unsupervised=1.0).reader(split_with_pairs([], PLAIN), V, 40).rows_per_pass > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "prefix", "target_length": 20}, "target_length"),
        ({"layout": "prefix", "denoiser": {"name": "span_corruption", "layout": "encoder_decoder"}}, "denoiser.layout"),
        ({"denoiser": "masked"}, "'masked'"),
        ({"temperature": 0.5}, "temperature"),
        ({"unsupervised": 1.5}, "unsupervised"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        build("text_to_text", options)


def test_rows_that_are_too_short_are_refused():
    with pytest.raises(UserError, match="4"):
        objective().variants(V, 3)
    with pytest.raises(UserError, match="target_length"):
        objective(target_length=3).variants(V, 40)


def test_options_survive_a_recipe():
    for options in ({}, {"layout": "prefix", "denoiser": "prefix"}, {"limit": 5, "denoiser": {"name": "denoisers"}}):
        model = build("text_to_text", options)
        assert build("text_to_text", model.model_dump(mode="json")) == model
        assert model.denoiser.layout == model.layout


def test_it_says_what_it_reads():
    assert objective().reads_pairs
    assert not objective(unsupervised=1.0).reads_pairs
    assert objective().variant_names() == ["pairs"]
    assert build("text_to_text").variant_names() == [v.name for v in build("text_to_text").variants(V, 40)]


def test_suits_and_fills_follow_layout_and_share():
    assert objective().supported_architectures() == ("encoder_decoder",)
    assert objective(layout="prefix").supported_architectures() == ("decoder",)
    assert objective().blank_layout(V, "encoder_decoder") is None
    assert isinstance(build("text_to_text").blank_layout(V, "encoder_decoder"), SentinelLayout)


def test_sources_are_mixed_by_the_reader():
    split = split_with_pairs([PAIRS[:100], PAIRS[100:]])
    _, batch = batch_of(objective(limit=20), split=split)
    found = recovered(batch, "encoder_decoder")
    assert len([pair for pair in found if pair in PAIRS[:100]]) == 20
    assert len([pair for pair in found if pair in PAIRS[100:]]) == 20


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_a_model_answers_a_pair_the_same_whatever_stands_beside_it(layout):
    import torch
    from tests.builders import make_model

    from pretextlm.model.model_inputs import prepare

    architecture = "encoder_decoder" if layout == "encoder_decoder" else "decoder"
    model = make_model(architecture=architecture, vocab_size=400)

    def logits(*pairs):
        rows = hand_rows(*pairs, width=30)
        batch = objective(layout=layout).collate(rows, V, keyed(rows))
        outputs = model(prepare(batch, model.config, torch.device("cpu"), torch.float32))
        outputs.cross_entropy().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        return outputs.logits_NV.detach()

    pair, other, longer = ([30, 31, 32], [40, 41]), ([33], [42]), ([34, 35, 36], [43, 44, 45])
    alone = logits(pair)
    assert torch.isfinite(alone).all()
    torch.testing.assert_close(logits(other, pair)[2:], alone)
    torch.testing.assert_close(logits(longer, pair)[4:], alone)
    torch.testing.assert_close(logits(pair, longer)[:3], alone)
