"""A dry run: the cost of a recipe on this machine without training it, counted where possible and measured otherwise.

A few real steps run on the recipe's first rows with a learning rate of 0, compiled if the run would be. Nothing is
written.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pretextlm.data.document_rows import by_document
from pretextlm.model.flops import FORWARD_ONLY
from pretextlm.model.parameter_count import total
from pretextlm.model.transformer import Transformer, meta_model
from pretextlm.training.distributed import DistributedContext, process_group
from pretextlm.training.machine_report import place
from pretextlm.training.memory_estimate import estimate_memory
from pretextlm.training.metrics import peak_memory
from pretextlm.training.peak_flops import Peak, find_peak
from pretextlm.training.plan import make_loader
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_setup import Setup, set_up
from pretextlm.training.runtime import device_name, dtype_name
from pretextlm.training.signals import StopFlag
from pretextlm.training.trainer import Trainer

PROBE_SECONDS = 5.0
"""Duration of the measurement, of at least three steps."""
STEP_SECONDS = 2.0
"""A longer step of many micro-batches is measured on fewer of them."""
LEAST_STEPS, MOST_STEPS = 3, 20


@dataclass(frozen=True)
class Probe:
    """Measured steps.

    Attributes:
        steps: number of steps.
        rows: of each step.
        seconds: median of a step of `rows` rows.
        compile_seconds: of compiling.
        memory: peak bytes of the main process.
    """

    steps: int
    rows: int
    seconds: float
    compile_seconds: float
    memory: int


def dry_run(recipe: Recipe, directory: Path) -> dict[str, Any]:
    """Runs a recipe's first steps without learning.

    Args:
        recipe: of the run.
        directory: the run's directory; it need not exist and is not created.

    Returns:
        Plain values, the same on all processes: parameters, device, memory, step, disk, run, speed and time.

    Raises:
        UserError: training by the recipe would raise it.
    """
    with process_group(recipe.training.timeout_seconds, recipe.training.join_seconds) as distributed:
        setup = set_up(recipe, distributed)
        model = meta_model(setup.recipe.model, setup.recipe.training_objective.heads)
        needed = setup.memory
        probe = _probe(setup, directory, distributed) if needed.fits else None
        peak = find_peak(setup.runtime.device, setup.runtime.dtype)
        return {
            "recipe": recipe.name,
            "objective": recipe.training_objective.name,
            "architecture": recipe.model.architecture,
            "parameters": total(model),
            "device": _device(setup, distributed, peak),
            "memory": {
                **asdict(needed.memory),
                "total": needed.memory.total,
                "free": needed.free,
                "fits": needed.fits,
                "recomputed_blocks": needed.recomputed,
                "measured": probe.memory if probe else None,
            },
            "step": _step(setup, distributed),
            "disk": _disk(model, setup, directory),
            **_run(setup, distributed, probe, peak),
        }


def _device(setup: Setup, distributed: DistributedContext, peak: Peak) -> dict[str, Any]:
    return {
        "name": device_name(setup.runtime.device),
        "dtype": dtype_name(setup.runtime.dtype),
        "threads": setup.runtime.threads,
        "compile": setup.runtime.compile,
        "processes": distributed.world_size,
        "parallel": setup.recipe.training.parallel if distributed.world_size > 1 else None,
        "peak_flops_per_second": peak.flops_per_second,
        "peak_source": peak.source,
    }


def _step(setup: Setup, distributed: DistributedContext) -> dict[str, Any]:
    plan = setup.plan
    return {
        "rows": plan.rows,
        "rows_of_a_pass": plan.micro_rows,
        "passes_of_a_process": -(-plan.rows // (plan.micro_rows * distributed.world_size)),
        "length": plan.length,
        "target_length": plan.target_length,
        "tokens": plan.tokens_per_step,
        "flops": plan.flops_per_step,
    }


def _disk(model: Transformer, setup: Setup, directory: Path) -> dict[str, Any]:
    config = setup.recipe.training
    # Sizes of the files, which do not depend on how many processes write them.
    sizes = estimate_memory(model, config.optimizer, 0, 0, "fp32")
    checkpoint = sizes.weights + sizes.optimizer
    kept = config.keep_checkpoints
    return {
        "checkpoint_bytes": checkpoint,
        "kept": kept,
        "needed_bytes": checkpoint * (kept + 1),  # the oldest is removed after the newest is written
        **place(directory),
    }


def _run(setup: Setup, distributed: DistributedContext, probe: Probe | None, peak: Peak) -> dict[str, Any]:
    """Returns the size of the run, its speed and its duration."""
    plan, config = setup.plan, setup.recipe.training
    flops = plan.flops_per_step
    per_step = probe.seconds * plan.rows / probe.rows if probe else None
    budget = config.budget
    kind, size, steps = budget.kind, budget.size, budget.steps(plan, per_step)
    run = {
        "budget": {"kind": kind, "size": size},
        "steps": steps,
        "tokens": None if steps is None else steps * plan.tokens_per_step,
        "epochs": None if steps is None else steps * plan.rows / plan.rows_per_pass,
        "tokens_of_the_store": setup.corpus.num_tokens,
        "flops": None if steps is None else steps * flops,
        "known": "measured" if kind == "seconds" else "exact",
    }
    if probe is None or per_step is None or steps is None:
        return {"run": run, "speed": None, "time": None}
    rate = flops / per_step
    speed = {
        "measured_on": f"{probe.steps} steps of {probe.rows} rows",
        "seconds_per_step": per_step,
        "tokens_per_second": plan.tokens_per_step / per_step,
        "flops_per_second": rate,
        "mfu": rate / (peak.flops_per_second * distributed.world_size),
    }
    training = size if kind == "seconds" else steps * per_step
    measured = config.validations + 1 if config.validations else 0
    held_out = by_document(setup.corpus.reader("validation"), setup.recipe.evaluation.seed)
    rows = min(config.validation_rows, held_out.rows_per_pass)
    validation = measured * rows * plan.flops_per_row * FORWARD_ONLY / rate
    seconds = {
        "training_seconds": training,
        "validation_seconds": validation,
        "compile_seconds": probe.compile_seconds,
        "total_hours": (training + validation + probe.compile_seconds) / 3600,
    }
    return {"run": run, "speed": speed, "time": seconds}


def _probe(setup: Setup, directory: Path, distributed: DistributedContext) -> Probe:
    """Measures some steps; called by all processes."""
    plan, recipe = setup.plan, setup.recipe
    with ExitStack() as stack:
        run = Run(directory, recipe)
        trainer = Trainer(run, setup.corpus, plan, setup.runtime, Silent(), distributed, fresh=False)
        stack.enter_context(closing(trainer))
        loader = stack.enter_context(closing(make_loader(recipe, setup.corpus, plan.total_rows, distributed)))
        trainer.compile(loader, StopFlag())

        def seconds(rows: int) -> float:
            batches = list(loader.step(0, rows, plan.micro_rows))
            distributed.barrier()
            start = time.perf_counter()
            trainer.gradients(batches)
            trainer.optimizer.set_multiplier(0.0)
            trainer.optimizer.step(trainer.gradient_norm())
            if setup.runtime.device.type == "cuda":
                torch.cuda.synchronize()
            return float(distributed.all_gather([time.perf_counter() - start]).max())

        pass_rows = min(plan.rows, plan.micro_rows * distributed.world_size)
        seconds(pass_rows)  # warm-up: the first step allocates memory
        passes = max(1, int(STEP_SECONDS / seconds(pass_rows)))
        rows = min(plan.rows, passes * pass_rows)
        times: list[float] = []
        while len(times) < LEAST_STEPS or (sum(times) < PROBE_SECONDS and len(times) < MOST_STEPS):
            times.append(seconds(rows))
        return Probe(len(times), rows, median(times), trainer.compile_seconds, peak_memory(setup.runtime.device))
