"""What holds for every objective: pure, stateless, int32, and with nothing to be read off. See contract.py."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.unit.objectives.contract import (
    CASES,
    FIRST_TEXT,
    LENGTH,
    Case,
    arrays,
    batches,
    found_tokens,
    reachable,
    source_tokens,
    unique_split,
    vocabulary,
)

from pretextlm.batch import IGNORE
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.loader import Loader
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import OBJECTIVES, build
from pretextlm.training.forward import Forward
from pretextlm.training.validation import evaluation_batches

V = vocabulary()
SPLITS = {
    "plain": unique_split(V, plain=60),
    "pairs": unique_split(V, pairs=120),
    "both": unique_split(V, plain=40, pairs=80),
}


def each(wanted=lambda case: True):
    """The test for every case that promises what it checks."""
    return pytest.mark.parametrize("case", [case for case in CASES if wanted(case)], ids=str)


every_case = each()


def split_for(case: Case):
    return SPLITS[case.text]


def read(case: Case, ordinals: np.ndarray, seed: int = 1):
    return batches(case.objective, split_for(case), V, ordinals, seed)


def by_example(found) -> dict[int, dict[str, np.ndarray]]:
    """Example id → its rows of all arrays."""
    rows = {}
    for _, batch in found:
        for place, example in enumerate(batch.example_ids.tolist()):
            assert example not in rows
            rows[example] = {name: array[place] for name, array in arrays(batch).items()} | {"kind": batch.attention}
    return rows


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_registered_objective_is_among_the_cases():
    assert {case.name for case in CASES} == set(OBJECTIVES)


@every_case
def test_corrupting_changes_no_input(case):
    objective = case.objective
    for rows, _ in read(case, np.arange(24)):
        rng = CounterRNG.of(1, 0, rows.example_ids)
        before, keys = copy.deepcopy(rows), rng.keys.copy()
        for array in vars(rows).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        objective.collate(rows, V, rng)
        for name, value in vars(before).items():
            assert np.array_equal(getattr(rows, name), value), name
        assert (rng.keys == keys).all()


@every_case
def test_a_row_comes_out_the_same_alone_or_in_any_batch(case):
    whole = by_example(read(case, np.arange(24)))
    assert len(whole) == 24
    for which in (np.array([5]), np.arange(24)[::-1].copy(), np.array([3, 17, 4]), np.arange(7, 20)):
        for example, row in by_example(read(case, which)).items():
            assert same(row, whole[example])


@every_case
def test_any_number_of_workers_and_ranks_and_any_size_of_batch_give_the_same_rows(case):
    objective = case.objective

    def step(loader, first, count, size):
        return by_example([(None, batch) for batch in loader.step(first, count, size)])

    def loader(workers=1):
        reader = objective.reader(split_for(case), V, LENGTH)
        return Loader(
            reader, lambda rows, rng: objective.collate(rows, V, rng), 3, workers, objective.noise_period, 1000.0
        )

    whole = step(loader(), 10, 12, 12)
    for size in (1, 5):
        small = step(loader(), 10, 12, size)
        assert all(same(whole[key], small[key]) for key in whole)
    with loader(workers=3) as many:
        (first,) = [next(many.steps(10, 12, 12))]
        threaded = by_example([(None, batch) for batch in first])
    assert all(same(whole[key], threaded[key]) for key in whole)
    ranks = [step(loader(), 10 + 4 * rank, 4, 4) for rank in range(3)]
    together = {key: row for rank in ranks for key, row in rank.items()}
    assert whole.keys() == together.keys()
    assert all(same(whole[key], together[key]) for key in whole)


@each(lambda case: case.draws)
def test_a_new_epoch_or_seed_draws_anew_and_the_same_key_does_not(case):
    objective = case.objective

    def drawn(rows, seed, epoch):
        return arrays(objective.collate(rows, V, CounterRNG.of(seed, epoch, rows.example_ids)))

    def differ(one, other):
        fields = [name for name in one if name != "example_ids"]
        return np.any([(one[name] != other[name]).reshape(len(one[name]), -1).any(axis=1) for name in fields], axis=0)

    changed, total = 0, 0
    for rows, _ in read(case, np.arange(24)):
        first = drawn(rows, 1, 0)
        assert not differ(first, drawn(rows, 1, 0)).any()
        for seed, epoch in ((1, 1), (2, 0), (0, 1)):
            changed += np.count_nonzero(differ(first, drawn(rows, seed, epoch)))
            total += len(rows)
    assert changed >= case.draws * total  # some are equal: short texts have few masks, some rows none


@every_case
def test_draws_use_no_global_generator(case):
    np.random.seed(0)  # noqa: NPY002 - the state that must not matter
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = by_example(read(case, np.arange(8)))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    second = by_example(read(case, np.arange(8)))
    assert all(same(first[key], second[key]) for key in first)


@every_case
def test_batches_are_contiguous_int32_of_the_declared_widths(case):
    objective = case.objective
    variants = objective.variants(V, LENGTH)
    for rows, batch in read(case, np.arange(24)):
        variant = variants[rows.variant]
        for name, array in arrays(batch).items():
            assert array.dtype == (np.int64 if name == "example_ids" else np.int32), name
            assert array.flags.c_contiguous, name
        assert batch.input_ids.shape == (len(rows), variant.length)
        assert variant.length <= LENGTH
        if variant.decoder_length:
            assert batch.decoder_labels.shape == batch.decoder_input_ids.shape == (len(rows), variant.decoder_length)
        else:
            assert batch.labels.shape == batch.input_ids.shape
            assert batch.decoder_input_ids is None
        assert (batch.example_ids == rows.example_ids).all()


@each(lambda case: not case.padded)
def test_full_rows_hold_no_padding(case):
    for _, batch in read(case, np.arange(24)):
        for segments in (batch.segment_ids, batch.decoder_segment_ids):
            assert segments is None or (segments >= 0).all()
        assert not (batch.input_ids == V.pad).any()


@every_case
def test_counts_are_the_labelled_positions(case):
    objective = case.objective
    for _, batch in read(case, np.arange(24)):
        counts = objective.counts(batch)
        assert all(type(count) is int and count >= 0 for count in counts.values())
        if "lm" in counts:
            assert counts["lm"] == np.count_nonzero(batch.targets != IGNORE) > 0


@every_case
def test_the_source_is_in_input_and_target_together_and_nothing_else_is(case):
    """Every token of the text read can be recovered, but for what a cut to the row's width promises to lose."""
    lost = total = 0
    for rows, batch in read(case, np.arange(48)):
        for source, found in zip(source_tokens(rows), found_tokens(batch), strict=True):
            lost += len(source - found)
            total += len(source)
            if not case.open_answers:  # random replacements come from anywhere
                assert found <= source
    look_ahead = 48 if case.name == "mixed_visibility" else 0  # of masked rows: the next row reads it again
    assert lost <= (0.2 * total if case.name == "fill_in_middle" else look_ahead)


@every_case
def test_no_label_where_there_must_be_none(case):
    """Neither on padding, in training or at the end of a pass, nor on what is not text in an input that hides text."""
    objective = case.objective
    reader = objective.reader(split_for(case), V, LENGTH)
    for batch in evaluation_batches(reader, objective, V, 10**6, seed=5):
        for labels, segments in ((batch.labels, batch.segment_ids), (batch.decoder_labels, batch.decoder_segment_ids)):
            if labels is not None and segments is not None:
                assert (labels[segments < 0] == IGNORE).all()
            if labels is not None:
                assert ((labels == IGNORE) | (labels >= 0)).all()
                assert not (labels == V.pad).any()
        if batch.labels is not None and batch.attention == "bidirectional":
            assert (batch.labels[batch.labels != IGNORE] >= FIRST_TEXT).all()


@every_case
def test_padding_is_seen_by_nothing(case):
    objective = case.objective
    reader = objective.reader(split_for(case), V, LENGTH)
    for batch in evaluation_batches(reader, objective, V, 10**6, seed=5):
        if batch.segment_ids is None or not (batch.segment_ids < 0).any():
            continue
        row = int((batch.segment_ids < 0).any(axis=1).argmax())
        one = batch.map(lambda array, row=row: array[row : row + 1])
        padding = one.segment_ids[0] < 0
        seen, _ = reachable(one)
        predicts = one.targets[0] != IGNORE
        assert not seen[predicts][:, padding].any()


@each(lambda case: not case.open_answers)
def test_no_answer_can_be_read_off(case):
    """A position that predicts a token learns of no position that holds it, through any number of layers."""
    for _, batch in read(case, np.arange(12)):
        for row in range(len(batch.input_ids)):
            one = batch.map(lambda array, row=row: array[row : row + 1])
            inputs, decoder = reachable(one)
            labels = one.targets[0]
            answers = (labels >= FIRST_TEXT)[:, None]
            assert not (inputs & answers & (one.input_ids[0][None] == labels[:, None])).any()
            if decoder is not None:
                assert not (decoder & answers & (one.decoder_input_ids[0][None] == labels[:, None])).any()


NETWORKS = [
    pytest.param(case, architecture, id=f"{case}-{architecture}")
    for case in CASES
    for architecture in case.objective.supported_architectures()
]


class Forwards(Forward):
    """With a small random model in every frozen role, so that no run is needed."""

    def __init__(self, model, objective, config):
        super().__init__(model, build("masked"), torch.device("cpu"), torch.float32)
        self.models |= {role: small_model(config, objective) for role in objective.frozen_models()}


def small_model(config, objective, seed=0):
    model = Transformer(config, objective.heads(config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize(("case", "architecture"), NETWORKS)
def test_loss_and_gradients_do_not_depend_on_how_a_step_is_cut(case, architecture):
    """One batch a variant, or row by row: each term's total is the sum, its count what the batch says, none NaN."""
    objective = case.objective
    config = ModelConfig.parse(
        {
            "architecture": architecture,
            "vocab_size": V.size,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "type_vocab_size": objective.num_token_types(),
        }
    )
    model = small_model(config, objective)
    forward = Forwards(model, objective, config)
    results = []
    whole = [batch for _, batch in read(case, np.arange(8))]
    alone = [batch.map(lambda a, r=r: a[r : r + 1].copy()) for batch in whole for r in range(len(batch.input_ids))]
    for cut in (whole, alone):
        model.zero_grad()
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for batch in cut:
            expected = objective.counts(batch)
            terms = objective.step(forward, batch)
            assert {name: term.count for name, term in terms.items()} == expected
            for name, term in terms.items():
                assert torch.isfinite(term.total)
                assert term.count or not term.total.item()
                totals[name] = totals.get(name, 0.0) + term.total.item()
                counts[name] = counts.get(name, 0) + term.count
            sum(term.coefficient * term.total / 1000 for term in terms.values()).backward()
        results.append((totals, counts, {n: p.grad for n, p in model.named_parameters()}))
    (totals, counts, gradients), (other_totals, other_counts, other_gradients) = results
    assert counts == other_counts
    assert totals == pytest.approx(other_totals, rel=1e-5)
    for name, gradient in gradients.items():
        if gradient is None:
            assert other_gradients[name] is None or not other_gradients[name].any(), name
        else:
            torch.testing.assert_close(gradient, other_gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_objectives_describe_themselves(name):
    cls = OBJECTIVES[name]
    assert cls.name == name
    assert "https://" in cls.paper
    assert cls.summary.endswith(".")
    assert set(cls.parse({}).supported_architectures()) <= set(cls.architectures)
    assert all(field.description for field in cls.model_fields.values())
