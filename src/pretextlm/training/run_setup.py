"""Setting up a run on this machine: its data, its plan, and the resources it uses.

Training and its dry run share this, so that a dry run describes exactly what training will do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pretextlm.training.compatibility import check_positions, check_teachers, check_tokenizers
from pretextlm.training.corpus import Corpus, open_corpus
from pretextlm.training.distributed import DistributedContext
from pretextlm.training.forgetting import MonitoredStore, with_monitored_stores
from pretextlm.training.memory_plan import MemoryPlan, plan_memory
from pretextlm.training.plan import Plan, make_plan
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import Runtime
from pretextlm.training.trackers import check_installed


@dataclass(frozen=True)
class Setup:
    """A run that is ready to start.

    Attributes:
        recipe: completed by its data.
        corpus: its data.
        plan: rows of a step and of a micro-batch.
        runtime: device, dtype and compilation.
        memory: memory that training needs, and how it is made to fit.
        monitored: stores that forgetting is measured on.
    """

    recipe: Recipe
    corpus: Corpus
    plan: Plan
    runtime: Runtime
    memory: MemoryPlan
    monitored: tuple[MonitoredStore, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Choices made for this machine, for people."""
        passes = -(-self.plan.rows // self.plan.micro_rows)
        blocks = self.memory.recomputed
        checkpointing = f", gradient checkpointing of {blocks} blocks to save memory" if blocks else ""
        batch = f"{self.plan.rows} rows a step in {passes} micro-batch{'es' * (passes > 1)}{checkpointing}"
        what = "pairs left out, which the objective does not read" if self.recipe.task is None else "records left out"
        filtered = f"{self.corpus.num_filtered:,} {what}" if self.corpus.num_filtered else ""
        names = ", ".join(store.name for store in self.monitored)
        forgetting = f"forgetting of {names} is measured (data.forgetting_stores=[] for nothing)" if names else ""
        return (*self.runtime.notes, batch, *filter(None, [filtered, forgetting]))


def set_up(recipe: Recipe, distributed: DistributedContext) -> Setup:
    """Sets up a run, on every process.

    Raises:
        UserError: on all processes, if one of them cannot train by the recipe.
    """

    def prepare() -> tuple[Recipe, Corpus, Plan, Runtime, list[MonitoredStore]]:
        complete, corpus = open_corpus(recipe)
        check_tokenizers(complete, corpus)
        check_positions(complete)
        check_teachers(complete)
        complete, monitored = with_monitored_stores(complete, corpus)
        if distributed.is_main:
            check_installed(complete.training.trackers)
        device = Runtime.choose(complete.training, 0.0).device
        plan = make_plan(complete, corpus, device, distributed)
        runtime = Runtime.choose(complete.training, complete.training.budget.expected_seconds(plan))
        return complete, corpus, plan, runtime, monitored

    complete, corpus, plan, runtime, monitored = distributed.run_on_all(prepare)
    memory = plan_memory(complete, plan, runtime, distributed)
    plan = replace(plan, micro_rows=memory.micro_rows, recomputed=memory.recomputed)
    return Setup(complete, corpus, plan, runtime, memory, tuple(monitored))
