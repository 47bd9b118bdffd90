"""A recipe made ready for this machine: its store, its plan, and what the run takes of the machine.

Training and its rehearsal begin here, so that a rehearsal says what a training will do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pretextlm.training.compatibility import check_positions, check_teachers, check_tokenizers
from pretextlm.training.corpus import Corpus, Labelled, open_corpus
from pretextlm.training.distributed import DistributedContext
from pretextlm.training.forgetting import Remembered, with_remembered
from pretextlm.training.memory_plan import Fit, fit
from pretextlm.training.plan import Plan, expected_seconds, make_plan
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import Runtime
from pretextlm.training.trackers import check_installed


@dataclass(frozen=True)
class Ready:
    """Attributes: recipe: with the vocabulary of its store; store; plan; runtime: what is used of the machine; fit: how
    the plan fits into it; remembered: the stores that it is measured on beside its own."""

    recipe: Recipe
    store: Corpus
    plan: Plan
    runtime: Runtime
    fit: Fit
    remembered: tuple[Remembered, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen for this machine, for people."""
        passes = -(-self.plan.rows // self.plan.micro_rows)
        again = f", {self.fit.recomputed} blocks computed twice to save memory" if self.fit.recomputed else ""
        cut = f"{self.plan.rows} rows a step in {passes} pass{'es' * (passes > 1)}{again}"
        lost = self.store.left_out if isinstance(self.store, Labelled) else 0
        left_out = f"{lost} records left out" if lost else ""
        names = ", ".join(store.name for store in self.remembered)
        watched = f"what it forgets of {names} is measured (data.remember=[] for nothing)" if names else ""
        return (*self.runtime.notes, cut, *filter(None, [left_out, watched]))


def make_ready(recipe: Recipe, distributed: DistributedContext) -> Ready:
    """On every process for itself. Raises UserError, on all of them, when one cannot train by the recipe."""

    def found() -> tuple[Recipe, Corpus, Plan, Runtime, list[Remembered]]:
        whole, store = open_corpus(recipe)
        check_tokenizers(whole, store)
        check_positions(whole)
        check_teachers(whole)
        whole, remembered = with_remembered(whole, store)
        if distributed.is_main:
            check_installed(whole.training.trackers)
        device = Runtime.choose(whole.training, 0.0).device
        plan = make_plan(whole, store, device, distributed)
        runtime = Runtime.choose(whole.training, expected_seconds(*whole.training.budget, plan))
        return whole, store, plan, runtime, remembered

    whole, store, plan, runtime, remembered = distributed.run_on_all(found)
    chosen = fit(whole, plan, runtime, distributed)
    plan = replace(plan, micro_rows=chosen.micro_rows, recomputed=chosen.recomputed)
    return Ready(whole, store, plan, runtime, chosen, tuple(remembered))
