"""The one training loop: rows → batch → terms → global step, under a budget, with validation and exact resume.

The loss of a step is Σ coefficient · total / count over its terms, where totals and counts are summed over all
micro-batches first; so the gradient does not depend on how a step is cut. Everything a step reads is a function of its
number, so the position in training is that number and resuming is bit-identical on a CPU.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.data.loader import Loader
from pretextlm.data.rows import StreamReader
from pretextlm.data.store import Split, Store
from pretextlm.errors import UserError
from pretextlm.files import write_json
from pretextlm.model.inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective, Variant
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.flops import flops_per_row
from pretextlm.training.metrics import MetricsLog
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.recipe import Recipe
from pretextlm.training.run import Run, locked
from pretextlm.training.runtime import Runtime, device_name
from pretextlm.training.schedules import rate
from pretextlm.training.signals import StopFlag, Stopped
from pretextlm.training.validation import validation_loss

MICRO_BATCH_TOKENS_CPU = 8192
TYPICAL_FLOPS_PER_SECOND = 2e11
"""Only to guess whether compiling pays under a budget that is not in seconds; two CPU cores in fp32."""


class Progress(Protocol):
    """Whoever shows a run to a person: called after every step and at other moments worth a line."""

    def step(self, share: float, values: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Shows nothing."""

    def step(self, share: float, values: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@dataclass
class Position:
    """Where training is: all of the trainer's state that is neither weight nor optimizer.

    Attributes: step, seconds of training, flops, last validation done (the first is before any step), and the sums of
        the log line being built.
    """

    step: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    validations: int = -1
    window: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A recipe worked out against its store: shapes, rows per step, micro-batches and cost of a row."""

    variant: Variant
    rows: int
    micro_rows: int
    labels_per_row: float
    flops_per_row: float

    @property
    def tokens_per_step(self) -> int:
        return self.rows * (self.variant.raw - self.variant.overlap)

    def step_share(self, budget: tuple[str, float]) -> float:
        """Share of the budget that one step takes; a guess where only the clock will tell."""
        kind, size = budget
        flops = self.rows * self.flops_per_row
        return {"steps": 1.0, "tokens": float(self.tokens_per_step), "flops": flops, "seconds": 0.01 * size}[
            kind
        ] / size

    def share(self, budget: tuple[str, float], at: Position) -> float:
        """Share of the budget used."""
        kind, size = budget
        used = {"steps": at.step, "tokens": at.step * self.tokens_per_step, "flops": at.flops, "seconds": at.seconds}
        return min(1.0, used[kind] / size)


def make_plan(recipe: Recipe, store: Store, device: torch.device) -> Plan:
    """Raises UserError when the objective cannot be had with this vocabulary, length or batch."""
    variants = recipe.objective.variants(store.vocabulary, recipe.data.length)
    assert len(variants) == 1, "mixtures of variants are read by a mixture"
    variant = variants[0]
    stride = variant.raw - variant.overlap
    config = recipe.training
    rows = max(1, config.batch_tokens // stride)
    micro_tokens = config.micro_batch_tokens or (
        MICRO_BATCH_TOKENS_CPU if device.type == "cpu" else config.batch_tokens
    )
    micro = max(1, min(rows, micro_tokens // stride))
    rows = max(1, rows // micro) * micro
    reader = StreamReader(store.train, recipe.objective.frame(store.vocabulary), variant)
    with closing(_loader(recipe, store, reader)) as loader:
        sample = loader.batch(0, micro)
    labels = sum(recipe.objective.counts(sample).values()) / micro
    causal = sample.attention == "causal"
    cost = flops_per_row(recipe.model, variant.length, variant.decoder_length, labels, causal)
    return Plan(variant, rows, micro, labels, cost)


def pretrain(
    recipe: Recipe,
    directory: Path,
    *,
    resume: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Train by the recipe into a run directory.

    Args:
        recipe: with the path of its store; the model's vocab_size may be 0.
        directory: a new one, or with `resume` one to go on with (a missing one is then begun).
        command: argv to record, so that a reader can do it again.
        progress: told of every step.

    Raises:
        UserError: wrong recipe, store or machine; a directory in use or not empty; a full disk; a loss that is
            not finite.
        Stopped: SIGINT or SIGTERM came; a checkpoint of that step was written.
    """
    progress = progress or Silent()
    store = Store.open(Path(recipe.data.store))
    recipe = recipe.with_vocabulary(store.vocabulary.size)
    kind, budget = recipe.training.budget
    device = Runtime.choose(recipe.training, 0.0).device
    plan = make_plan(recipe, store, device)
    runtime = Runtime.choose(recipe.training, _expected_seconds(kind, budget, plan))
    with locked(directory), StopFlag() as stop:
        run = _open_run(recipe, directory, resume, store, runtime, command)
        trainer = Trainer(run, store, plan, runtime, progress)
        progress.note("; ".join(runtime.notes))
        if resume:
            trainer.restore()
        trainer.train(stop)
    return run


class Trainer:
    """The state of one run in memory. Use `pretrain`; the parts are open for tests and for exact experiments."""

    def __init__(self, run: Run, store: Store, plan: Plan, runtime: Runtime, progress: Progress) -> None:
        self.run, self.store, self.plan, self.runtime, self.progress = run, store, plan, runtime, progress
        self.recipe, self.config = run.recipe, run.recipe.training
        self.objective: Objective = run.recipe.objective
        self.position = Position()
        self.model = build_model(self.recipe, runtime.device)
        self.optimizer = Optimizer(self.model, self.config, runtime.dtype)
        self.log = MetricsLog(run)
        self.compile_seconds = 0.0

    def restore(self) -> None:
        """Go on from the newest checkpoint that verifies; from the start when there is none."""
        found = checkpoints.newest(self.run.checkpoints, quarantine=True)
        if found is not None:
            self.model.load_state_dict(found.model())
            self.optimizer.load(found.optimizer())
            self.position = Position(**found.state)
            self.progress.note(f"resumed at step {found.step:,}")
        self.run.rewind_metrics(self.position.step)

    def train(self, stop: StopFlag) -> None:
        """Until the budget is used or a signal comes; a checkpoint stands at the end either way."""
        saved_at = time.monotonic()
        with closing(_loader(self.recipe, self.store, self._reader(self.store.train))) as loader:
            self._compile(loader)
            batches = loader.batches(self.position.step * self.plan.rows, self.plan.micro_rows)
            self._validate_when_due()
            while (share := self._share()) < 1.0 and not stop.number:
                self._step(batches, share)
                self._validate_when_due()
                if time.monotonic() - saved_at > self.config.checkpoint_seconds:
                    self.save()
                    saved_at = time.monotonic()
        self.save()
        if stop.number:
            raise Stopped(stop.number)
        write_json(self.run.directory / "cost.json", self._cost())

    def _compile(self, loader: Loader) -> None:
        """Compile before the clock starts: its cost depends on the cache, and runs are compared by their seconds."""
        if not self.runtime.compile:
            return
        start = time.perf_counter()
        self.model.compile_parts()
        self.gradients([loader.batch(0, self.plan.micro_rows)])
        self.model.zero_grad()
        self.compile_seconds = time.perf_counter() - start
        self.progress.note(f"compiled in {self.compile_seconds:.0f} s")

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        state = vars(self.position)
        weights = self.model.state_dict()
        keep = self.config.keep_checkpoints
        checkpoints.save(self.run.checkpoints, self.position.step, weights, self.optimizer.state(), state, keep)

    def gradients(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Back-propagate the loss of one global step, cut into these micro-batches; returns the mean of each term.

        The counts of the whole step are known before the first loss, so each part is divided by the same number.
        """
        counts: Counter[str] = Counter()
        for batch in batches:
            counts.update(self.objective.counts(batch))
        means = dict.fromkeys(counts, 0.0)
        for batch in batches:
            inputs = prepare(batch, self.recipe.model, self.runtime.device, self.runtime.dtype)
            terms = self.objective.terms(self.model(inputs), batch)
            losses = [term.coefficient * term.total / max(1, counts[name]) for name, term in terms.items()]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                means[name] += float(term.total.detach()) / max(1, counts[name])
        return means

    def _step(self, batches: Iterator[Batch], share: float) -> None:
        start = time.perf_counter()
        parts = self.plan.rows // self.plan.micro_rows
        means = self.gradients(list(islice(batches, parts)))
        norm = self._clip()
        multiplier = self._multiplier(share)
        self.optimizer.step(multiplier)
        at, loss = self.position, sum(means.values())
        seconds = time.perf_counter() - start
        at.step += 1
        at.seconds += seconds
        at.flops += self.plan.rows * self.plan.flops_per_row
        values = {
            "step": at.step,
            "tokens": at.step * self.plan.tokens_per_step,
            "seconds": at.seconds,
            "flops": at.flops,
            "loss": loss,
            "learning_rate": self.config.learning_rate * multiplier,
            "gradient_norm": norm,
            "tokens_per_second": self.plan.tokens_per_step / seconds,
        }
        at.window = self.log.train(values, at.window, self.config.log_every)
        self.progress.step(self._share(), values)

    def _clip(self) -> float:
        """Clip the gradient and return its norm. Raises UserError before any weight takes a value that is not one."""
        limit = self.config.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not norm < float("inf"):
            self.save()
            raise UserError(
                f"The gradient is not finite at step {self.position.step + 1}; the weights before it are saved.",
                "Lower training.learning_rate, or raise training.warmup.",
            )
        return norm

    def _multiplier(self, share: float) -> float:
        config = self.config
        # The rate at the middle of the step: at its start, the first step of a warm-up would be wasted.
        done = self.position.step
        middle = min(1.0, share + 0.5 * (share / done if done else self.plan.step_share(config.budget)))
        return rate(middle, config.schedule, config.warmup, config.cooldown, config.final_learning_rate)

    def _validate_when_due(self) -> None:
        due = int(self._share() * self.config.validations + 1e-9)
        if due <= self.position.validations or not self.config.validations:
            return
        self.position.validations = due
        reader = self._reader(self.store.validation)
        rows = min(self.config.validation_rows, reader.rows_per_pass)
        loss = validation_loss(
            self.model,
            reader,
            self.objective,
            self.store.vocabulary,
            rows=rows,
            seed=self.recipe.evaluation.seed,
            device=self.runtime.device,
            dtype=self.runtime.dtype,
        )
        at = self.position
        tokens = at.step * self.plan.tokens_per_step
        self.log.validation(
            {"step": at.step, "tokens": tokens, "seconds": at.seconds, "flops": at.flops, "loss": loss.mean}
        )
        self.progress.note(f"step {at.step:,}: validation loss {loss.mean:.4f}")

    def _reader(self, split: Split) -> StreamReader:
        return StreamReader(split, self.objective.frame(self.store.vocabulary), self.plan.variant)

    def _share(self) -> float:
        return self.plan.share(self.config.budget, self.position)

    def _cost(self) -> dict[str, Any]:
        at = self.position
        return {
            "parameters": count_parameters(self.model),
            "steps": at.step,
            "tokens": at.step * self.plan.tokens_per_step,
            "seconds": at.seconds,
            "compile_seconds": self.compile_seconds,
            "flops": at.flops,
            "device": device_name(self.runtime.device),
            "energy_joules": None,
        }


def build_model(recipe: Recipe, device: torch.device) -> Transformer:
    """The trunk with weights drawn from the recipe's seed alone, the same on every device."""
    with torch.device("meta"):
        model = Transformer(recipe.model)
    model.to_empty(device="cpu")
    digest = hashlib.sha256(f"weights {recipe.seed}".encode()).digest()
    model.reset_parameters(torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
    return model.to(device)


def count_parameters(model: torch.nn.Module) -> int:
    """Weights, tied ones once."""
    tensors: list[Tensor] = list(model.parameters())
    return sum(t.numel() for t in tensors)


def _loader(recipe: Recipe, store: Store, reader: StreamReader) -> Loader:
    objective, vocabulary = recipe.objective, store.vocabulary
    return Loader(
        reader, lambda rows, rng: objective.corrupt(rows, vocabulary, rng), recipe.seed, 1, recipe.data.workers
    )


def _open_run(
    recipe: Recipe, directory: Path, resume: bool, store: Store, runtime: Runtime, command: Sequence[str]
) -> Run:
    if resume and (directory / "config.toml").exists():
        run = Run.open(directory)
        if run.recipe != recipe:
            raise UserError(
                f"{directory} was begun with another recipe.",
                f"Go on with its own, {directory / 'config.toml'}, or give another directory with --out.",
            )
        return run
    environment = {
        **runtime.describe(),
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return Run.create(directory, recipe, environment, store.path / "tokenizer.json")


def _expected_seconds(kind: str, budget: float, plan: Plan) -> float:
    per_step = plan.rows * plan.flops_per_row / TYPICAL_FLOPS_PER_SECOND
    return {
        "steps": budget * per_step,
        "tokens": budget / plan.tokens_per_step * per_step,
        "flops": budget / TYPICAL_FLOPS_PER_SECOND,
        "seconds": budget,
    }[kind]
