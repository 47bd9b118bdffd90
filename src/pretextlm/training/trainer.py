"""The one training loop: rows → batch → terms → global step, under a budget, with validation and exact resume.

The loss of a step is Σ coefficient · total / count over its terms, where totals and counts are summed over all
micro-batches first; so the gradient does not depend on how a step is cut. Everything a step reads is a function of its
number, so the position in training is that number and resuming is bit-identical on a CPU.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from pretextlm.batch import Batch, Spare
from pretextlm.data.loader import Loader
from pretextlm.errors import DuplicateUserError, UserError
from pretextlm.files import AnyPath, write_json
from pretextlm.model.parameter_count import total
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.begin import begin, build_model, generator_of
from pretextlm.training.best_checkpoint import Best
from pretextlm.training.checkpoint_writer import Saver
from pretextlm.training.corpus import Corpus
from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext, process_group
from pretextlm.training.energy import Meter
from pretextlm.training.forgetting import Remembered, as_begun
from pretextlm.training.forward import Forward
from pretextlm.training.initial_weights import load_start, resolve_recipe
from pretextlm.training.look_back import LookBack
from pretextlm.training.metrics import MetricsLog, peak_memory
from pretextlm.training.objective_module import Task
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.parallel import exchange_gradients, in_parts, spread
from pretextlm.training.peak_flops import peak_of_run
from pretextlm.training.plan import Plan, Position, make_loader
from pretextlm.training.progress import Progress, Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_cost import cost, energy
from pretextlm.training.run_directory import Run, locked
from pretextlm.training.run_setup import make_ready
from pretextlm.training.runtime import Runtime, device_name
from pretextlm.training.schedules import rate
from pretextlm.training.sharded_checkpoint import is_part
from pretextlm.training.signals import Interrupted, StopFlag, Stopped
from pretextlm.training.trackers import Trackers
from pretextlm.training.trainable_parameters import adapted, depth, freeze, thaw
from pretextlm.training.validation import validate
from pretextlm.training.watchdog import watched

NORM_SHARE = 0.02
"""Of a step in the running mean of the gradient's norm."""
COMPILER = ("torch._dynamo", "torch._inductor")
"""Modules whose errors are the compiler's; known by name, since loading them takes seconds."""
SETTLED_STEPS = 20
"""Before these, no norm is out of the ordinary."""


def pretrain(
    recipe: Recipe | AnyPath | Mapping[str, Any],
    out: AnyPath,
    *,
    resume: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Train a model by a recipe, and write checkpoints and metrics into a run directory.

    Args:
        recipe: a recipe, the path of a TOML file, or its tables.
        out: a new directory or, with `resume`, the one of a run to resume (which is started if it does not exist).
        resume: continue from the newest checkpoint; on a CPU the result is bit for bit that of an uninterrupted run.
        command: argv to record, so that the run can be repeated.
        progress: called after every step; nothing is printed without it.

    Returns:
        The run.

    Raises:
        UserError: wrong recipe, store or machine; a directory in use or not empty; a full disk; a loss that is
            not finite; another process of the run is lost or hangs.
        Stopped: SIGINT or SIGTERM came; a checkpoint of that step was written.
    """
    recipe, directory = resolve_recipe(recipe), Path(out)
    with ExitStack() as held:
        distributed = held.enter_context(process_group(recipe.training.timeout_seconds, recipe.training.join_seconds))
        watch = held.enter_context(watched(distributed, directory, recipe.training.timeout_seconds))
        progress = progress if progress and distributed.is_main else Silent()
        ready = make_ready(as_begun(recipe, directory) if resume else recipe, distributed)
        recipe, store, plan, runtime = ready.recipe, ready.store, ready.plan, ready.runtime
        progress.note("; ".join(ready.notes))
        distributed.broadcast_from_main(lambda: held.enter_context(locked(directory)))
        stop = held.enter_context(StopFlag())
        distributed.broadcast_from_main(lambda: begin(recipe, directory, resume, store, runtime, command))
        run = Run.open(directory)
        found = distributed.broadcast_from_main(
            lambda: checkpoints.newest(run.checkpoints, quarantine=True) if resume else None
        )
        watch.alive()
        fresh = found is None
        trainer = Trainer(run, store, plan, runtime, progress, distributed, fresh, ready.remembered)
        held.enter_context(closing(trainer))
        watch.alive()
        trainer.restore(found)
        trainer.train(stop, watch.alive)
    return run


class Trainer:
    """The state of one run in memory. Use `pretrain`; the parts are open for tests and for exact experiments.

    Args:
        distributed: the processes that train it together.
        fresh: whether weights are to be taken from the run that the recipe starts from.
        remembered: stores that it is measured on beside its own.
    """

    def __init__(
        self,
        run: Run,
        store: Corpus,
        plan: Plan,
        runtime: Runtime,
        progress: Progress,
        distributed: DistributedContext = SINGLE_PROCESS,
        fresh: bool = True,
        remembered: Sequence[Remembered] = (),
    ) -> None:
        self.run, self.store, self.plan, self.runtime, self.progress = run, store, plan, runtime, progress
        self.recipe, self.config, self.distributed = run.recipe, run.recipe.training, distributed
        self.objective: TrainingObjective = run.recipe.training_objective
        self.position = Position()
        self.model = build_model(self.recipe, runtime.device)
        self.model.set_gradient_checkpointing(plan.recomputed)
        self.model.set_dropout(self.config.dropout)
        self.forward = Forward(self.model, self.objective, runtime.device, runtime.dtype)
        self.objective.init_weights(self.forward.models)
        if fresh and self.recipe.start:
            drawn = load_start(self.model, self.recipe)
            progress.note(f"started from {self.recipe.start}" + (f"; drawn: {', '.join(drawn)}" if drawn else ""))
        tuning = self.recipe.tuning
        adapted(self.model, tuning, generator_of(self.recipe, "adapters"))
        freeze(self.model, tuning.freeze)
        self.task = Task(self.model, self.objective, self.forward)
        self.spread = spread(self.task, distributed, self.config.parallel, runtime.device, not self.model.heads)
        scale = lambda name: tuning.layer_decay ** depth(name, self.model)  # noqa: E731
        self.optimizer = Optimizer(self.model, self.config, runtime.dtype, distributed.world_size, scale)
        self.log = MetricsLog(run)
        self.saver = Saver(run.checkpoints, self.config.keep_checkpoints, distributed, self.config.timeout_seconds)
        self.best = Best(run.directory, self.config, distributed)
        self.whole = self.spread if in_parts(self.spread) else self.task
        self.look_back = LookBack(remembered, run.directory, self.model, self.whole, runtime.device, distributed)
        self._alive: Callable[[], None] = lambda: None
        self.compile_seconds = 0.0
        self.memory = 0
        self.meter = Meter(runtime.device, distributed)
        self.devices = distributed.world_size if runtime.device.type == "cuda" else distributed.num_nodes
        self.peak = peak_of_run(run.directory, runtime.device, runtime.dtype) if distributed.is_main else None

    def restore(self, found: checkpoints.Checkpoint | None) -> None:
        """Go on from a checkpoint; from the start where there is none."""
        if found is not None:
            state = self.optimizer.state()
            found.read_into(self.model.state_dict(), state)
            self.optimizer.load(state)
            self.position = Position(**found.state)
            for fault in found.faults:
                self.progress.note(f"set aside as broken: {fault}")
            self.progress.note(f"resumed at step {found.step:,}")
        if self.distributed.is_main:
            checkpoints.sweep(self.run.checkpoints)
            self.run.sweep()
            self.run.rewind_metrics(self.position.step, validated=not self._validation_due())

    def close(self) -> None:
        """End what works in the background."""
        self.saver.close()
        self.best.close()
        if self.log.trackers is not None:
            self.log.trackers.close()

    def train(self, stop: StopFlag, alive: Callable[[], None] = lambda: None) -> None:
        """Until the budget is used or a signal comes; a checkpoint stands at the end either way.

        Args:
            alive: called at least once a step, and a batch of validation.
        """
        self._alive = self.saver.alive = alive
        saved_at, number = time.monotonic(), 0
        reader = self.objective.reader(self.store.train, self.recipe.vocabulary(self.store), self.recipe.data.length)
        loader = make_loader(self.recipe, self.store, reader, self.plan.total_rows, self.distributed)
        if self.distributed.is_main and self.config.trackers:
            names, step = self.config.trackers, self.position.step
            self.log.trackers = Trackers(names, self.run.directory, self.recipe, step, self.progress.note)
        try:
            self.compile(loader, stop)
            first = self.position.step * self.plan.rows
            steps = loader.steps(first, self.plan.rows, self.plan.micro_rows, waiting=stop.check)
            with torch.compiler.set_stance("eager_on_recompile"):  # a shape not seen by now is too rare to pay
                while True:
                    self._alive()
                    self._validate_when_due(stop)
                    self.look_back.begin(self.position.step, self._unless(stop))
                    batches, waited = self._next(steps)
                    number, due = self._agree(stop, time.monotonic() - saved_at > self.config.checkpoint_seconds)
                    if number or (share := self._share()) >= 1.0 or self._out_of_patience():
                        break
                    if due:
                        self.save()
                        saved_at = time.monotonic()
                    self._step(batches, share, waited)
        finally:
            loader.close(wait=not stop.number)
        self._alive()
        self.position.energy_joules += sum(self.distributed.all_reduce_sum([self.meter.used(at_once=True)]))
        if not number:
            self.best.recall(self.model, self.position, self.progress.note)
            try:
                with torch.compiler.set_stance("eager_on_recompile"):
                    self.look_back.end(self.position.step, self._unless(stop), self.config.keep_best)
            except Interrupted:
                number = int(self.distributed.all_gather([stop.number]).max())
        self.save()
        self.saver.wait()
        if number:
            raise Stopped(number)
        self.best.forget()
        if self.distributed.is_main:
            write_json(self.run.directory / "cost.json", self._cost())

    def _agree(self, stop: StopFlag, due: bool) -> tuple[int, bool]:
        """(signal that came to any process, whether to save): the same on all, as are the seconds from here on."""
        memory = peak_memory(self.runtime.device) if self._logs(self.position.step + 1) else 0
        found = self.distributed.all_gather([stop.number, due, self.position.seconds, self.meter.used(), memory])
        self.position.seconds = float(found[0, 2])
        self.position.energy_joules += float(found[:, 3].sum())
        self.memory = max(self.memory, int(found[:, 4].max()))
        return int(found[:, 0].max()), bool(found[0, 1])

    def _next(self, steps: Iterator[list[Batch]]) -> tuple[list[Batch], float]:
        """The next step's batches, none if a signal came while they were waited for; and the seconds of waiting."""
        start = time.perf_counter()
        try:
            batches = next(steps)
        except Interrupted:
            batches = []
        return batches, time.perf_counter() - start

    def compile(self, loader: Loader, stop: StopFlag) -> None:
        """Compile before the clock starts: its cost depends on the cache, and runs are compared by their seconds.

        A signal ends it at once, but not where weights are in parts: these are put together by all processes.
        """
        if not self.runtime.compile:
            return
        start = time.perf_counter()
        alone = not in_parts(self.spread)
        self.model.compile_blocks(self.plan.shapes)
        try:
            with stop.at_once() if alone else nullcontext():
                self.gradients(loader.step(0, self.plan.rows, self.plan.micro_rows), alone)
        except Interrupted:
            self.model.zero_grad()
            return
        except Exception as error:
            if not type(error).__module__.startswith(COMPILER):
                raise
            if self.config.compile == "on":
                raise UserError(
                    f"The compiler failed: {' '.join(str(error).split())[:300]}.", "Use training.compile=off."
                ) from None
            self.model.undo_compile()
            self.progress.note("the compiler failed; training goes on without it")
        self.model.zero_grad()
        self.compile_seconds = time.perf_counter() - start
        self.progress.note(f"compiled in {self.compile_seconds:.0f} s")

    def save(self) -> None:
        """Begin to write a checkpoint of this moment."""
        if self.distributed.is_main:
            self.log.flush()
        weights, state = self.model.state_dict(), self.optimizer.state()
        self.saver.save(self.position.step, weights, state, vars(self.position))

    def gradients(self, batches: Sequence[Batch], alone: bool = False) -> dict[str, float]:
        """Back-propagate the loss of one global step, cut into these micro-batches; returns each term's part of it.

        The counts of the whole step, over all processes, are known before the first loss, so each part is divided by
        the same number.

        Args:
            alone: by this process's batches only, and nothing is exchanged.
        """
        distributed = SINGLE_PROCESS if alone else self.distributed
        names = self.plan.terms
        found: Counter[str] = Counter()
        for batch in batches:
            if not isinstance(batch, Spare):
                found.update(self.objective.counts(batch))
        assert set(found) <= set(names), "a step has the terms of the first one"
        counts = dict(zip(names, distributed.all_reduce_sum([found[name] for name in names]), strict=True))
        parts = torch.zeros(len(names), dtype=torch.float64, device=self.runtime.device)
        for number, batch in enumerate(batches, 1):
            exchange_gradients(self.spread, number == len(batches) and not alone)
            totals, terms = self.spread(batch)
            weights = {
                name: 0.0 if isinstance(batch, Spare) else terms[name].coefficient / max(1, counts[name])
                for name in terms
            }
            losses = torch.stack([weights[name] * totals[name] for name in names])
            losses.sum().backward()  # type: ignore[no-untyped-call]
            parts += losses.detach()
        return dict(zip(names, distributed.all_reduce_sum(parts.tolist()), strict=True))

    def _step(self, batches: list[Batch], share: float, waited: float) -> None:
        start = time.perf_counter()
        thaw(self.model, self.recipe.tuning, share)
        losses = self.gradients(batches)
        norm = self.gradient_norm()
        multiplier = self._multiplier(share)
        if self._sound(norm):
            self.optimizer.step(multiplier, norm)
        else:
            self.model.zero_grad()
        at, loss = self.position, sum(losses.values())
        seconds = waited + time.perf_counter() - start
        at.step += 1
        at.seconds += seconds
        at.flops += self.plan.rows * self.plan.flops_per_row
        at.device_seconds += seconds * self.devices
        values = {
            "step": at.step,
            "tokens": self._tokens(),
            "seconds": at.seconds,
            "flops": at.flops,
            "loss": loss,
            "learning_rate": self.config.learning_rate * multiplier,
            "gradient_norm": norm,
            "tokens_per_second": self.plan.tokens_per_step / seconds,
            "data_wait": waited / seconds,
            "skipped": at.skipped,
        }
        if self.peak:
            values["mfu"] = self._mfu(seconds)
        if self.distributed.is_main:
            if self._logs(at.step):
                values["memory"] = max(self.memory, peak_memory(self.runtime.device))
            at.window = self.log.train(values, at.window, self.config.log_every)
        self.progress.step(self._share(), values)

    def _logs(self, step: int) -> bool:
        return step % self.config.log_every == 0

    def gradient_norm(self) -> float:
        """Of the step's gradient, that of all processes."""
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        return float(norm.full_tensor() if is_part(norm) else norm)  # type: ignore[attr-defined]

    def _sound(self, norm: float) -> bool:
        """Whether the step may be taken; one that is left out is counted.

        A gradient that is not finite on one process is so on all, since all have the same sum. Raises UserError before
        any weight takes a value that is not a number.
        """
        at, limit = self.position, self.config.spike
        spiked = limit and at.typical_norm and at.step >= SETTLED_STEPS and norm > limit * at.typical_norm
        if norm < float("inf") and not spiked:
            at.typical_norm = norm if not at.typical_norm else at.typical_norm + NORM_SHARE * (norm - at.typical_norm)
            return True
        at.skipped += 1
        what = f"is {norm / at.typical_norm:.0f} times its usual size" if norm < float("inf") else "is not finite"
        if at.skipped <= self.config.skip_steps:
            self.progress.note(f"step {at.step + 1:,} left out: its gradient {what}")
            return False
        self.model.zero_grad()
        self.save()
        self.saver.wait()
        raise (UserError if self.distributed.is_main else DuplicateUserError)(
            f"The gradient {what} at step {at.step + 1}; the weights before it are saved.",
            "Lower training.learning_rate, raise training.warmup, or allow training.skip_steps=10.",
        )

    def _multiplier(self, share: float) -> float:
        config = self.config
        # The rate at the middle of the step: at its start, the first step of a warm-up would be wasted.
        done = self.position.step
        middle = min(1.0, share + 0.5 * (share / done if done else self.plan.step_share(config.budget)))
        return rate(middle, config.schedule, config.warmup, config.cooldown, config.final_learning_rate)

    def _validate_when_due(self, stop: StopFlag) -> None:
        if not self._validation_due():
            return

        vocabulary = self.recipe.vocabulary(self.store)
        reader = self.objective.reader(self.store.validation, vocabulary, self.recipe.data.length)
        rows, seed, at = self.config.validation_rows, self.recipe.evaluation.seed, self.position
        try:
            found = validate(
                self.forward,
                reader,
                self.objective,
                vocabulary,
                rows=rows,
                seed=seed,
                step=lambda batch: self.whole(batch)[1],
                distributed=self.distributed,
                before_batch=self._unless(stop),
            )
            looked_back = self.look_back.losses(at.step, self._unless(stop))
        except Interrupted:  # it is made whole when the run goes on
            return
        at.validations = self._validations()
        where = {"step": at.step, "tokens": self._tokens(), "seconds": at.seconds, "flops": at.flops}
        if self.distributed.is_main:
            self.log.validation({**where, "loss": found.loss, **found.parts})
            for store, back in looked_back:
                self.log.remembered(store.name, {**where, "loss": back.loss})
        beside = "".join(f", on {store.name} {back.loss:.4f}" for store, back in looked_back)
        self.progress.note(f"step {at.step:,}: validation {found}{beside}")
        self.best.judge(found, self.model, at)

    def _unless(self, stop: StopFlag) -> Callable[[], None]:
        """To be called before each batch that is measured: raises Interrupted where a signal came to any process."""

        def check() -> None:
            self._alive()
            if self.distributed.all_gather([stop.number]).max() > 0:
                raise Interrupted

        return check

    def _validation_due(self) -> bool:
        return self.config.validations > 0 and self._validations() > self.position.validations

    def _validations(self) -> int:
        """The number of the validation that belongs to this moment."""
        return int(self._share() * self.config.validations + 1e-9)

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience > 0 and self.position.stale >= patience

    def _tokens(self) -> int:
        return round(self.position.step * self.plan.tokens_per_step)

    def _share(self) -> float:
        return self.plan.share(self.config.budget, self.position)

    def _mfu(self, seconds: float) -> float:
        """Share of what all processes' devices could compute in these seconds that the model needed for a step."""
        assert self.peak is not None, "asked for where the peak is known"
        flops = self.plan.rows * self.plan.flops_per_row
        return flops / seconds / (self.peak.flops_per_second * self.distributed.world_size)

    def _cost(self) -> dict[str, Any]:
        at, meter = self.position, self.meter
        return cost(
            parameters=total(self.model),
            steps=at.step,
            skipped=at.skipped,
            tokens=self._tokens(),
            seconds=at.seconds,
            compile_seconds=self.compile_seconds,
            flops=at.flops,
            device=device_name(self.runtime.device),
            device_seconds=at.device_seconds,
            energy=energy(at.energy_joules, meter.source, meter.reason, self.config.carbon_grams_per_kwh),
        )
