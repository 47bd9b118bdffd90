"""Starting a run: its directory and its initial weights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pretextlm.data.store import sha256_of
from pretextlm.errors import UserError
from pretextlm.model.transformer import Transformer, meta_model
from pretextlm.training.checkpoint import MANIFEST, Checkpoint
from pretextlm.training.initial_weights import carry_origin, check_start
from pretextlm.training.peak_flops import find_peak
from pretextlm.training.recipe import BUDGET, Recipe
from pretextlm.training.run_directory import CONFIG, COST, TOKENIZER, Run, check_run_id
from pretextlm.training.run_manifest import RunManifest
from pretextlm.training.run_setup import Setup
from pretextlm.training.schedules import LearningRateSchedule
from pretextlm.training.state import TrainerState


def build_model(recipe: Recipe, device: torch.device) -> Transformer:
    """Returns the model with weights initialized from the recipe's seed, the same on every device."""
    model = meta_model(recipe.model, recipe.training_objective.heads)
    model.to_empty(device="cpu")
    model.reset_parameters(generator_of(recipe, "weights"))
    return model.to(device)


def generator_of(recipe: Recipe, purpose: str) -> torch.Generator:
    """Returns a random generator for one purpose, seeded by the recipe's seed."""
    digest = hashlib.sha256(f"{purpose} {recipe.seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def start_run(
    setup: Setup, directory: Path, resume: bool, checkpoint: Checkpoint | None, command: Sequence[str]
) -> str:
    """Creates a run directory, or checks that an existing one can be resumed by this recipe.

    Args:
        setup: of the run.
        directory: of the run.
        resume: continue the run that the directory holds, if it does.
        checkpoint: to resume from; None if there is none yet.
        command: argv to record.

    Returns:
        What the recipe changes in a run that is resumed, for people; "" if nothing.

    Raises:
        UserError: the directory is not empty; or its run learns from other data, or has other settings apart from
            those that may change.
    """
    data = {**setup.corpus.hashes, **_teachers(setup.recipe)}
    if resume and (directory / CONFIG).exists():
        return _resume(setup, directory, checkpoint, data)
    provenance: dict[str, Any] = {}
    if setup.recipe.start:
        check_start(setup.recipe)
        provenance = carry_origin(Path(setup.recipe.start), directory)
    environment = {
        **setup.runtime.describe(),
        "peak": find_peak(setup.runtime.device, setup.runtime.dtype).describe(),
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    Run.create(directory, setup.recipe, environment, setup.corpus.path / TOKENIZER, data, provenance)
    return ""


def _resume(setup: Setup, directory: Path, checkpoint: Checkpoint | None, data: Mapping[str, str]) -> str:
    run, manifest = Run.open(directory), RunManifest.read(directory)
    changed = setup.recipe.differences(run.recipe)
    budget = {name for name in changed if name.startswith(BUDGET)}
    if others := [f"{name}: {then} became {now}" for name, (then, now) in changed.items() if name not in budget]:
        raise UserError(
            f"{directory} was started with another recipe. {'; '.join(others)}.",
            f"Resume it with its own, {directory / CONFIG}; only the budget and how it is computed may change. Or give "
            f"another directory with --out, and start={directory} for its weights.",
        )
    if manifest is not None:
        manifest.check_data(directory, data)
    if checkpoint is not None:
        check_run_id(directory, checkpoint.state)
    note = _extended(setup, run, checkpoint) if budget else ""
    if run.recipe != setup.recipe:
        Run(directory, setup.recipe).update()
    return note


def _extended(setup: Setup, run: Run, checkpoint: Checkpoint | None) -> str:
    """Checks that a new budget is larger than what was trained, and says how the schedule goes on.

    Raises:
        UserError: the run has used it up already.
    """
    before, now = run.recipe.training, setup.recipe.training
    old, new = (f"{one.budget.size:g} {one.budget.kind}" for one in (before, now))
    state = TrainerState() if checkpoint is None else TrainerState(**checkpoint.state)
    then, share = (one.budget.used(setup.plan, state.step, state.flops, state.seconds) for one in (before, now))
    if share >= 1:
        raise UserError(
            f"The budget of {run.directory} cannot become {new}: {state.step:,} steps were trained already.",
            f"Give a larger one, or continue with its own, {old}.",
        )
    (run.directory / COST).unlink(missing_ok=True)  # it says that the run is complete
    rates = [
        one.learning_rate * LearningRateSchedule(one, one.budget.step_share(setup.plan)).multiplier(used, state.step)
        for one, used in ((before, then), (now, share))
    ]
    return (
        f"the budget is {new} instead of {old}, and the schedules span it: at step {state.step:,} the learning rate "
        f"goes from {rates[0]:.3g} to {rates[1]:.3g}"
        + (f"; the weights are the best ones, of step {state.best_step:,}" if state.is_best else "")
    )


def _teachers(recipe: Recipe) -> dict[str, str]:
    """Returns the SHA-256 of the weights of each frozen model."""
    found = {
        role: Run.open(Path(place)).checkpoint for role, place in recipe.training_objective.frozen_models().items()
    }
    return {f"the weights of the {role}": sha256_of(one.directory / MANIFEST) for role, one in found.items() if one}
