"""One side of a measurement in a process of its own: trains a window of steps whenever it is told to.

Standard input: one line for each window. Standard output: one JSON line when ready, then one after each window with
the CPU seconds and the memory that it took. So any number of sides stay alive and take turns on one core, and what one
of them sets process-wide does not reach another.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch._inductor.compile_fx  # its memory is no model's: there before memory is counted
from benchmarks.training.resident import resident
from benchmarks.training.setting import Setting
from benchmarks.training.turns import Turns

from pretextlm.data.store import Store
from pretextlm.model.transformer import Transformer
from pretextlm.training.corpus import Corpus
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import tune_process

PREPARED_STEPS = 8


class Gate(Silent):
    """Lets our trainer run only in its turns; it is the trainer's display, called after every step."""

    def __init__(self, turns: Turns, tokens: int) -> None:
        self.turns, self.tokens = turns, tokens

    def step(self, share: float, values: Mapping[str, float]) -> None:
        self.turns.step(self.tokens)


def run_ours(setting: Setting, steps: int, training: Mapping[str, Any], text_share: float = 1.0) -> None:
    """The trainer as `pretextlm pretrain` runs it, input pipeline and all; `text_share` of its tokens count."""
    tune_process()
    torch.set_num_threads(1)
    values = {"budget_steps": 10**6, "warmup": 0.0, "compile": "on", **training}
    store = Store.open(Path(setting.store))
    recipe = Recipe.load(setting.recipe(**values)).with_vocabulary(store.vocabulary)
    plan = make_plan(recipe, Corpus.of_store(recipe, store), torch.device("cpu"))
    before = resident()
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Transformer(recipe.model).parameters())
    with tempfile.TemporaryDirectory() as directory:
        turns = Turns(steps, {"parameters": parameters}, before)
        gate = Gate(turns, round(plan.tokens_per_step * text_share))
        pretrain(recipe, Path(directory) / "run", progress=gate)


def run_peer(setting: Setting, steps: int, form: Mapping[str, Any]) -> None:
    """A rival on the same batches, made beforehand."""
    from benchmarks.training.peers import Format, PeerTrainer, build

    batches, vocabulary, tokens = prepared(setting)
    before = resident()
    chosen = Format(**form)
    trainer = PeerTrainer(build(setting, vocabulary, chosen), chosen, 1e-3)
    turns = Turns(steps, {"parameters": sum(p.numel() for p in trainer.parameters)}, before)
    while True:
        trainer.step(batches[turns.done % PREPARED_STEPS])
        turns.step(tokens)


def run_trainer(setting: Setting, steps: int, options: Mapping[str, Any]) -> None:
    """transformers' Trainer on the rows of the same batches."""
    from benchmarks.training.hf_trainer import train

    batches, vocabulary, tokens = prepared(setting)
    before = resident()
    train(setting, vocabulary, batches, lambda count: Turns(steps, {"parameters": count}, before), tokens, **options)


def prepared(setting: Setting) -> tuple[list[list[dict[str, torch.Tensor]]], int, int]:
    """(some steps of micro-batches for a rival, size of the vocabulary, tokens of a step)."""
    from benchmarks.training.peers import feed

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    store = Store.open(Path(setting.store))
    recipe = Recipe.load(setting.recipe(budget_steps=1)).with_vocabulary(store.vocabulary)
    plan = make_plan(recipe, Corpus.of_store(recipe, store), torch.device("cpu"))
    with make_loader(recipe, Corpus.of_store(recipe, store), None) as loader:
        batches = [
            [feed(setting.objective, batch) for batch in loader.step(step * plan.rows, plan.rows, plan.micro_rows)]
            for step in range(PREPARED_STEPS)
        ]
    return batches, store.vocabulary.size, round(plan.tokens_per_step)


RUNS = {"ours": run_ours, "peer": run_peer, "trainer": run_trainer}

if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    RUNS[order["side"]](Setting(**order["setting"]), order["steps"], order["options"])
