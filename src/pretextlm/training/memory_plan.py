"""How a step is cut so that it fits into memory: fewer rows at once first, which costs least, then recomputed blocks.

Whatever is chosen, gradients are those of the whole step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from pretextlm.model.transformer import meta_model
from pretextlm.training.distributed import DistributedContext
from pretextlm.training.machine_report import memory
from pretextlm.training.memory_estimate import Memory, on_each, training_memory
from pretextlm.training.plan import Plan
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import Runtime

ENOUGH_TOKENS = 16_384
"""Tokens of a pass that keep a GPU busy: below it, blocks are recomputed before a pass is cut further."""
USABLE = 0.9
"""Of free memory: the needs are an estimate, and allocators waste some."""


@dataclass(frozen=True)
class Fit:
    """Attributes: micro_rows: of a pass, at most; recomputed: blocks that keep only their inputs; memory: what a
    process then needs; free: what it can have, None where nobody knows."""

    micro_rows: int
    recomputed: int
    memory: Memory
    free: int | None

    @property
    def fits(self) -> bool:
        return self.free is None or self.memory.total < USABLE * self.free


def fit(recipe: Recipe, plan: Plan, runtime: Runtime, distributed: DistributedContext) -> Fit:
    """The first way that fits on every process, of those from the fastest to the smallest; the smallest if none does.

    Called on all processes together.
    """
    config, free = recipe.training, _free_everywhere(runtime.device, distributed)
    model = meta_model(recipe.model, recipe.training_objective.heads)
    spread_over = distributed.local_world_size if config.parallel == "hybrid" else distributed.world_size
    dtype: Literal["bf16", "fp32"] = "bf16" if runtime.dtype == torch.bfloat16 else "fp32"
    for rows, recomputed in _ways(recipe, plan, runtime.device):
        needed = training_memory(
            model, config.optimizer, rows, plan.length, dtype, plan.target_length, recomputed=recomputed
        )
        found = Fit(rows, recomputed, on_each(needed, model, config.parallel, spread_over), free)
        if found.fits:
            break
    return found


def _ways(recipe: Recipe, plan: Plan, device: torch.device) -> Iterator[tuple[int, int]]:
    """(rows of a pass, recomputed blocks) as the recipe allows; the first keeps most and is fastest."""
    config, model, rows = recipe.training, recipe.model, plan.micro_rows
    blocks = model.num_hidden_layers + (model.layers("decoder") if model.architecture == "encoder_decoder" else 0)
    recomputed = blocks if config.gradient_checkpointing == "blocks" else 0
    cut = device.type == "cuda" and not config.micro_batch_tokens and not recipe.training_objective.needs_full_batch
    yield rows, recomputed
    while cut and rows % 2 == 0 and rows * plan.length >= 2 * ENOUGH_TOKENS:
        rows //= 2
        yield rows, recomputed
    if config.gradient_checkpointing == "auto":
        for recomputed in (blocks,) if model.share_layers else range(1, blocks + 1):
            yield rows, recomputed
    while cut and rows % 2 == 0:
        rows //= 2
        yield rows, recomputed


def _free_everywhere(device: torch.device, distributed: DistributedContext) -> int | None:
    """The least that any process can count on."""
    free = free_memory(device)
    shared_by = 1 if device.type == "cuda" else distributed.local_world_size
    least = float(distributed.all_gather([float("inf") if free is None else free // shared_by]).min())
    return None if least == float("inf") else int(least)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of the device; None where nobody knows."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else memory("MemAvailable")
