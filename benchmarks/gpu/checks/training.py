"""The trainer: interrupted and resumed, read elsewhere, adapters, best weights, dry run, memory, energy."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from benchmarks.gpu.checks.common import assert_near, losses, place, store, tables, train
from benchmarks.gpu.isolation import item

from pretextlm.model.model_inputs import prepare
from pretextlm.training.callbacks.base import Callback, StepMetrics
from pretextlm.training.corpus import open_corpus
from pretextlm.training.dry_run import dry_run
from pretextlm.training.plan import make_loader
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.signals import Stopped

SECTION = "8 trainer"
SAME = {"cpu": 0.0, "cuda": 1e-3}
"""Largest difference of the losses of a resumed run: kernels on a GPU may add in another order."""


class Terminate(Callback):
    def on_step(self, trainer: Any, metrics: StepMetrics) -> None:
        if metrics.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@item(SECTION, cases=["adamw fp32", "muon bf16"])
def terminated_and_resumed(device: str, case: str) -> str:
    optimizer, dtype = case.split(" ")
    values = tables(device, store(), optimizer=optimizer, dtype=dtype, budget_steps=5)
    whole = losses(train(values))
    out = place() / "cut"
    try:
        pretrain(Recipe.load(values), out, callbacks=[Terminate()])
    except Stopped:
        pass
    else:
        raise AssertionError("SIGTERM did not stop the run")
    pretrain(Recipe.load(values), out, resume=True)
    return f"relative error {assert_near(losses(Run.open(out)), whole, SAME[device], 'losses'):.1e}"


@item(SECTION)
def a_checkpoint_is_read_on_a_cpu(device: str) -> str:
    run = train(tables(device, store()))
    recipe = run.recipe
    with make_loader(recipe, open_corpus(recipe)[1], None) as loader:
        (batch, *_) = loader.step(0, 4, 4)
    found = []
    for where in (torch.device("cpu"), torch.device(device)):
        model = run.load_model(where)
        with torch.no_grad():
            found.append(model(prepare(batch, model.config, where, torch.float32)).hidden_BTD)
    return f"relative error {assert_near(found[1], found[0], 1e-4, 'hidden states'):.1e}"


@item(SECTION, cases=["lora", "rslora", "dora"])
def adapters(device: str, case: str) -> str:
    data = store()
    start = str(train(tables("cpu", data)).directory)
    found = []
    for where in (device, "cpu"):
        values = tables(where, data, learning_rate=1e-2)
        values |= {"start": start, "tuning": {"lora": {"rank": 4, "kind": case}}}
        del values["model"]
        found.append(losses(train(values)))
    return f"relative error {assert_near(*found, 1e-3, 'losses'):.1e}"  # type: ignore[misc]


@item(SECTION)
def best_weights_are_kept(device: str) -> str:
    run = train(tables(device, store(), validations=2, keep_best=True, validation_rows=8))
    checkpoint = run.checkpoint
    assert checkpoint is not None, "no checkpoint"
    state = checkpoint.state
    assert state["best"] is not None, "no validation was the best"
    return f"of step {state['best_step']}"


@item(SECTION, seconds=240)
def a_dry_run_measures(device: str) -> dict[str, Any]:
    """The estimate of memory beside the peak of the same run."""
    values = tables(device, store())
    if device == "cuda":
        values["model"] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        values["training"] |= {"dtype": "bf16", "batch_tokens": 16_384, "micro_batch_tokens": 16_384}
    found = dry_run(Recipe.load(values), place() / "run")
    estimated, measured = found["memory"]["total"], found["memory"]["measured"]
    assert measured, "nothing was measured"
    if device == "cuda":
        assert 0.6 < measured / estimated < 1.3, f"estimated {estimated:,}, measured {measured:,}"
    return {"estimated": estimated, "measured": measured, "speed": found["speed"]}


@item(SECTION, needs_gpu="NVML reads a GPU's energy")
def energy_is_measured(device: str) -> float:
    cost = train(tables(device, store(), budget_steps=30)).cost
    assert cost is not None
    energy = next((value for key, value in cost.items() if "energy" in key and isinstance(value, int | float)), None)
    assert energy, f"no energy in {cost}"
    return float(energy)


@item(SECTION, needs_gpu="fp16 needs a GPU to be fast")
def fp16_with_loss_scaling(device: str) -> str:
    data = store()
    found = losses(train(tables(device, data, dtype="fp16", budget_steps=8)))
    wanted = losses(train(tables(device, data, budget_steps=8)))
    return f"relative error {assert_near(found, wanted, 5e-2, 'losses'):.1e}"
