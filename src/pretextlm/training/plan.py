"""The steps of a recipe on its data: rows of a step, their cost, and the loader of their batches."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.loader import Loader
from pretextlm.data.row_reader import RowReader
from pretextlm.errors import UserError
from pretextlm.model.flops import FORWARD_ONLY
from pretextlm.training.corpus import Corpus
from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run

MICRO_BATCH_TOKENS_CPU = 8192


@dataclass(frozen=True)
class Plan:
    """A recipe's steps on its data.

    Attributes:
        rows: rows of a step.
        micro_rows: maximum rows of one forward and backward pass.
        tokens_per_row: mean text tokens of a row.
        flops_per_row: mean floating-point operations of a row, over the first step.
        shapes: number of different batch shapes in the first step.
        length: width of its widest input row.
        target_length: width of its widest decoder row, if there is a decoder.
        rows_per_pass: rows of one pass over the data.
        total_rows: rows of the whole budget; None for a budget in seconds.
        terms: names of the loss terms, in the same order on all processes.
        recomputed: number of blocks with gradient checkpointing (memory_plan.py).
    """

    rows: int
    micro_rows: int
    tokens_per_row: float
    flops_per_row: float
    shapes: int
    length: int
    target_length: int | None
    rows_per_pass: int
    total_rows: float | None
    terms: tuple[str, ...]
    recomputed: int = 0

    @property
    def tokens_per_step(self) -> float:
        """Text tokens of a step."""
        return self.rows * self.tokens_per_row

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of a step."""
        return self.rows * self.flops_per_row


def make_plan(
    recipe: Recipe, corpus: Corpus, device: torch.device, distributed: DistributedContext = SINGLE_PROCESS
) -> Plan:
    """Plans the steps of a recipe. They are the same for any number of processes; only micro-batches depend on it.

    Args:
        recipe: complete.
        corpus: its data.
        device: to train on.
        distributed: the processes that train together.

    Returns:
        The plan.

    Raises:
        UserError: the objective does not work with this vocabulary, length, batch or budget.
    """
    config, objective = recipe.training, recipe.training_objective
    reader = corpus.reader("train")
    per_row = reader.tokens_per_row
    rows = config.batch_rows or max(1, int(config.batch_tokens // per_row))
    micro_tokens = config.micro_batch_tokens or (
        MICRO_BATCH_TOKENS_CPU if device.type == "cpu" else config.batch_tokens
    )
    micro = max(1, min(rows, int(micro_tokens // per_row)))
    if objective.needs_full_batch:
        _check_full_batch(objective.name, config.micro_batch_tokens, rows * per_row, distributed)
        micro = rows
    elif config.batch_rows:
        micro = -(-rows // -(-rows // micro))
    else:
        rows = max(1, rows // micro) * micro
    with closing(make_loader(recipe, corpus, None, reader=reader)) as loader:
        sample = loader.step(0, rows, micro)
    cost = sum(objective.flops(recipe.model, batch) for batch in sample) / rows
    for place in objective.frozen_models().values():
        frozen = Run.open(Path(place)).recipe.model
        cost += FORWARD_ONLY * sum(objective.flops(frozen, batch) for batch in sample) / rows
    total_rows = config.budget.rows(rows, per_row, cost, reader.rows_per_pass)
    if objective.scheduled_noise and total_rows is None:
        raise UserError(
            f"The noise of {objective.name!r} changes over training; a budget in seconds does not say how far that is.",
            "Give budget_steps, budget_tokens, budget_epochs or budget_flops.",
        )
    shapes = {(batch.input_ids.shape[1], batch.targets.shape[1], batch.segment_ids is None) for batch in sample}
    length = max(batch.input_ids.shape[1] for batch in sample)
    seconds = [batch.decoder_input_ids.shape[1] for batch in sample if batch.decoder_input_ids is not None]
    terms = tuple(sorted({name for batch in sample for name in objective.counts(batch)}))
    micro = min(micro, -(-rows // distributed.world_size))
    return Plan(
        rows=rows,
        micro_rows=micro,
        tokens_per_row=per_row,
        flops_per_row=cost,
        shapes=max(2, len(shapes)) if objective.dynamic_shapes else len(shapes),
        length=length,
        target_length=max(seconds, default=None),
        rows_per_pass=reader.rows_per_pass,
        total_rows=total_rows,
        terms=terms,
    )


def _check_full_batch(name: str, micro_batch_tokens: int, tokens: float, distributed: DistributedContext) -> None:
    """Checks that a step that must be one pass is not split into micro-batches.

    Raises:
        UserError: it would be.
    """
    if 0 < micro_batch_tokens < tokens or distributed.world_size > 1:
        raise UserError(
            f"The loss of {name!r} compares all rows of a step, so that a step is one pass of one process.",
            'Leave out training.micro_batch_tokens; training.gradient_checkpointing="blocks" saves memory too.'
            if distributed.world_size == 1
            else "Train it in one process.",
        )


def make_loader(
    recipe: Recipe,
    corpus: Corpus,
    total_rows: float | None,
    distributed: DistributedContext = SINGLE_PROCESS,
    reader: RowReader | None = None,
) -> Loader:
    """Returns a loader of this process's training batches.

    Args:
        recipe: complete.
        corpus: its data.
        total_rows: of the whole budget, for noise that follows a schedule.
        distributed: the processes that train together.
        reader: of the training split, if there is one already.

    A token id that the tokenizer does not have raises UserError when it is read.
    """
    objective, vocabulary = recipe.training_objective, corpus.vocabulary

    def collate(rows: Rows, rng: CounterRNG) -> Batch:
        if rows.tokens.size and not 0 <= int(rows.tokens.min()) <= int(rows.tokens.max()) < vocabulary.size:
            raise UserError(
                f"{corpus.path} is damaged: it holds a token id that its tokenizer does not have.",
                f"Find the file: pretextlm data inspect {corpus.path} --verify. Restore it, then use --resume.",
            )
        return objective.collate(rows, vocabulary, rng)

    return Loader(
        reader or corpus.reader("train"),
        collate,
        recipe.seed,
        workers=recipe.data.workers,
        copies=objective.noise_period,
        total_rows=total_rows if objective.scheduled_noise else None,
        share=(distributed.rank, distributed.world_size),
        dropout_keys="" if not recipe.training.dropout else "packed" if recipe.task else "rows",
    )
