"""`model = "auto"` in a study: each objective gets the size that suits the budget, once, before the study begins."""

from __future__ import annotations

from pathlib import Path

from pretextlm.data.store import Store
from pretextlm.study.directory import PLAN
from pretextlm.study.extension import held_plan
from pretextlm.study.plan import Condition, StudyPlan
from pretextlm.study.task_plan import AnyPlan
from pretextlm.training.auto_size import is_auto, size_for
from pretextlm.training.sizing import Size


def sized_plan(plan: AnyPlan, directory: Path) -> AnyPlan:
    """Resolve `model = "auto"`.

    Args:
        plan: returned as it is unless it leaves the model's size open.
        directory: of the study, which may hold the sizes that an earlier call has chosen.

    Returns:
        The plan with numbers in the tables [model] and [training] of every condition; what is given there stays.

    Raises:
        UserError: the store cannot be opened, or an objective does not work with its rows.
    """
    if not isinstance(plan, StudyPlan) or not is_auto(plan.model):
        return plan
    own = {key: value for key, value in plan.model.items() if key != "preset"}
    held = _held(plan, directory / PLAN)
    store, length, conditions = Store.open(Path(plan.store)), held.length if held else plan.length, []
    for condition in plan.objectives:
        chosen: Condition | Size | None = None
        if held is not None:
            chosen = next((one for one in held.objectives if one.label == condition.label), None)
        if chosen is None:
            chosen = size_for(condition.objective(), plan.budget.kind, plan.budget.amount, store, length or 0)
            length = length or chosen.length  # of the first condition, for all of them
        conditions.append(
            Condition.parse(
                {
                    **condition.model_dump(exclude_none=True),
                    "model": {**chosen.model, **own, **condition.model},
                    "training": {**chosen.training, **plan.training, **condition.training},
                },
                where=f"objective {condition.label}",
            )
        )
    return plan.model_copy(update={"objectives": tuple(conditions), "length": length, "model": {}})


def _held(plan: StudyPlan, file: Path) -> StudyPlan | None:
    """Returns the plan that the directory holds, with the sizes chosen earlier; None if it holds none."""
    held = held_plan(file, plan) if file.exists() else None
    return held if isinstance(held, StudyPlan) else None
