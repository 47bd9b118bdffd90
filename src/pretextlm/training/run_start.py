"""Starting a run: its directory and its initial weights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pretextlm.errors import UserError
from pretextlm.model.transformer import Transformer, meta_model
from pretextlm.training.corpus import Corpus
from pretextlm.training.initial_weights import carry_origin, check_start
from pretextlm.training.peak_flops import find_peak
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import CONFIG, TOKENIZER, Run, read_environment
from pretextlm.training.runtime import Runtime


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
    recipe: Recipe, directory: Path, resume: bool, corpus: Corpus, runtime: Runtime, command: Sequence[str]
) -> None:
    """Creates a run directory, or checks that an existing one can be resumed by this recipe.

    Raises:
        UserError: the directory is not empty, or its run has another recipe.
    """
    if resume and (directory / CONFIG).exists():
        run = Run.open(directory)
        if not recipe.trains_as(run.recipe):
            raise UserError(
                f"{directory} was started with another recipe.",
                f"Resume it with its own, {directory / CONFIG}, or give another directory with --out.",
            )
        if run.recipe != recipe:
            Run(directory, recipe).record(read_environment(directory))
        return
    inherited = {}
    if recipe.start:
        check_start(recipe)
        inherited = carry_origin(Path(recipe.start), directory)
    environment = {
        **runtime.describe(),
        "peak": find_peak(runtime.device, runtime.dtype).describe(),
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **inherited,
    }
    Run.create(directory, recipe, environment, corpus.path / TOKENIZER)
