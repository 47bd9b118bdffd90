"""Optimizers on the device: equal to the CPU's, gradients divided in the kernel, state saved and loaded."""

from __future__ import annotations

import math
from typing import Any

import torch
from benchmarks.gpu.checks.common import assert_near, exact_products, store, tables, train
from benchmarks.gpu.isolation import item
from tests.builders import make_model

from pretextlm.training.callbacks.base import Callback, StepMetrics
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.recipe import TrainingConfig

SECTION = "5 optimizers"
KINDS = ("adamw", "muon")


def steps(model: Any, optimizer: Optimizer, first: int, last: int, scale: float = 1.0, norm: float = 3.0) -> None:
    """Steps by gradients that depend on the step's number alone, times `scale`."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = (torch.randn(parameter.shape, generator=generator) * scale).to(parameter.device)
        optimizer.set_multiplier(0.5)
        optimizer.step(norm, scale)


def made(kind: str, device: str) -> tuple[Any, Optimizer]:
    exact_products()
    model = make_model().to(device)
    config = TrainingConfig(budget_steps=1, optimizer=kind, weight_decay=0.1, learning_rate=1e-2)
    return model, Optimizer(model, config, torch.float32)


@item(SECTION, cases=KINDS)
def weights_are_the_cpu_s(device: str, case: str) -> str:
    """Six clipped steps."""
    results = []
    for where in (device, "cpu"):
        model, optimizer = made(case, where)
        steps(model, optimizer, 0, 6)
        results.append(torch.cat([weight.flatten().cpu() for weight in model.parameters()]))
    return f"relative error {assert_near(*results, 1e-5, 'weights'):.1e}"  # type: ignore[misc]


@item(SECTION, cases=KINDS)
def a_scaled_gradient_gives_the_same_step(device: str, case: str) -> str:
    """Gradients of a loss times 1024 are divided by 1024, in the kernel of AdamW."""
    results = []
    for scale in (1.0, 1024.0):
        model, optimizer = made(case, device)
        steps(model, optimizer, 0, 3, scale)
        results.append(torch.cat([weight.flatten() for weight in model.parameters()]))
    return f"relative error {assert_near(*results, 1e-6, 'weights'):.1e}"  # type: ignore[misc]


@item(SECTION, cases=KINDS)
def saved_state_continues(device: str, case: str) -> str:
    whole, cut, fresh = (made(case, device) for _ in range(3))
    steps(*whole, 0, 6)
    steps(*cut, 0, 3)
    state = {name: tensor.detach().cpu().clone() for name, tensor in cut[1].state().items()}
    fresh[0].load_state_dict(cut[0].state_dict())
    fresh[1].load(state)
    steps(*fresh, 3, 6)
    for mine, theirs in zip(whole[0].parameters(), fresh[0].parameters(), strict=True):
        assert torch.equal(mine, theirs), "continuing from the saved state gives other weights"
    return "bit for bit"


class Poison(Callback):
    """Makes the gradient of the second step not a number."""

    def __init__(self) -> None:
        self.skipped: list[bool] = []

    def before_step(self, trainer: Any) -> None:
        if trainer.state.step == 1:
            weight = next(trainer.model.parameters())
            self.handle = weight.register_hook(lambda gradient: gradient * math.nan)
        elif hasattr(self, "handle"):
            self.handle.remove()

    def on_step(self, trainer: Any, metrics: StepMetrics) -> None:
        self.skipped.append(metrics.skipped)
        assert all(weight.isfinite().all() for weight in trainer.model.parameters()), "a weight is not finite"


@item(SECTION, cases=KINDS)
def a_gradient_that_is_not_finite_is_skipped(device: str, case: str) -> str:
    poison = Poison()
    train(tables(device, store(), optimizer=case, skip_steps=2), callbacks=[poison])
    assert poison.skipped == [False, True, False, False], f"skipped: {poison.skipped}"
    return "the second of four steps"
