"""Heads that nothing has trained: those that a published checkpoint lacked, until a run trains them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.hf.equivalent_weights import POOLER
from pretextlm.hf.provenance import origin_of
from pretextlm.hf.state_dict import OWN_HEAD
from pretextlm.training.run_directory import CONFIG, Run

if TYPE_CHECKING:
    from pretextlm.training.recipe import Recipe

LM_HEAD = "language-model head"


def untrained_heads(run: Run) -> set[str]:
    """Returns the heads of a run's model that are as they were initialised: LM_HEAD, or names of an objective's heads.

    Some published models have no biases in their heads, so that weights alone count. What a run that is no longer there
    has trained is not known; nothing is reported then.
    """
    origin = origin_of(run.directory)
    lacking = {name for name in origin.drawn if name.endswith(".weight")} if origin else set()
    found = {name.split(".")[1] for name in lacking if name.startswith("heads.")}
    found |= {LM_HEAD for name in lacking if name.startswith(OWN_HEAD) and not name.startswith(POOLER)}
    for one in _history(run) if found else ():
        if one is None:
            return set()
        checkpoint = one.checkpoint
        if checkpoint is not None and checkpoint.step > 0:
            found -= _trained_by(one.recipe)
    return found


def refuse_untrained(run: Run, head: str) -> None:
    """Refuses to answer by a head that nothing has trained.

    Raises:
        UserError: it is one.
    """
    if head in untrained_heads(run):
        raise UserError(
            f"The {head} of {run.directory} was not in the imported checkpoint, and nothing has trained it since: what "
            "it says would be random.",
            f"Import a checkpoint that has it, or train it: pretextlm pretrain RECIPE start={run.directory}",
        )


def _history(run: Run) -> Iterator[Run | None]:
    """Yields the run and those that it started from, one after the other; None for one that is no longer there."""
    yield run
    while run.recipe.start:
        if not (Path(run.recipe.start) / CONFIG).is_file():
            yield None
            return
        run = Run.open(run.recipe.start)
        yield run


def _trained_by(recipe: Recipe) -> set[str]:
    """Returns the heads that a run by this recipe trains."""
    from pretextlm.objectives.replaced_token import ReplacedToken
    from pretextlm.tasks.shared.writing import WritingTask

    objective = recipe.training_objective
    predicts = recipe.task is None or isinstance(objective, WritingTask)
    own = {LM_HEAD} if predicts and not isinstance(objective, ReplacedToken) else set()
    return own | set(objective.heads(recipe.model))
