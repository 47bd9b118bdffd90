"""A run that begins from the weights of another: continued pre-training, under the same objective or another one.

The shape of the model is the other's, and so are its tokens; heads that only the new objective trains are drawn from
the new run's seed. What the other knows of where it was imported from is carried on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.training.run import ENVIRONMENT, ORIGIN, Run

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.training.recipe import Recipe

HEADS = "heads."


def with_start(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's tables with the model's shape taken from the run named by `start`, where there is one.

    A run that is gone changes nothing: one that was begun from it can go on without it. Raises UserError when `start`
    is there and is not a run.
    """
    start = values.get("start")
    if not isinstance(start, str) or not start or not Path(start).exists():
        return dict(values)
    return {**values, "model": Run.open(Path(start)).recipe.dump()["model"]}


def check_start(recipe: Recipe) -> None:
    """Raises UserError when the recipe's model is not the one it is to start from."""
    start = Run.open(Path(recipe.start))
    theirs, ours = start.recipe.model.model_dump(), recipe.model.model_dump()
    for name, value in theirs.items():
        if value != ours[name]:
            raise UserError(
                f"The recipe says model.{name} = {ours[name]}, the run {recipe.start} it starts from has {value}.",
                "Leave the table [model] out: it is then taken from that run.",
            )
    parts = recipe.objective.parts()
    if parts > recipe.model.type_vocab_size:
        raise UserError(
            f"The objective {recipe.objective.name!r} tells {parts} parts of a row apart; {recipe.start} has "
            f"{recipe.model.type_vocab_size} token types.",
            "Start from a run that was trained with token types, or choose another objective.",
        )


def load_start(model: Transformer, recipe: Recipe) -> list[str]:
    """Give the model the newest weights of the run it starts from; returns the names of heads that stay as drawn.

    Raises:
        UserError: that run has no weights that verify, or lacks some of the trunk's.
    """
    from pretextlm.training.checkpoint import newest

    start = Run.open(Path(recipe.start))
    found = newest(start.checkpoints)
    if found is None:
        raise UserError(f"{recipe.start} has no checkpoint to start from.", "Train it first, or import it again.")
    theirs = start.load_model().state_dict() if start.recipe.tuning.lora else found.model()
    wanted = model.state_dict()
    used = {name: tensor for name, tensor in theirs.items() if name in wanted and tensor.shape == wanted[name].shape}
    missing = [name for name in wanted if name not in used]
    lost = next((name for name in missing if not name.startswith(HEADS)), None)
    if lost is not None:
        raise UserError(f"{recipe.start} has no weights for {lost}.", "Start from a run of the same model.")
    model.load_state_dict(used, strict=False)
    return missing


def carry_origin(start: Path, directory: Path) -> dict[str, Any]:
    """Copy what the run `start` kept of its import; returns what the new run's environment.json says of it.

    That it was pruned is carried on, too.
    """
    known = json.loads((start / ENVIRONMENT).read_text(encoding="utf-8")) if (start / ENVIRONMENT).exists() else {}
    if (start / ORIGIN).is_dir() and not (directory / ORIGIN).exists():
        shutil.copytree(start / ORIGIN, directory / ORIGIN)
    return {name: known[name] for name in ("imported", "pruned") if name in known}
