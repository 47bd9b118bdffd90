"""`model = "auto"`: the model's shape, its batch and its learning rate chosen for the budget, the text and the machine.

The choice is made once, when a run or a study begins; its record holds the numbers, and a resumed run has the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretextlm.config import read_toml
from pretextlm.data.store import Store
from pretextlm.errors import UserError
from pretextlm.model.presets.preset import AUTO
from pretextlm.objectives.base import Objective
from pretextlm.objectives.registry import build
from pretextlm.training.budget import BudgetKind
from pretextlm.training.run_directory import CONFIG
from pretextlm.training.runtime import COMPILE_PAYS_SECONDS, choose_device
from pretextlm.training.sizing import Size, choose_size, fastest_size, size_for_tokens
from pretextlm.training.throughput import COMPILED_SPEEDUP, measured_throughput


def is_auto(model: Any) -> bool:
    """Returns whether a table [model], or the name in its place, leaves the shape to us."""
    return model == AUTO or (isinstance(model, Mapping) and model.get("preset") == AUTO)


def size_for(
    objective: Objective,
    kind: BudgetKind,
    amount: float,
    store: Store | None = None,
    length: int = 0,
    throughput: float = 0.0,
) -> Size:
    """Choose a size for a budget.

    Args:
        objective: what is trained.
        kind: "flops", "seconds", "tokens" or "epochs".
        amount: in that unit.
        store: the text, whose size decides on weight decay; None: any, whose vocabulary is chosen, too.
        length: tokens of a row; 0: chosen, too.
        throughput: operations per second; 0: of this machine, measured.

    Raises:
        UserError: a budget in steps, which have no length yet; or in epochs without a store.
    """
    vocab_size = 0 if store is None else store.vocabulary.size
    text = None if store is None else store.train.num_tokens
    if kind == "steps" or (kind == "epochs" and text is None):
        raise UserError(
            f"A model cannot be sized for a budget in {kind}.", "Give budget_flops, budget_seconds or budget_tokens."
        )
    if kind in ("tokens", "epochs"):
        size = size_for_tokens(objective, amount * (text or 1) if kind == "epochs" else amount, vocab_size, length)
    elif kind == "flops":
        size = choose_size(objective, amount, vocab_size, length)
    else:
        size = _for_seconds(objective, amount, vocab_size, length, throughput)
    return size if text is None else size.regularized(text)


def _for_seconds(objective: Objective, seconds: float, vocab_size: int, length: int, throughput: float) -> Size:
    if throughput:
        return choose_size(objective, seconds * throughput, vocab_size, length)
    compiled = COMPILED_SPEEDUP if seconds >= COMPILE_PAYS_SECONDS and choose_device().type == "cpu" else 1.0

    def measured(size: Size) -> float:
        rows = max(1, size.training["batch_tokens"] // size.length)
        return compiled * measured_throughput(objective, size.model, size.vocab_size, size.length, rows)

    return fastest_size(objective, seconds, measured, vocab_size, length)


def with_size(values: Mapping[str, Any], directory: Path | None = None) -> dict[str, Any]:
    """Resolve `model = "auto"` in a recipe's tables.

    Args:
        values: tables; returned as they are unless their model is "auto".
        directory: of a run that is resumed, whose size is taken.

    Returns:
        The tables with the numbers that were chosen. A value that is given is never changed.

    Raises:
        UserError: the objective, the store or the budget is missing or wrong.
    """
    if not is_auto(values.get("model")):
        return dict(values)
    given = values["model"] if isinstance(values["model"], Mapping) else {}
    own = {key: value for key, value in given.items() if key != "preset"}
    data, training = dict(values.get("data", {})), dict(values.get("training", {}))
    if directory is not None and (directory / CONFIG).exists():
        recorded = read_toml(directory / CONFIG)
        chosen = {name: recorded["training"][name] for name in CHOSEN}
        return {
            **values,
            "model": recorded["model"],
            "data": {**data, "length": recorded["data"]["length"]},
            "training": {**chosen, **training},
        }
    objective = values.get("objective")
    table = {"name": objective} if isinstance(objective, str) else dict(objective or {})
    budgets = {key.removeprefix("budget_"): value for key, value in training.items() if key.startswith("budget_")}
    if not table.get("name") or len(budgets) != 1 or not data.get("store"):
        raise UserError(
            'model = "auto" needs an objective, a store and one budget.',
            "For example: [objective] name, [data] store, [training] budget_seconds = 600",
        )
    name = table.pop("name")
    ((kind, amount),) = budgets.items()
    if kind == "seconds" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            'model = "auto" measures one process; with several, a budget in seconds has no known FLOPs.',
            "Give budget_flops, or write the recipe by pretextlm plan --device … --out FILE.",
        )
    store = Store.open(Path(data["store"]))
    size = size_for(build(name, table), kind, float(amount), store, int(data.get("length", 0)))
    return {
        **values,
        "model": {**size.model, **own},
        "data": {"length": size.length, **data},
        "training": {**size.training, **training},
    }


CHOSEN = ("batch_tokens", "learning_rate", "weight_decay", "dropout")
"""Values of the table [training] that are chosen with the size."""
