"""What a recipe comes to on its store: rows of a step, their cost, how far the budget goes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
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
TYPICAL_FLOPS_PER_SECOND = 2e11
"""Only to guess whether compiling pays under a budget that is not in seconds; two CPU cores in fp32."""


@dataclass
class Position:
    """Where training is: all of the trainer's state that is neither weight nor optimizer.

    Attributes: step, seconds of training, flops, last validation done (the first is before any step), the sums of the
        log line being built, steps that were left out, the running mean of the gradient's norm, seconds of all devices
        together, the energy that was counted, the best validation (less is better) and its step, and how many
        validations since were no better.
    """

    step: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    validations: int = -1
    window: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    typical_norm: float = 0.0
    device_seconds: float = 0.0
    energy_joules: float = 0.0
    best: float | None = None
    best_step: int = 0
    stale: int = 0


@dataclass(frozen=True)
class Plan:
    """A recipe worked out against its store.

    Attributes:
        rows: of a step; micro_rows: of a forward and backward pass, at most.
        tokens_per_row: text tokens that a row stands for, on average.
        flops_per_row: cost of a row, on average over the first step.
        shapes: of the first step's batches; length, target_length: the longest of its rows, and of its second rows,
            where there are any.
        rows_per_pass: that together read everything once.
        total_rows: of the whole budget; None where only the clock knows.
        terms: names of the loss's terms, in one order for all processes.
        recomputed: first blocks that keep only their inputs for the backward pass (fit.py).
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
        return self.rows * self.tokens_per_row

    def step_share(self, budget: tuple[str, float]) -> float:
        """Share of the budget that one step takes; a guess where only the clock will tell."""
        kind, size = budget
        step = {
            "steps": 1.0,
            "tokens": float(self.tokens_per_step),
            "epochs": self.rows / self.rows_per_pass,
            "flops": self.rows * self.flops_per_row,
            "seconds": 0.01 * size,
        }
        return step[kind] / size

    def share(self, budget: tuple[str, float], at: Position) -> float:
        """Share of the budget used."""
        kind, size = budget
        used = {
            "steps": at.step,
            "tokens": at.step * self.tokens_per_step,
            "epochs": at.step * self.rows / self.rows_per_pass,
            "flops": at.flops,
            "seconds": at.seconds,
        }
        return min(1.0, used[kind] / size)


def make_plan(
    recipe: Recipe, store: Corpus, device: torch.device, distributed: DistributedContext = SINGLE_PROCESS
) -> Plan:
    """The same steps for any number of processes; only how they are cut depends on it.

    Raises UserError when the objective cannot be had with this vocabulary, length or batch.
    """
    config, objective = recipe.training, recipe.training_objective
    reader = objective.reader(store.train, recipe.vocabulary(store), recipe.data.length)
    per_row = reader.tokens_per_row
    rows = config.batch_rows or max(1, int(config.batch_tokens // per_row))
    micro_tokens = config.micro_batch_tokens or (
        MICRO_BATCH_TOKENS_CPU if device.type == "cpu" else config.batch_tokens
    )
    micro = max(1, min(rows, int(micro_tokens // per_row)))
    if objective.needs_full_batch:
        _check_whole(objective.name, config.micro_batch_tokens, rows * per_row, distributed)
        micro = rows
    elif config.batch_rows:
        micro = -(-rows // -(-rows // micro))
    else:
        rows = max(1, rows // micro) * micro
    with closing(make_loader(recipe, store, reader, None)) as loader:
        sample = loader.step(0, rows, micro)
    cost = sum(objective.flops(recipe.model, batch) for batch in sample) / rows
    for place in objective.frozen_models().values():
        frozen = Run.open(Path(place)).recipe.model
        cost += FORWARD_ONLY * sum(objective.flops(frozen, batch) for batch in sample) / rows
    kind, size = config.budget
    per_unit = {"steps": 1 / rows, "tokens": per_row, "epochs": 1 / reader.rows_per_pass, "flops": cost}.get(kind)
    if objective.scheduled_noise and per_unit is None:
        raise UserError(
            f"The noise of {objective.name!r} changes over training; a budget in {kind} does not say how far that is.",
            "Give budget_steps, budget_tokens, budget_epochs or budget_flops.",
        )
    shapes = {(batch.input_ids.shape[1], batch.targets.shape[1], batch.segment_ids is None) for batch in sample}
    length = max(batch.input_ids.shape[1] for batch in sample)
    seconds = [batch.decoder_input_ids.shape[1] for batch in sample if batch.decoder_input_ids is not None]
    terms = tuple(sorted({name for batch in sample for name in objective.counts(batch)}))
    micro = min(micro, -(-rows // distributed.world_size))
    total_rows = size / per_unit if per_unit else None
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


def _check_whole(name: str, micro_batch_tokens: int, tokens: float, distributed: DistributedContext) -> None:
    """Raises UserError where a step that has to be one pass would be cut."""
    if 0 < micro_batch_tokens < tokens or distributed.world_size > 1:
        raise UserError(
            f"The loss of {name!r} compares all rows of a step, so that a step is one pass of one process.",
            'Leave out training.micro_batch_tokens; training.gradient_checkpointing="blocks" saves memory too.'
            if distributed.world_size == 1
            else "Train it in one process.",
        )


def expected_seconds(kind: str, budget: float, plan: Plan) -> float:
    """A guess of how long the run will take."""
    per_step = plan.rows * plan.flops_per_row / TYPICAL_FLOPS_PER_SECOND
    return {
        "steps": budget * per_step,
        "tokens": budget / plan.tokens_per_step * per_step,
        "epochs": budget * plan.rows_per_pass / plan.rows * per_step,
        "flops": budget / TYPICAL_FLOPS_PER_SECOND,
        "seconds": budget,
    }[kind]


def make_loader(
    recipe: Recipe,
    store: Corpus,
    reader: RowReader,
    total_rows: float | None,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> Loader:
    """Batches of this process by the recipe. Tokens that the store's tokenizer does not have raise UserError."""
    objective, vocabulary = recipe.training_objective, recipe.vocabulary(store)

    def collate(rows: Rows, rng: CounterRNG) -> Batch:
        if rows.tokens.size and not 0 <= int(rows.tokens.min()) <= int(rows.tokens.max()) < vocabulary.size:
            raise UserError(
                f"{store.path} is damaged: it holds a token id that its tokenizer does not have.",
                f"See which file: pretextlm data inspect {store.path} --verify. Mend it, then go on with --resume.",
            )
        return objective.collate(rows, vocabulary, rng)

    return Loader(
        reader,
        collate,
        recipe.seed,
        workers=recipe.data.workers,
        copies=objective.noise_period,
        total_rows=total_rows if objective.scheduled_noise else None,
        share=(distributed.rank, distributed.world_size),
        dropout_keys="" if not recipe.training.dropout else "packed" if recipe.task else "rows",
    )
