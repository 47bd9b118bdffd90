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
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.data.loader import Loader
from pretextlm.data.mixture import Reader
from pretextlm.data.store import Store, sha256_of
from pretextlm.errors import UserError
from pretextlm.files import write_json
from pretextlm.model.flops import FORWARD_ONLY
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.forward import Forward
from pretextlm.training.metrics import MetricsLog
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.recipe import Recipe
from pretextlm.training.run import TOKENIZER, Run, locked
from pretextlm.training.runtime import Runtime, device_name
from pretextlm.training.schedules import rate
from pretextlm.training.signals import StopFlag, Stopped
from pretextlm.training.start import carry_origin, check_start, load_start
from pretextlm.training.validation import validate

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
    """A recipe worked out against its store.

    Attributes:
        rows: of a step; micro_rows: of a forward and backward pass, at most.
        tokens_per_row: text tokens that a row stands for, on average.
        flops_per_row: cost of a row, on average over the first step.
        shapes: of the first step's batches.
        total_rows: of the whole budget; None where only the clock knows.
    """

    rows: int
    micro_rows: int
    tokens_per_row: float
    flops_per_row: float
    shapes: int
    total_rows: float | None

    @property
    def tokens_per_step(self) -> float:
        return self.rows * self.tokens_per_row

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
    config, objective = recipe.training, recipe.objective
    reader = objective.reader(store.train, recipe.vocabulary(store), recipe.data.length)
    per_row = reader.tokens_per_row
    rows = max(1, int(config.batch_tokens // per_row))
    micro_tokens = config.micro_batch_tokens or (
        MICRO_BATCH_TOKENS_CPU if device.type == "cpu" else config.batch_tokens
    )
    micro = max(1, min(rows, int(micro_tokens // per_row)))
    rows = max(1, rows // micro) * micro
    with closing(_loader(recipe, store, reader, None)) as loader:
        sample = loader.step(0, rows, micro)
    cost = sum(objective.flops(recipe.model, batch) for batch in sample) / rows
    for place in objective.frozen_models().values():
        frozen = Run.open(Path(place)).recipe.model
        cost += FORWARD_ONLY * sum(objective.flops(frozen, batch) for batch in sample) / rows
    kind, size = config.budget
    per_unit = {"steps": 1 / rows, "tokens": per_row, "flops": cost}.get(kind)
    if objective.scheduled and per_unit is None:
        raise UserError(
            f"The noise of {objective.name!r} changes over training; a budget in {kind} does not say how far that is.",
            "Give budget_steps, budget_tokens or budget_flops.",
        )
    shapes = {(batch.input_ids.shape[1], batch.targets.shape[1], batch.segment_ids is None) for batch in sample}
    return Plan(rows, micro, per_row, cost, len(shapes), size / per_unit if per_unit else None)


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
    _check_tokenizers(recipe, store)
    _check_positions(recipe)
    kind, budget = recipe.training.budget
    device = Runtime.choose(recipe.training, 0.0).device
    plan = make_plan(recipe, store, device)
    runtime = Runtime.choose(recipe.training, _expected_seconds(kind, budget, plan))
    with locked(directory), StopFlag() as stop:
        run = _open_run(recipe, directory, resume, store, runtime, command)
        trainer = Trainer(run, store, plan, runtime, progress)
        progress.note("; ".join(runtime.notes))
        if not (resume and trainer.restore()) and recipe.start:
            trainer.start()
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
        self.forward = Forward(self.model, self.objective, runtime.device, runtime.dtype)
        self.objective.begin(self.forward.models)
        self.optimizer = Optimizer(self.model, self.config, runtime.dtype)
        self.log = MetricsLog(run)
        self.compile_seconds = 0.0

    def start(self) -> None:
        """Take the weights of the run that the recipe starts from."""
        drawn = load_start(self.model, self.recipe)
        self.progress.note(f"started from {self.recipe.start}" + (f"; drawn: {', '.join(drawn)}" if drawn else ""))

    def restore(self) -> bool:
        """Go on from the newest checkpoint that verifies; says whether there is one."""
        found = checkpoints.newest(self.run.checkpoints, quarantine=True)
        if found is not None:
            self.model.load_state_dict(found.model())
            self.optimizer.load(found.optimizer())
            self.position = Position(**found.state)
            self.progress.note(f"resumed at step {found.step:,}")
        self.run.rewind_metrics(self.position.step)
        return found is not None

    def train(self, stop: StopFlag) -> None:
        """Until the budget is used or a signal comes; a checkpoint stands at the end either way."""
        saved_at = time.monotonic()
        reader = self.objective.reader(self.store.train, self.recipe.vocabulary(self.store), self.recipe.data.length)
        with closing(_loader(self.recipe, self.store, reader, self.plan.total_rows)) as loader:
            self._compile(loader)
            steps = loader.steps(self.position.step * self.plan.rows, self.plan.rows, self.plan.micro_rows)
            with torch.compiler.set_stance("eager_on_recompile"):  # a shape not seen by now is too rare to pay
                self._validate_when_due()
                while (share := self._share()) < 1.0 and not stop.number:
                    self._step(steps, share)
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
        self.model.compile_parts(self.plan.shapes)
        self.gradients(loader.step(0, self.plan.rows, self.plan.micro_rows))
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
        """Back-propagate the loss of one global step, cut into these micro-batches; returns each term's part of it.

        The counts of the whole step are known before the first loss, so each part is divided by the same number.
        """
        counts: Counter[str] = Counter()
        for batch in batches:
            counts.update(self.objective.counts(batch))
        parts = dict.fromkeys(counts, 0.0)
        for batch in batches:
            terms = self.objective.step(self.forward, batch)
            losses = [term.coefficient * term.total / max(1, counts[name]) for name, term in terms.items()]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            for (name, _), loss in zip(terms.items(), losses, strict=True):
                parts[name] += float(loss.detach())
        return parts

    def _step(self, steps: Iterator[list[Batch]], share: float) -> None:
        start = time.perf_counter()
        losses = self.gradients(next(steps))
        norm = self._clip()
        multiplier = self._multiplier(share)
        self.optimizer.step(multiplier)
        at, loss = self.position, sum(losses.values())
        seconds = time.perf_counter() - start
        at.step += 1
        at.seconds += seconds
        at.flops += self.plan.rows * self.plan.flops_per_row
        values = {
            "step": at.step,
            "tokens": self._tokens(),
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
        vocabulary = self.recipe.vocabulary(self.store)
        reader = self.objective.reader(self.store.validation, vocabulary, self.recipe.data.length)
        rows, seed = self.config.validation_rows, self.recipe.evaluation.seed
        found = validate(self.forward, reader, self.objective, vocabulary, rows=rows, seed=seed)
        at = self.position
        where = {"step": at.step, "tokens": self._tokens(), "seconds": at.seconds, "flops": at.flops}
        self.log.validation({**where, "loss": found.loss, **found.parts})
        self.progress.note(f"step {at.step:,}: validation {found}")

    def _tokens(self) -> int:
        return round(self.position.step * self.plan.tokens_per_step)

    def _share(self) -> float:
        return self.plan.share(self.config.budget, self.position)

    def _cost(self) -> dict[str, Any]:
        at = self.position
        return {
            "parameters": count_parameters(self.model),
            "steps": at.step,
            "tokens": self._tokens(),
            "seconds": at.seconds,
            "compile_seconds": self.compile_seconds,
            "flops": at.flops,
            "device": device_name(self.runtime.device),
            "energy_joules": None,
        }


def build_model(recipe: Recipe, device: torch.device) -> Transformer:
    """The trunk with weights drawn from the recipe's seed alone, the same on every device."""
    with torch.device("meta"):
        model = Transformer(recipe.model, recipe.objective.heads(recipe.model))
    model.to_empty(device="cpu")
    digest = hashlib.sha256(f"weights {recipe.seed}".encode()).digest()
    model.reset_parameters(torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
    return model.to(device)


def count_parameters(model: torch.nn.Module) -> int:
    """Weights, tied ones once."""
    tensors: list[Tensor] = list(model.parameters())
    return sum(t.numel() for t in tensors)


def _loader(recipe: Recipe, store: Store, reader: Reader, total_rows: float | None) -> Loader:
    objective, vocabulary = recipe.objective, recipe.vocabulary(store)
    return Loader(
        reader,
        lambda rows, rng: objective.corrupt(rows, vocabulary, rng),
        recipe.seed,
        workers=recipe.data.workers,
        copies=objective.copies,
        total_rows=total_rows if objective.scheduled else None,
    )


def _check_tokenizers(recipe: Recipe, store: Store) -> None:
    """Raises UserError when a frozen model, or the one to start from, has other tokens than the store."""
    expected = sha256_of(store.path / TOKENIZER)
    start = {"run to start from": recipe.start} if recipe.start and Path(recipe.start).exists() else {}
    for role, place in {**recipe.objective.frozen_models(), **start}.items():
        if sha256_of(Run.open(Path(place)).directory / TOKENIZER) != expected:
            raise UserError(
                f"The {role} {place} was trained with another tokenizer than {store.path} was prepared with.",
                f"Prepare the text with the {role}'s: pretextlm data prepare … --tokenizer {place}/{TOKENIZER}",
            )


def _check_positions(recipe: Recipe) -> None:
    """Raises UserError when rows are longer than the model's table of positions."""
    positions = recipe.model.positions
    rows = positions.max_positions - positions.offset
    if positions.kind == "learned" and recipe.data.length > rows:
        raise UserError(
            f"data.length is {recipe.data.length}, but the model has a table of {rows} positions.",
            f"Give data.length={rows} or less.",
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
    carried = {}
    if recipe.start:
        check_start(recipe)
        carried = carry_origin(Path(recipe.start), directory)
    environment = {
        **runtime.describe(),
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **carried,
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
