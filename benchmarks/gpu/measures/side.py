"""One side of a comparison on a GPU, as benchmarks/training/worker.py on a CPU: trains whenever it is told to."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.measures.common import memory, recipe_of, wait
from benchmarks.training.peers import Format, PeerTrainer, build, feed
from benchmarks.training.setting import Setting
from benchmarks.training.turns import Turns

from pretextlm.data.store import Store
from pretextlm.training.corpus import Corpus
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import tune_process

PREPARED_STEPS = 8


class Gate(Silent):
    """Lets our trainer run only in its turns; it is the trainer's display, called after every step."""

    def __init__(self, turns: Turns, tokens: int, device: str) -> None:
        self.turns, self.tokens, self.device = turns, tokens, device

    def step(self, share: float, values: Mapping[str, float]) -> None:
        wait(self.device)
        self.turns.step(self.tokens)


class Autocast(PeerTrainer):
    """The rival's loop with fp32 weights and bf16 products, as ours has them, on this device."""

    device = "cuda"

    def numbers(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16)


def run_ours(setting: Setting, steps: int, device: str, training: Mapping[str, Any]) -> None:
    tune_process()
    recipe = Recipe.load(recipe_of(setting, device, budget_steps=10**6, **training))
    store = Store.open(Path(setting.store))
    plan = make_plan(recipe.with_vocabulary(store.vocabulary), Corpus.of_store(recipe, store), torch.device(device))
    with tempfile.TemporaryDirectory() as directory:
        turns = Turns(steps, {}, 0, lambda: memory(device))
        pretrain(recipe, Path(directory) / "run", progress=Gate(turns, round(plan.tokens_per_step), device))


def run_rival(setting: Setting, steps: int, device: str, form: Mapping[str, Any]) -> None:
    store = Store.open(Path(setting.store))
    recipe = Recipe.load(recipe_of(setting, device, budget_steps=1)).with_vocabulary(store.vocabulary)
    corpus = Corpus.of_store(recipe, store)
    plan = make_plan(recipe, corpus, torch.device(device))
    with make_loader(recipe, corpus, None) as loader:
        batches = [
            [
                {name: tensor.to(device) for name, tensor in feed(setting.objective, batch).items()}
                for batch in loader.step(step * plan.rows, plan.rows, plan.micro_rows)
            ]
            for step in range(PREPARED_STEPS)
        ]
    chosen = Format(**form)
    kind = PeerTrainer if chosen.numbers == "bf16" else Autocast
    Autocast.device = device
    torch.set_float32_matmul_precision("high")
    trainer = kind(build(setting, store.vocabulary.size, chosen).to(device), chosen, 1e-3)
    turns = Turns(steps, {}, 0, lambda: memory(device))
    while True:
        trainer.step(batches[turns.done % PREPARED_STEPS])
        wait(device)
        turns.step(round(plan.tokens_per_step))


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    options = dict(order["options"])
    run = {"ours": run_ours, "rival": run_rival}[order["side"]]
    run(Setting(**order["setting"]), order["steps"], options.pop("device"), options)
