"""The training loop: rows → batch → loss terms → gradients of the global batch → optimizer step, under a budget.

The loss of a step is Σ coefficient · total / count over its terms, where totals and counts are summed over all
micro-batches and processes first; the gradient therefore does not depend on how a step is split. Everything a step
reads is a function of its number, so the position in the data is that number, and resuming is bit-identical on a CPU.

Validation, best weights, forgetting, metrics and cost are callbacks (training/callbacks/).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import torch

from pretextlm.batch import Batch, Spare
from pretextlm.data.loader import Loader
from pretextlm.errors import DuplicateUserError, UserError
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.callbacks.base import Callback, StepMetrics
from pretextlm.training.callbacks.validation import validation_number
from pretextlm.training.checkpoint_writer import CheckpointWriter
from pretextlm.training.compilation import compile_ahead, note_eager_share
from pretextlm.training.corpus import Corpus
from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext
from pretextlm.training.forward import Forward
from pretextlm.training.gradient_guard import gradient_fault
from pretextlm.training.initial_weights import load_start
from pretextlm.training.loss_scale import begin_scaling, overflowed
from pretextlm.training.objective_module import ObjectiveModule
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.parallel import is_sharded, parallelize, set_gradient_sync
from pretextlm.training.plan import Plan, make_loader
from pretextlm.training.progress import Progress
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model, generator_of
from pretextlm.training.runtime import Runtime
from pretextlm.training.schedules import LearningRateSchedule
from pretextlm.training.sharded_checkpoint import is_sharded_tensor
from pretextlm.training.signals import Interrupted, StopFlag, Stopped
from pretextlm.training.state import TrainerState
from pretextlm.training.trainable_parameters import adapted, depth, freeze, thaw
from pretextlm.training.validation import Validation

STEPS_WITHOUT_TARGETS = 20
"""First steps after which a run without any target is refused; a single step may have none by chance."""


class Trainer:
    """The state of one training in memory. Use `pretrain`; this class is for tests and exact experiments.

    Args:
        run: the run directory, with the complete recipe.
        corpus: the data.
        plan: rows of a step and of a micro-batch.
        runtime: device, dtype and compilation.
        progress: display for people.
        distributed: the processes that train together.
        fresh: initialize from the run that the recipe's `start` names, rather than from a checkpoint.
        callbacks: called in this order.
    """

    def __init__(
        self,
        run: Run,
        corpus: Corpus,
        plan: Plan,
        runtime: Runtime,
        progress: Progress,
        distributed: DistributedContext = SINGLE_PROCESS,
        fresh: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.run, self.corpus, self.plan, self.runtime, self.progress = run, corpus, plan, runtime, progress
        self.recipe, self.config, self.distributed = run.recipe, run.recipe.training, distributed
        self.callbacks = list(callbacks)
        self.objective = run.recipe.training_objective
        self.state = TrainerState(run.id)
        self.model = build_model(self.recipe, runtime.device)
        self.model.set_gradient_checkpointing(plan.recomputed)
        self.model.set_dropout(self.config.dropout)
        self.forward = Forward(self.model, self.objective, runtime.device, runtime.dtype)
        self.objective.init_weights(self.forward.models)
        if fresh and self.recipe.start:
            new = load_start(self.model, self.recipe)
            progress.note(f"started from {self.recipe.start}" + (f"; initialized: {', '.join(new)}" if new else ""))
        tuning = self.recipe.tuning
        adapted(self.model, tuning, generator_of(self.recipe, "adapters"))
        freeze(self.model, tuning.freeze)
        module = ObjectiveModule(self.model, self.objective, self.forward)
        self.module = parallelize(module, distributed, self.config.parallel, runtime.device, not self.model.heads)
        # DDP's wrapper prepares for a backward pass, which evaluation does not have; sharded weights need theirs.
        self.eval_module = self.module if is_sharded(self.module) else module
        self.optimizer = Optimizer(
            self.model,
            self.config,
            runtime.dtype,
            distributed.world_size,
            lambda name: tuning.layer_decay ** depth(name, self.model),
        )
        self.schedule = LearningRateSchedule(self.config, self.config.budget.step_share(plan))
        self.writer = CheckpointWriter(
            run.checkpoints, self.config.keep_checkpoints, distributed, self.config.timeout_seconds
        )
        self.should_stop = False
        self._targets = 0.0
        self.compile_seconds = 0.0
        self._stop = StopFlag()
        self._alive: Callable[[], None] = lambda: None

    @property
    def share(self) -> float:
        """Share of the budget used."""
        return self.config.budget.used(self.plan, self.state.step, self.state.flops, self.state.seconds)

    @property
    def tokens(self) -> int:
        """Text tokens read so far."""
        return round(self.state.step * self.plan.tokens_per_step)

    def restore(self, checkpoint: checkpoints.Checkpoint | None) -> None:
        """Load a checkpoint, if there is one, and remove files of an unfinished step."""
        if checkpoint is not None:
            optimizer = self.optimizer.state()
            checkpoint.read_into(self.model.state_dict(), optimizer)
            self.optimizer.load(optimizer)
            with checkpoints.content_errors(checkpoint.directory):
                self.state = TrainerState(**{**checkpoint.state, "run_id": self.state.run_id})
            # A budget that has grown since has used up a smaller share, and so fewer of its validations.
            self.state.validations = min(self.state.validations, validation_number(self))
            for fault in checkpoint.faults:
                self.progress.note(f"set aside as broken: {fault}")
            self.progress.note(f"resumed at step {checkpoint.step:,}")
        if self.distributed.is_main:
            checkpoints.sweep(self.run.checkpoints)
            self.run.sweep()

    def train(self, stop: StopFlag, alive: Callable[[], None] = lambda: None) -> None:
        """Train until the budget is used or a signal comes; either way, a last checkpoint is written.

        Args:
            stop: set by signals and the time limit; then Stopped is raised.
            alive: called at least once per step and per batch of validation, for the watchdog.
        """
        self._stop, self._alive = stop, alive
        self.writer.alive = alive
        begin_scaling(self.state, self.runtime.dtype)
        loader = make_loader(self.recipe, self.corpus, self.plan.total_rows, self.distributed)
        signal, saved_at = 0, time.monotonic()
        try:
            self.compile(loader, stop)
            for callback in self.callbacks:
                callback.on_begin(self)
            first_row = self.state.step * self.plan.rows
            steps = loader.steps(first_row, self.plan.rows, self.plan.micro_rows, waiting=stop.check)
            with torch.compiler.set_stance("eager_on_recompile"):  # a shape not seen by now is too rare to pay
                while True:
                    alive()
                    with suppress(Interrupted):
                        for callback in self.callbacks:
                            callback.before_step(self)
                    batches, waited = self._next_batches(steps)
                    signal, save_due = self._agree(time.monotonic() - saved_at > self.config.checkpoint_seconds)
                    if signal or self.share >= 1.0 or self.should_stop:
                        break
                    if save_due:
                        self.save()
                        saved_at = time.monotonic()
                    metrics = self.step(batches, waited)
                    self._refuse_no_targets()
                    for callback in self.callbacks:
                        callback.on_step(self, metrics)
        finally:
            loader.close(wait=not stop.number)
        alive()
        note_eager_share(self.model, self.progress.note)
        if not signal:
            try:
                with torch.compiler.set_stance("eager_on_recompile"):
                    for callback in self.callbacks:
                        callback.on_end(self)
            except Interrupted:
                signal = int(self.distributed.all_gather([stop.number]).max())
        self.save()
        self.writer.wait()
        if signal:
            raise Stopped(signal)
        for callback in self.callbacks:
            callback.on_finish(self)

    def step(self, batches: Sequence[Batch], waited: float = 0.0) -> StepMetrics:
        """Train on one global batch, of which this process has `batches`, after `waited` seconds for the data."""
        start, share, state = time.perf_counter(), self.share, self.state
        thaw(self.model, self.recipe.tuning, share)
        terms = self.gradients(batches)
        scale = state.loss_scale or 1.0
        norm = self.gradient_norm() / scale
        self.optimizer.set_multiplier(self.schedule.multiplier(share, state.step))
        fault = None
        if skipped := overflowed(state, norm):
            self.model.zero_grad()
        elif (fault := gradient_fault(norm, state, self.config.spike)) is None:
            self.optimizer.step(norm, scale)
        else:
            self._skip(fault)
        seconds = waited + time.perf_counter() - start
        state.step += 1
        state.seconds += seconds
        state.flops += self.plan.flops_per_step
        rate, loss = self.optimizer.learning_rate, sum(terms.values())
        return StepMetrics(state.step, loss, terms, rate, norm, seconds, waited, skipped or fault is not None)

    def gradients(self, batches: Sequence[Batch], alone: bool = False) -> dict[str, float]:
        """Back-propagate the loss of one global step.

        The counts of the whole step, over all processes, are known before the first loss, so that every micro-batch is
        divided by the same number.

        Returns each term's part of the loss. With `alone`, nothing is exchanged with other processes.
        """
        distributed = SINGLE_PROCESS if alone else self.distributed
        names = self.plan.terms
        found: Counter[str] = Counter()
        for batch in batches:
            if not isinstance(batch, Spare):
                found.update(self.objective.counts(batch))
        assert set(found) <= set(names), "a step has the terms of the first one"
        counts = dict(zip(names, distributed.all_reduce_sum([found[name] for name in names]), strict=True))
        self._targets += sum(counts.values())
        parts = torch.zeros(len(names), dtype=torch.float64, device=self.runtime.device)
        for number, batch in enumerate(batches, 1):
            set_gradient_sync(self.module, number == len(batches) and not alone)
            totals, terms = self.module(batch)
            weights = {
                name: 0.0 if isinstance(batch, Spare) else terms[name].coefficient / max(1, counts[name])
                for name in terms
            }
            losses = torch.stack([weights[name] * totals[name] for name in names])
            (losses.sum() * (self.state.loss_scale or 1.0)).backward()  # type: ignore[no-untyped-call]
            parts += losses.detach()
        return dict(zip(names, distributed.all_reduce_sum(parts.tolist()), strict=True))

    def gradient_norm(self) -> float:
        """Returns the norm of the step's gradient, summed over all processes."""
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        return float(norm.full_tensor() if is_sharded_tensor(norm) else norm)  # type: ignore[attr-defined]

    def compile(self, loader: Loader, stop: StopFlag) -> None:
        """Compile the model on the first step's batches, before the clock starts."""
        if self.runtime.compile:
            alone = not is_sharded(self.module)  # all processes gather sharded weights: none may leave early
            self.compile_seconds = compile_ahead(
                self.model,
                self.plan.shapes,
                lambda: self.gradients(loader.step(0, self.plan.rows, self.plan.micro_rows), alone),
                stop=stop if alone else None,
                required=self.config.compile == "on",
                note=self.progress.note,
            )

    def save(self) -> None:
        """Begin to write a checkpoint of this step in the background."""
        for callback in self.callbacks:
            callback.on_save(self)
        self.writer.save(self.state.step, self.model.state_dict(), self.optimizer.state(), vars(self.state))

    def validated(self, result: Validation) -> None:
        """Pass a validation to the callbacks."""
        for callback in self.callbacks:
            callback.on_validation(self, result)

    def check_interrupted(self) -> None:
        """Raise Interrupted if a signal came to any process. To be called by all, before each unit of long work."""
        self._alive()
        if self.distributed.all_gather([self._stop.number]).max() > 0:
            raise Interrupted

    def close(self) -> None:
        """End background threads."""
        self.writer.close()
        for callback in self.callbacks:
            callback.close()

    def _next_batches(self, steps: Iterator[list[Batch]]) -> tuple[list[Batch], float]:
        """Returns the batches of the next step (none if a signal came first) and the seconds of waiting."""
        start = time.perf_counter()
        try:
            batches = next(steps)
        except Interrupted:
            batches = []
        return batches, time.perf_counter() - start

    def _agree(self, save_due: bool) -> tuple[int, bool]:
        """Returns (signal that came to any process, whether to save): as on the first process, like the seconds."""
        found = self.distributed.all_gather([self._stop.number, save_due, self.state.seconds])
        self.state.seconds = float(found[0, 2])
        return int(found[:, 0].max()), bool(found[0, 1])

    def _refuse_no_targets(self) -> None:
        """Ends a run that has nothing to learn: its loss would be 0 from the first step to the last."""
        if not self._targets and (self.state.step >= STEPS_WITHOUT_TARGETS or self.share >= 1.0):
            raise (UserError if self.distributed.is_main else DuplicateUserError)(
                f"No step had a target under {self.objective.name!r}: there is nothing to learn.",
                "Give longer text, or options of the objective that leave targets.",
            )

    def _skip(self, fault: str) -> None:
        """Skip a step, or end the run if too many were skipped: before any weight is changed by the gradient."""
        self.state.skipped += 1
        self.model.zero_grad()
        number = self.state.step + 1
        if self.state.skipped <= self.config.skip_steps:
            self.progress.note(f"step {number:,} skipped: its gradient {fault}")
            return
        self.save()
        self.writer.wait()
        raise (UserError if self.distributed.is_main else DuplicateUserError)(
            f"The gradient {fault} at step {number}; the weights before it are saved.",
            "Lower training.learning_rate, raise training.warmup, or allow training.skip_steps=10.",
        )
