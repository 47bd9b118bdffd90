"""A run before and after compression: the held-out loss, or of a fine-tuned run the scores of its task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pretextlm.compression.losses import LossComparison, model_of
from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import task_metrics, task_records
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.training.run_directory import Run

Compare = Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Any]]


def comparison(run: Run, model: Transformer, data: Path | None = None) -> Compare:
    """Measures a run's own model.

    Args:
        run: the run.
        model: with its own weights.
        data: a store of text, or of a fine-tuned run a file of records; by default the run's own.

    Returns:
        A function that measures other weights, whose model may be smaller, and returns plain values: "loss" (before,
        after and change), or "scores" (of each metric before and after); where neither can be measured, "loss" is
        None and "not_measured" the reason.

    Raises:
        UserError: `data` is given and cannot be used.
    """
    try:
        return _loss(run, model, data) if run.recipe.task is None else _scores(run, model, data)
    except UserError as error:
        if data is not None:
            raise
        reason = error.message
        return lambda config, weights: {"loss": None, "not_measured": reason}


def _loss(run: Run, model: Transformer, store: Path | None) -> Compare:
    measured = LossComparison.of(run, model, store)
    return lambda config, weights: {"loss": measured.compare(config, weights).plain(), "not_measured": None}


def _scores(run: Run, model: Transformer, data: Path | None) -> Compare:
    task, records = task_records(run, "" if data is None else os.fspath(data))
    before, _ = task_metrics(run, model.eval(), task, records)

    def compare(config: ModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        after, _ = task_metrics(run, model_of(run, config, weights), task, records)
        scores = {name: {"before": before[name].plain(), "after": after[name].plain()} for name in before}
        return {"scores": scores, "loss": None, "not_measured": None}

    return compare
