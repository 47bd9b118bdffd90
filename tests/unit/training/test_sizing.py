"""Sizes for budgets: they grow with the budget, spend it, and are decided once."""

from __future__ import annotations

import itertools
import json

import pytest
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.objectives.registry import build
from pretextlm.training import throughput
from pretextlm.training.auto_size import size_for, with_size
from pretextlm.training.budget_text import parse_budget
from pretextlm.training.corpus import open_corpus
from pretextlm.training.initial_weights import resolve_recipe
from pretextlm.training.plan import make_plan
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import choose_device
from pretextlm.training.sizing import (
    FITS,
    LARGEST,
    OPTIONS,
    REGULARIZED,
    SHAPES,
    choose_size,
    fastest_size,
    size_for_tokens,
    size_of,
)
from pretextlm.training.throughput import measured_throughput, named_device
from pretextlm.training.trial_batch import trial_batch

CLASSIC = ("causal", "masked", "span_corruption")


def objective(name: str):
    return build(name, OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("sizing") / "store")


@pytest.mark.parametrize("name", [*CLASSIC, "denoising", "prefix", "replaced_token"])
def test_a_larger_budget_never_gets_a_smaller_model_batch_or_vocabulary(name):
    sizes = [choose_size(objective(name), 10 ** (exponent / 2)) for exponent in range(22, 44)]
    for small, large in itertools.pairwise(sizes):
        assert small.weights <= large.weights
        assert small.model["hidden_size"] <= large.model["hidden_size"]
        assert small.training["batch_tokens"] <= large.training["batch_tokens"]
        assert small.training["learning_rate"] >= large.training["learning_rate"]
        assert (small.vocab_size, small.length) <= (large.vocab_size, large.length)
        assert small.tokens < large.tokens
    assert sizes[-1].weights > 1000 * sizes[0].weights
    assert sizes[0].loss is None
    assert sizes[0].extrapolated


@pytest.mark.parametrize("name", CLASSIC)
def test_the_run_reads_the_tokens_that_the_size_says(store, name):
    size = choose_size(objective(name), 1e11, store.vocabulary.size)
    values = {
        "data": {"store": str(store.path), "length": size.length},
        "objective": {"name": name, **OPTIONS.get(name, {})},
        "model": size.model,
        "training": {"budget_flops": size.flops, **size.training},
    }
    recipe, corpus = open_corpus(Recipe.load(values))
    plan = make_plan(recipe, corpus, choose_device("cpu"))
    assert plan.total_rows * plan.tokens_per_row == pytest.approx(size.tokens, rel=0.05)
    for_tokens = size_for_tokens(objective(name), size.tokens, store.vocabulary.size)
    assert for_tokens.tokens == pytest.approx(size.tokens, rel=0.02)
    assert for_tokens.model == choose_size(objective(name), for_tokens.flops, store.vocabulary.size).model


def test_the_expected_loss_falls_and_is_said_where_it_was_measured():
    for name in CLASSIC:
        fit = FITS[name]
        losses = [choose_size(objective(name), c).loss for c in (fit.lowest, 2 * fit.lowest, 4 * fit.lowest)]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] > fit.floor
    assert choose_size(objective("causal"), 2e12, vocab_size=5000).loss is None


@pytest.mark.parametrize("name", CLASSIC)
def test_the_best_shape_is_that_of_the_lowest_expected_loss_and_speed_moves_it(name):
    fit, flops = FITS[name], 5e12
    best = choose_size(objective(name), flops)
    for shape in SHAPES[:LARGEST]:
        other = size_of(objective(name), shape, flops, 0, 0)
        assert fit.loss(best.weights, best.tokens) <= fit.loss(other.weights, other.tokens)
    even = fastest_size(objective(name), 100, lambda size: flops / 100)
    assert even == best
    large_ones_are_faster = fastest_size(objective(name), 100, lambda size: flops / 100 * size.weights / best.weights)
    assert large_ones_are_faster.weights > best.weights
    assert fastest_size(objective(name), 1e6, lambda size: 1e13).flops == 1e19


def test_a_text_that_is_read_often_gets_weight_decay(store):
    text = store.train.num_tokens
    few = size_for(objective("masked"), "epochs", 3, store)
    many = size_for(objective("masked"), "epochs", 9, store)
    assert few.epochs(text) == pytest.approx(3, rel=0.02)
    assert not REGULARIZED.keys() & few.training.keys()
    assert REGULARIZED.items() <= many.training.items()


def recipe(store, **training):
    return {"objective": "causal", "data": {"store": str(store.path)}, "model": "auto", "training": training}


def test_a_recipe_with_auto_has_numbers_and_given_values_stay(store):
    found = resolve_recipe(recipe(store, budget_flops=1e12, learning_rate=0.5))
    chosen = choose_size(build("causal", {}), 1e12, store.vocabulary.size)
    assert found.model.hidden_size == chosen.model["hidden_size"]
    assert found.training.batch_tokens == chosen.training["batch_tokens"]
    assert found.training.learning_rate == 0.5
    wide = recipe(store, budget_flops=1e12) | {"model": {"preset": "auto", "num_hidden_layers": 7}}
    assert resolve_recipe(wide).model.num_hidden_layers == 7


def test_a_resumed_run_keeps_the_size_that_was_chosen_on_another_machine(store, tmp_path):
    first = resolve_recipe(recipe(store, budget_flops=1e12))
    (tmp_path / "run").mkdir()
    first.save(tmp_path / "run" / "config.toml")
    again = with_size(recipe(store, budget_flops=1e15), tmp_path / "run")
    assert Recipe.load(again).model == first.model
    assert again["training"] == {
        "budget_flops": 1e15,
        **{k: getattr(first.training, k) for k in ("batch_tokens", "learning_rate", "weight_decay", "dropout")},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"budget_steps": 5}}, "cannot be sized for a budget in steps"),
        ({"training": {}}, "needs an objective, a store and one budget"),
        ({"data": {}}, "needs an objective, a store and one budget"),
    ],
)
def test_a_budget_that_says_no_size_is_refused(store, change, message):
    with pytest.raises(UserError, match=message):
        with_size(recipe(store, budget_flops=1e12) | change)


def test_a_recipe_object_has_no_size_that_is_still_open(store):
    with pytest.raises(UserError, match="chosen when a training begins"):
        Recipe.load(recipe(store, budget_flops=1e12))


def test_seconds_of_several_processes_are_refused(store, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="measures one process"):
        with_size(recipe(store, budget_seconds=60))


def test_a_measurement_is_kept_and_a_broken_cache_is_measured_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache" / "inductor"))
    monkeypatch.setattr(throughput, "PROBE_SECONDS", 0.01)
    table = {"architecture": "encoder_decoder", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    arguments = objective("span_corruption"), table, 512, 64, 4
    first = measured_throughput(*arguments)
    assert 1e6 < first < 1e15
    assert measured_throughput(*arguments) == first
    (file,) = (tmp_path / "cache").glob("*.json")
    assert len(json.loads(file.read_text())) == 1
    file.write_text("[1, 2")
    assert measured_throughput(*arguments) > 0
    assert len(json.loads(file.read_text())) == 1


def test_devices_have_names():
    assert named_device("H200").flops_per_second > named_device("a100").flops_per_second
    with pytest.raises(UserError, match="There is no device 'h2000'"):
        named_device("h2000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10min", ("seconds", 600)),
        ("1h30m", ("seconds", 5400)),
        ("90 s", ("seconds", 90)),
        ("1e14flops", ("flops", 1e14)),
        ("2e6 tokens", ("tokens", 2e6)),
        ("3epochs", ("epochs", 3)),
        ("0.5H", ("seconds", 1800)),
    ],
)
def test_budgets_are_written_as_people_do(text, expected):
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["", "10", "min", "10 years", "1e14", "0s", "-3min", "5min flops", "nan s"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UserError):
        parse_budget(text)


def test_a_trial_batch_is_of_the_width_and_the_vocabulary():
    batch, tokens = trial_batch(objective("masked"), 64, 1024, 6)
    assert batch.input_ids.shape == (6, 64)
    assert batch.input_ids.max() < 1024
    assert tokens == 63
