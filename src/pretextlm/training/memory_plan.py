"""Fitting a step into memory: smaller micro-batches first, which cost least, then gradient checkpointing.

The gradients are the same in every case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from pretextlm.errors import DuplicateUserError, UserError
from pretextlm.memory import available_memory, memory
from pretextlm.model.loss import chunk_of
from pretextlm.model.transformer import meta_model
from pretextlm.training.distributed import DistributedContext
from pretextlm.training.memory_estimate import MemoryEstimate, estimate_memory, estimate_memory_per_process
from pretextlm.training.plan import Plan
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import Runtime

ENOUGH_TOKENS = 16_384
"""Tokens of a micro-batch that keep a GPU busy: below it, blocks are recomputed before a batch is split further."""
USABLE = 0.9
"""Usable share of free memory: the needs are an estimate, and allocators waste some."""

HOPELESS = 1.25
"""Share of the free memory above which even an estimate that is too high does not fit."""


@dataclass(frozen=True)
class MemoryPlan:
    """How a step fits into memory.

    Attributes:
        micro_rows: maximum rows of a micro-batch.
        recomputed: blocks with gradient checkpointing.
        memory: estimated memory of a process.
        free: memory available to a process; None if unknown.
    """

    micro_rows: int
    recomputed: int
    memory: MemoryEstimate
    free: int | None

    @property
    def fits(self) -> bool:
        return self.free is None or self.memory.total < USABLE * self.free


def plan_memory(recipe: Recipe, plan: Plan, runtime: Runtime, distributed: DistributedContext) -> MemoryPlan:
    """Chooses the fastest plan that fits on every process, or the smallest if none does.

    To be called by all processes together.
    """
    config, free = recipe.training, _free_on_all(runtime.device, distributed)
    model = meta_model(recipe.model, recipe.training_objective.heads)
    spread_over = distributed.local_world_size if config.parallel == "hybrid" else distributed.world_size
    dtype: Literal["bf16", "fp32"] = "fp32" if runtime.dtype == torch.float32 else "bf16"
    for rows, recomputed in _candidates(recipe, plan, runtime.device):
        needed = estimate_memory(
            model, config.optimizer, rows, plan.length, dtype, plan.target_length, recomputed, chunk_of(runtime.device)
        )
        found = MemoryPlan(
            rows, recomputed, estimate_memory_per_process(needed, model, config.parallel, spread_over), free
        )
        if found.fits:
            break
    return found


def refuse_too_large(recipe: Recipe, plan: MemoryPlan, device: torch.device, is_main: bool) -> None:
    """Ends a run that cannot fit before it begins: on a CPU, Linux would end it without a word.

    Raises:
        UserError: the estimate is well above all memory there is.
    """
    swap = (available_memory() or 0) - (memory("MemAvailable") or 0) if device.type == "cpu" else 0
    if plan.free is None or plan.memory.total < HOPELESS * (plan.free + swap):
        return
    rows = f"{plan.micro_rows} row{'s' * (plan.micro_rows > 1)} of data.length = {recipe.data.length:,}"
    raise (UserError if is_main else DuplicateUserError)(
        f"A step needs about {plan.memory.total:,} bytes of memory, {plan.memory.activations:,} of them for {rows}; "
        f"{plan.free + swap:,} are free.",
        "Give a smaller data.length, training.micro_batch_tokens or model; --dry-run shows what each of them takes.",
    )


def _candidates(recipe: Recipe, plan: Plan, device: torch.device) -> Iterator[tuple[int, int]]:
    """Yields (rows of a micro-batch, recomputed blocks) as the recipe allows, the fastest first."""
    config, model, rows = recipe.training, recipe.model, plan.micro_rows
    blocks = model.num_hidden_layers + (model.layers("decoder") if model.architecture == "encoder_decoder" else 0)
    recomputed = blocks if config.gradient_checkpointing == "blocks" else 0
    split = device.type == "cuda" and not config.micro_batch_tokens and not recipe.training_objective.needs_full_batch
    yield rows, recomputed
    while split and rows % 2 == 0 and rows * plan.length >= 2 * ENOUGH_TOKENS:
        rows //= 2
        yield rows, recomputed
    if config.gradient_checkpointing == "auto":
        for recomputed in (blocks,) if model.share_layers else range(1, blocks + 1):
            yield rows, recomputed
    while split and rows % 2 == 0:
        rows //= 2
        yield rows, recomputed


def _free_on_all(device: torch.device, distributed: DistributedContext) -> int | None:
    """Returns the memory that every process has available."""
    free = free_memory(device)
    shared_by = 1 if device.type == "cuda" else distributed.local_world_size
    least = float(distributed.all_gather([float("inf") if free is None else free // shared_by]).min())
    return None if least == float("inf") else int(least)


def free_memory(device: torch.device) -> int | None:
    """Returns the free bytes of the device; None if unknown."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else memory("MemAvailable")
