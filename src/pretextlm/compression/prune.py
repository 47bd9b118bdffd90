"""Pruning a run into a smaller run: `pretextlm prune RUN --out RUN2`.

The result is an ordinary run at step 0: its recipe has the new shape and `start` names the original, its cost is the
original's, and run.json records under "pruned" the removed parameters and the change of the loss. Layers are
removed first, then heads and channels, then single weights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretextlm import __version__
from pretextlm.compression.comparison import comparison
from pretextlm.compression.importance import Importance, by_gradient, by_weights
from pretextlm.compression.losses import NO_STORE, model_of
from pretextlm.compression.magnitude import check_sparsity, parse_pattern, prune_weights, zeros
from pretextlm.compression.structured import (
    Heads,
    check_heads,
    count_to_remove,
    cut_channels,
    cut_heads,
    keep_layers,
    kept_channels,
    kept_units,
)
from pretextlm.errors import UserError
from pretextlm.evaluation.trained_model import open_store
from pretextlm.files import ENOUGH_SPACE, atomic_directory, write_json
from pretextlm.model.config import ModelConfig
from pretextlm.model.parameter_count import total
from pretextlm.model.transformer import meta_model
from pretextlm.plain_files import read_json
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.initial_weights import carry_origin
from pretextlm.training.run_directory import TOKENIZER, Run
from pretextlm.training.state import TrainerState
from pretextlm.training.validation import evaluation_batches

IMPORTANCE_ROWS = 64
"""Rows of the training split on which gradient importance is computed."""


@dataclass(frozen=True)
class Pruning:
    """Settings of a pruning.

    Attributes:
        sparsity: share of the weights of each matrix of the blocks that become zero, the smallest first.
        pattern: instead, "2:4": the two largest of every four weights of a row are kept.
        heads, channels: share of each layer's attention heads and feed-forward channels that are removed.
        layers: indices of the layers that are kept; None: all.
        importance: criterion for heads and channels; None: by gradient if there is text, else by weights.
    """

    sparsity: float | None = None
    pattern: str | None = None
    heads: float | None = None
    channels: float | None = None
    layers: tuple[int, ...] | None = None
    importance: Importance | None = None

    @property
    def structured(self) -> bool:
        """Returns whether matrices become smaller by removing heads or channels."""
        return self.heads is not None or self.channels is not None

    def check(self) -> None:
        """Check the settings.

        Raises:
            UserError: nothing is removed, a share is out of range, or two settings exclude each other.
        """
        ways = (self.sparsity, self.pattern, self.heads, self.channels, self.layers)
        if all(way is None for way in ways):
            raise UserError(
                "Nothing says what is to be pruned.",
                "Give --sparsity 0.5, --pattern 2:4, --heads 0.25, --channels 0.25 or --layers 0,2.",
            )
        if self.sparsity is not None and self.pattern is not None:
            raise UserError("A sparsity and a pattern exclude each other.", "Give one of them.")
        check_sparsity(self.sparsity)
        if self.pattern is not None:
            parse_pattern(self.pattern)

    def describe(self, importance: str | None) -> str:
        """Returns a short description for people."""
        chosen = f", chosen by {importance}" if importance else ""
        parts = [
            f"layers {','.join(map(str, self.layers))} kept" if self.layers is not None else "",
            f"{self.heads:g} of the attention heads{chosen}" if self.heads is not None else "",
            f"{self.channels:g} of the feed-forward channels{chosen}" if self.channels is not None else "",
            f"the smallest {self.sparsity:g} of each matrix's weights" if self.sparsity is not None else "",
            f"all but the largest of each group of weights, {self.pattern}" if self.pattern is not None else "",
        ]
        return "; ".join(part for part in parts if part)


@dataclass
class _State:
    """Shape and weights of the model between the steps."""

    config: ModelConfig
    weights: Mapping[str, Tensor]
    importance: str | None = None
    notes: list[str] = field(default_factory=list)


def prune_run(
    place: Path,
    out: Path,
    pruning: Pruning,
    *,
    store: Path | None = None,
    command: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write a pruned copy of a run with its newest weights, atomically.

    Args:
        place: the run that is pruned; it is not changed.
        out: the new run directory, missing or empty.
        store: of text, or of a fine-tuned run a file of records; by default the run's own.
        command: argv to record.
        progress: called with a short description of each step.

    Returns:
        Plain values: "what", "parameters" (before, after, zero), "matrices" (weights and zeros of the blocks), and
        what :func:`comparison` measured.

    Raises:
        UserError: the settings do not apply to this model; the directory is not empty.
    """
    say = progress or (lambda text: None)
    pruning.check()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty.", "Give another directory with --out.")
    run = Run.open(place)
    model = run.load_model()
    before = total(model)
    say("choosing what goes")
    state = _pruned(run, model, pruning, store)
    say("the loss before and after" if run.recipe.task is None else "the scores before and after")
    measured = comparison(run, model, store)(state.config, state.weights)
    after = model_of(run, state.config, state.weights)
    zero, matrices = zeros(state.weights)
    facts = {
        "from": str(place),
        "what": pruning.describe(state.importance),
        "parameters": {"before": before, "after": total(after), "zero": zero},
        "matrices": {"weights": matrices, "zero": zero},
        **measured,
    }
    _write(run, out, state, facts, command)
    return {"run": str(out), **facts}


def _pruned(run: Run, model: torch.nn.Module, pruning: Pruning, store: Path | None) -> _State:
    """Returns the model's shape and weights after all steps."""
    state = _State(run.recipe.model, model.state_dict())
    if pruning.layers is not None:
        state.weights, state.config = keep_layers(state.weights, state.config, pruning.layers)
    if pruning.structured:
        _cut(run, state, pruning, store)
    state.weights = prune_weights(state.weights, pruning.sparsity, pruning.pattern)
    _check_modules(run, state)
    return state


def _cut(run: Run, state: _State, pruning: Pruning, store: Path | None) -> None:
    """Remove heads and channels, all chosen before the first is removed."""
    config = state.config
    heads = channels = 0
    if pruning.heads is not None:
        check_heads(config)
        unit = Heads.of(config)
        heads = count_to_remove(pruning.heads, unit.units, "heads" if unit.queries == 1 else "groups of heads")
    if pruning.channels is not None:
        channels = count_to_remove(pruning.channels, config.intermediate_size, "channels")
    state.importance, scores = _scores(run, state, pruning.importance, store)
    if heads:
        state.weights, state.config = cut_heads(state.weights, state.config, kept_units(scores, heads, config))
    if channels:
        state.weights, state.config = cut_channels(state.weights, state.config, kept_channels(scores, channels))


def _scores(
    run: Run, state: _State, importance: Importance | None, store: Path | None
) -> tuple[Importance, dict[str, Tensor]]:
    """Returns the importance criterion and the scores of the units."""
    there = store is not None or (bool(run.recipe.data.store) and Path(run.recipe.data.store).is_dir())
    importance = importance or ("gradient" if there else "weights")
    if importance == "weights":
        return importance, by_weights(state.weights, state.config)
    if not there:
        raise UserError(f"No text to take gradients on: {NO_STORE}.", "Or choose by --importance weights.")
    opened, recipe = open_store(run, store), run.recipe
    objective = recipe.training_objective.at_evaluation()
    reader = objective.reader(opened.train, run.vocabulary, recipe.data.length)
    batches = evaluation_batches(reader, objective, run.vocabulary, IMPORTANCE_ROWS, recipe.seed)
    return importance, by_gradient(model_of(run, state.config, state.weights), objective, list(batches))


def _check_modules(run: Run, state: _State) -> None:
    """Check the objective's own modules.

    Raises:
        UserError: a module would need another shape along with the trunk's.
    """
    objective = run.recipe.training_objective
    wanted = meta_model(state.config, objective.heads).state_dict()
    for name, tensor in wanted.items():
        if name not in state.weights or state.weights[name].shape != tensor.shape:
            raise UserError(
                f"The objective {objective.name!r} has a module whose shape follows the model's: {name}.",
                "Prune by --sparsity or --pattern, or continue the run under another objective first.",
            )


def _write(run: Run, out: Path, state: _State, facts: Mapping[str, Any], command: Sequence[str]) -> None:
    """Write the new run under a temporary name and rename it."""
    tuning = run.recipe.tuning.model_copy(update={"lora": None})  # adapters are merged when a run is opened
    changes = {"model": state.config, "start": str(run.directory), "tuning": tuning}
    recipe = run.recipe.model_copy(update=changes)
    environment: dict[str, Any] = {
        "pretextlm": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "device": "none: pruned",
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with atomic_directory(out, ENOUGH_SPACE, checkpoints.size_of(state.weights)) as partial:
        carried = carry_origin(run.directory, partial)
        provenance = {**carried, "pruned": [*carried.get("pruned", []), dict(facts)]}
        made = Run.create(partial, recipe, environment, run.directory / TOKENIZER, provenance=provenance)
        checkpoints.save(made.checkpoints, 0, state.weights, {}, vars(TrainerState(made.id)), keep=1)
        cost = _json(run.directory / "cost.json")
        if cost:
            write_json(partial / "cost.json", {**cost, "parameters": facts["parameters"]["after"]})


def _json(path: Path) -> dict[str, Any]:
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
