"""One training run to the end of its budget, in a process of its own: the last validation loss and what it cost.

Data, order, masks, validation rows and their masks are ours for both sides; only model, optimizer and schedule differ.
The CPU seconds are those of the steps, at the pace of all after the first, which also compiles.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from benchmarks.training.setting import Setting

from pretextlm.batch import IGNORE
from pretextlm.data.store import Store
from pretextlm.training.corpus import Corpus
from pretextlm.training.forward import Forward
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import choose_dtype, tune_process
from pretextlm.training.schedules import learning_rate_multiplier as rate
from pretextlm.training.validation import evaluation_batches, validate

VALIDATION_ROWS, VALIDATION_SEED = 256, 1234
CURVE_POINTS = 40
CPU = torch.device("cpu")


@dataclass
class Clock(Silent):
    """CPU and wall time at the end of every step."""

    started: float = field(default_factory=time.process_time)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self, share: float, values: Mapping[str, float]) -> None:
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    def curve(self) -> list[tuple[float, float]]:
        """(share of the steps, mean training loss of those since the point before)."""
        edges = [round(i * len(self.losses) / CURVE_POINTS) for i in range(CURVE_POINTS + 1)]
        return [
            (stop / len(self.losses), fmean(self.losses[start:stop]))
            for start, stop in itertools.pairwise(edges)
            if stop > start
        ]

    def cost(self) -> dict[str, float]:
        """Seconds of all steps; `first` is CPU time until the first one ended, compilation and all."""
        steps = len(self.cpu)
        whole = steps / max(1, steps - 1)
        return {
            "steps": steps,
            "cpu": (self.cpu[-1] - self.cpu[0]) * whole,
            "wall": (self.wall[-1] - self.wall[0]) * whole,
            "first": self.cpu[0] - self.started,
        }


def open_both(setting: Setting, values: Mapping[str, Any], seed: int) -> tuple[Store, Recipe]:
    store = Store.open(Path(setting.store))
    return store, Recipe.load({**setting.recipe(**values), "seed": seed}).with_vocabulary(store.vocabulary)


def run_ours(setting: Setting, tokens: float, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """`pretextlm pretrain` with the recipe's defaults and `options` on top."""
    tune_process()
    values = {"compile": "on", "budget_tokens": tokens, **options}
    store, recipe = open_both(setting, values, seed)
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        model = pretrain(recipe, Path(directory) / "run", progress=clock).load_model()
    recipe = Recipe.load(setting.recipe(budget_tokens=tokens)).with_vocabulary(store.vocabulary)
    objective = recipe.training_objective  # without our options: both sides are validated alike
    reader = objective.reader(store.validation, store.vocabulary, recipe.data.length)
    forward = Forward(model, objective, CPU, choose_dtype(recipe.training.dtype, CPU))
    loss = validate(forward, reader, objective, store.vocabulary, VALIDATION_ROWS, VALIDATION_SEED).terms["lm"]
    return {**_losses(store, loss.total, loss.count), **clock.cost()}


def run_peer(setting: Setting, tokens: float, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """A rival: a warm-up over 5 % of the steps, then `schedule` down to the share `final` of the learning rate."""
    from benchmarks.training.peers import Format, PeerTrainer, build, feed, loss_of

    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    values = {"budget_tokens": tokens, "objective": options["objective"]}
    store, recipe = open_both(setting, values, seed)
    plan = make_plan(recipe, Corpus.of_store(recipe, store), CPU)
    form = Format(**options["form"])
    trainer = PeerTrainer(build(setting, store.vocabulary.size, form, seed), form, options["learning_rate"])
    steps = math.ceil(tokens / plan.tokens_per_step)
    clock = Clock()
    with make_loader(recipe, Corpus.of_store(recipe, store), None) as loader:
        batches = loader.steps(0, plan.rows, plan.micro_rows)
        for step in range(steps):
            fed = [feed(setting.objective, batch) for batch in next(batches)]
            share = rate((step + 0.5) / steps, options["schedule"], 0.05, 0.0, options["final"])
            clock.losses.append(trainer.step(fed, options["learning_rate"] * share))
            clock.step(step / steps, {})
    total, targets = 0.0, 0
    objective = open_both(setting, {}, seed)[1].training_objective  # both sides are validated alike
    reader = objective.reader(store.validation, store.vocabulary, recipe.data.length)
    trainer.model.eval()
    with torch.no_grad(), trainer.numbers():
        for batch in evaluation_batches(reader, objective, store.vocabulary, VALIDATION_ROWS, VALIDATION_SEED):
            count = int((batch.targets != IGNORE).sum())
            total += float(loss_of(trainer.model(**feed(setting.objective, batch)))) * count
            targets += count
    return {**_losses(store, total, targets), **clock.cost(), "curve": clock.curve()}


def _losses(store: Store, total: float, targets: int) -> dict[str, float]:
    """Nats per target; `bits_per_byte` is for the causal model, by the validation text's mean bytes per token."""
    counts = store.manifest["splits"]["validation"]
    per_byte = counts["tokens"] / counts["text_bytes"]
    loss = total / targets
    return {"loss": loss, "bits_per_byte": loss / math.log(2) * per_byte, "targets": targets}


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = {"ours": run_ours, "peer": run_peer}[order["side"]]
    result = run(Setting(**order["setting"]), order["tokens"], order["seed"], order["options"])
    print(json.dumps(result), file=channel, flush=True)
