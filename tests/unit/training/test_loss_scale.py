"""Training in fp16: the scale follows torch's rule, changes no gradient, and its steps are not faults."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.training import loss_scale
from pretextlm.training.loss_scale import INITIAL, LEAST, begin_scaling, overflowed
from pretextlm.training.muon import orthogonalize
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import choose_dtype
from pretextlm.training.state import TrainerState
from pretextlm.training.trainer import Trainer


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def recipe(store, objective: str = "causal", **training) -> Recipe:
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 64},
            "objective": {"name": objective},
            "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "training": {"batch_tokens": 512, "dtype": "fp16", "log_every": 1, "validations": 1, **training},
        }
    )


def lines(run) -> list[dict]:
    timing = {"seconds", "tokens_per_second", "data_wait", "mfu", "memory"}
    return [{k: v for k, v in line.items() if k not in timing} for line in run.metrics() if line["kind"] == "train"]


def test_the_scale_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 5)
    theirs = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=5)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    state = TrainerState()
    begin_scaling(state, torch.float16)
    for fault in np.random.default_rng(0).random(60) < 0.15:
        theirs.scale(torch.zeros(1))  # creates its state
        parameter.grad = torch.tensor([math.inf if fault else 1.0])
        theirs.step(optimizer)
        theirs.update()
        assert overflowed(state, math.inf if fault else 1.0) == fault
        assert state.loss_scale == theirs.get_scale()
    assert 0 < state.overflows < 60


def test_other_types_have_no_scale():
    state = TrainerState(loss_scale=8.0, steps_at_scale=3)
    begin_scaling(state, torch.bfloat16)
    assert (state.loss_scale, state.steps_at_scale) == (0.0, 0)
    assert not overflowed(state, math.inf)


def test_the_scale_changes_no_gradient(store, tmp_path, monkeypatch):
    """In fp32 all powers of two are exact: the whole run is the same, whatever the scale."""

    def scaled(to: float):
        monkeypatch.setattr(
            "pretextlm.training.trainer.begin_scaling", lambda state, _: setattr(state, "loss_scale", to)
        )
        return pretrain(recipe(store, budget_steps=5, dtype="fp32"), tmp_path / str(to))

    runs = [scaled(to) for to in (0.0, 1.0, 1024.0)]
    plain, *others = (run.load_model().state_dict() for run in runs)
    for other in others:
        assert all(torch.equal(tensor, other[name]) for name, tensor in plain.items())
    norms = [[line["gradient_norm"] for line in lines(run)] for run in runs]
    assert norms[0] == norms[1] == norms[2]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["causal", "masked", "span_corruption"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_fp16_learns_what_fp32_learns(store, tmp_path, objective, optimizer):
    found = {}
    for dtype in ("fp16", "fp32"):
        chosen = recipe(store, objective, dtype=dtype, optimizer=optimizer, budget_steps=30)
        found[dtype] = lines(pretrain(chosen, tmp_path / dtype))
    half, single = ([line["loss"] for line in found[dtype]] for dtype in ("fp16", "fp32"))
    assert np.mean(half[-5:]) == pytest.approx(np.mean(single[-5:]), rel=0.03)
    assert np.mean(half[-5:]) < np.mean(half[:5]) - 0.3
    assert found["fp16"][-1]["loss_scale"] >= 256
    assert "loss_scale" not in found["fp32"][-1]


def test_a_step_that_overflows_is_left_out_and_counted_apart_and_a_resumed_run_is_the_same(
    store, tmp_path, monkeypatch
):
    original = Trainer.gradients

    def overflowing(self, batches, alone=False):
        found = original(self, batches, alone)
        if self.state.step in (2, 3):
            next(self.model.parameters()).grad.fill_(math.inf)
        return found

    monkeypatch.setattr(Trainer, "gradients", overflowing)
    whole = pretrain(recipe(store, budget_steps=8), tmp_path / "whole")
    scales = [line["loss_scale"] for line in lines(whole)]
    assert scales[4] == scales[1] / 4
    assert [line["overflows"] for line in lines(whole)][-1] >= 2
    cost = json.loads((whole.directory / "cost.json").read_text())
    assert cost["overflows"] >= 2
    assert cost["skipped"] == 0
    pretrain(recipe(store, budget_steps=5, cooldown=0.0, schedule="wsd"), tmp_path / "cut")
    cut = pretrain(recipe(store, budget_steps=8, cooldown=0.0), tmp_path / "cut", resume=True)
    once = pretrain(recipe(store, budget_steps=8, cooldown=0.0), tmp_path / "once")
    assert [line["loss_scale"] for line in lines(cut)] == [line["loss_scale"] for line in lines(once)]


def test_a_gradient_that_no_scale_makes_finite_is_a_fault(store, tmp_path, monkeypatch):
    original = Trainer.gradients

    def broken(self, batches, alone=False):
        found = original(self, batches, alone)
        next(self.model.parameters()).grad.fill_(math.nan)
        return found

    monkeypatch.setattr(Trainer, "gradients", broken)
    with pytest.raises(UserError, match="is not finite at step 17"):  # 16 halvings from 65,536 to 1
        pretrain(recipe(store, budget_steps=30), tmp_path / "run")
    assert 2.0**16 * LEAST == INITIAL


def test_muon_in_fp16_does_not_lose_small_gradients():
    gradients = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = orthogonalize(gradients, torch.float32)
    for size in (1e-9, 1.0, 1e6):
        found = orthogonalize(gradients * size, torch.float16)
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((9, 0), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), torch.float32)]
)
def test_the_type_is_chosen_by_the_tensor_cores_that_a_gpu_has(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda")) == dtype
    assert choose_dtype("fp16", torch.device("cpu")) == torch.float16
