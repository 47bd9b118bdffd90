"""A recipe: everything that decides a run. With the store's bytes it decides every bit of it on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, SerializeAsAny, model_validator

from pretextlm.config import Config, apply_overrides
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.presets.preset import filled_in
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.objectives.registry import build
from pretextlm.tasks.base import Task
from pretextlm.tasks.registry import build as build_task
from pretextlm.training.trainable_parameters import TuningConfig

if TYPE_CHECKING:
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.training.corpus import Corpus

BUDGET = "training.budget_"
BUDGETS = ("steps", "tokens", "epochs", "flops", "seconds")


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A recipe's tables with `section.key=value` on top; a budget among these takes the place of the recipe's."""
    training = values.get("training")
    if isinstance(training, dict) and any(override.strip().startswith(BUDGET) for override in overrides):
        kept = {key: value for key, value in training.items() if not f"training.{key}".startswith(BUDGET)}
        values = {**values, "training": kept}
    return apply_overrides(values, overrides)


FREE = {
    "data": ("workers", "remember"),
    "training": (
        *("device", "compile", "threads", "parallel", "micro_batch_tokens", "gradient_checkpointing"),
        *("timeout_seconds", "join_seconds"),
        *("checkpoint_seconds", "keep_checkpoints", "skip_steps", "spike", "trackers", "carbon_grams_per_kwh"),
    ),
}
"""What may change when a run goes on: how it is computed and looked after, not what it learns from."""


class DataConfig(Config):
    """What is learnt from.

    Attributes:
        store: directory made by `data prepare`.
        remember: other stores of the same tokens on whose held-out text the run is measured too, before, during and
            after: what it forgets of them. Left out: the store of the run that `start` names, where that is another
            one and still there; []: none.
        train, validation: of a task, files with a record a line or row (.jsonl, .csv, .tsv, .parquet, .conll, also
            compressed), or hf:NAME.
        train_records, validation_records: only the first so many of each; 0: all.
        tokenizer: of a task whose model does not start from a run: a run, a store or a tokenizer.json.
        length: tokens of an input row, or of an example at most.
        workers: threads that prepare batches ahead (they change nothing but the waiting).
    """

    store: str = ""
    remember: tuple[str, ...] | None = None
    train: str = ""
    validation: str = ""
    train_records: int = Field(0, ge=0)
    validation_records: int = Field(0, ge=0)
    tokenizer: str = ""
    length: int = Field(256, ge=8, le=1 << 20)
    workers: int = Field(1, ge=1, le=64)


class TrainingConfig(Config):
    """How long and how.

    Attributes:
        budget_steps, budget_tokens, budget_epochs, budget_flops, budget_seconds: exactly one is given; the schedule
            spans it. A run under a budget in seconds ends on time on any machine, and for that is the one kind that
            cannot be repeated bit for bit. An epoch is one pass over the rows.
        batch_tokens: raw text tokens per step, over all micro-batches; rounded to whole rows.
        batch_rows: instead, rows per step, which are examples of a task; 0: as many as batch_tokens say.
        micro_batch_tokens: raw text tokens per forward and backward pass; 0: on a GPU the whole batch at once, or the
            half, the quarter … of it that fits into memory, 8,192 on a CPU. Gradients are those of the whole step
            however it is cut.
        gradient_checkpointing: "blocks": of every block only its inputs are kept, and the backward pass computes the
            rest again, a third more work for a fraction of the memory; "auto": of as many blocks as need be for a step
            to fit into memory; "off". The gradients are the same.
        optimizer: "muon" (matrices of the blocks; AdamW for embedding and head) or "adamw" for all.
        learning_rate: at the schedule's top. Muon's updates are scaled to AdamW's size, so one rate serves both.
        embedding_learning_rate: of embedding and head; 0: the same.
        weight_decay, beta1, beta2, momentum: of AdamW, AdamW, AdamW and Muon.
        schedule: "wsd" (warm-up, stable, linear decay), "cosine" or "linear".
        warmup, cooldown: shares of the budget; cooldown is wsd's decay.
        final_learning_rate: share of the top rate at the end.
        dropout: share of the embedding's and of each sub-layer's output that training drops (model/dropout.py).
        max_grad_norm: largest global norm of the gradient; 0: none.
        dtype: of activations; auto: bf16 on CUDA and on a CPU with AMX, else fp32. Weights are fp32 always.
        device: auto: CUDA when there is one.
        compile: auto: when the run is long enough to pay for it and a compiler is there.
        threads: CPU threads; 0: as torch chooses.
        log_every: steps per line of metrics.jsonl.
        validations: times the validation loss is measured, evenly over the budget; validation_rows: on how many rows.
        patience: so many validations without a better one end the run; 0: none does.
        keep_best: the run ends with the weights of its best validation, not with the last ones.
        best_by: what is better: less "loss", or more of an accuracy (class_accuracy, tag_accuracy, span_accuracy, …).
        checkpoint_seconds: at most this between checkpoints; keep_checkpoints: newest ones kept.
        skip_steps: how many steps may be left out whose gradient is not finite, or a spike; one more ends the run.
        spike: a gradient this many times as large as its running mean counts as one that is not finite; 0: none does.
        parallel: over several processes: "ddp" (all whole on each), "zero2" (gradients and optimizer in parts), "zero3"
            (weights too), "hybrid" (zero3 within a machine, copies between machines).
        timeout_seconds: how long processes wait for each other before they give up; join_seconds: at the start.
        trackers: who shows the numbers of metrics.jsonl elsewhere: "tensorboard", "wandb", "trackio".
        carbon_grams_per_kwh: CO2 of the electricity, to turn measured energy into grams; left out, it is not computed.
    """

    budget_steps: int | None = Field(None, ge=1)
    budget_tokens: float | None = Field(None, gt=0)
    budget_epochs: float | None = Field(None, gt=0)
    budget_flops: float | None = Field(None, gt=0)
    budget_seconds: float | None = Field(None, gt=0)
    batch_tokens: int = Field(16_384, ge=8)
    batch_rows: int = Field(0, ge=0)
    micro_batch_tokens: int = Field(0, ge=0)
    gradient_checkpointing: Literal["auto", "off", "blocks"] = "auto"
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = Field(4e-3, gt=0, le=10)
    embedding_learning_rate: float = Field(0.0, ge=0, le=10)
    weight_decay: float = Field(0.0, ge=0, le=10)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    momentum: float = Field(0.95, ge=0, lt=1)
    schedule: Literal["wsd", "cosine", "linear"] = "wsd"
    warmup: float = Field(0.02, ge=0, le=1)
    cooldown: float = Field(0.5, ge=0, le=1)
    final_learning_rate: float = Field(0.0, ge=0, le=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, ge=0)
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    threads: int = Field(0, ge=0, le=1024)
    log_every: int = Field(10, ge=1)
    validations: int = Field(10, ge=0, le=10_000)
    validation_rows: int = Field(64, ge=1)
    patience: int = Field(0, ge=0)
    keep_best: bool = False
    best_by: str = "loss"
    checkpoint_seconds: float = Field(120.0, gt=0)
    keep_checkpoints: int = Field(2, ge=1)
    skip_steps: int = Field(0, ge=0)
    spike: float = Field(0.0, ge=0)
    parallel: Literal["ddp", "zero2", "zero3", "hybrid"] = "ddp"
    timeout_seconds: float = Field(600.0, gt=0)
    join_seconds: float = Field(120.0, gt=0)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    carbon_grams_per_kwh: float | None = Field(None, ge=0, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if len(self._budgets()) != 1:
            raise ValueError(f"give exactly one of {', '.join(f'budget_{kind}' for kind in BUDGETS)}")
        if self.warmup + (self.cooldown if self.schedule == "wsd" else 0) > 1:
            raise ValueError("warmup and cooldown together exceed the budget")
        return self

    def _budgets(self) -> dict[str, float]:
        values = {kind: getattr(self, f"budget_{kind}") for kind in BUDGETS}
        return {kind: value for kind, value in values.items() if value is not None}

    @property
    def budget(self) -> tuple[str, float]:
        """("steps" | "tokens" | "epochs" | "flops" | "seconds", how many)."""
        return next(iter(self._budgets().items()))


class EvaluationConfig(Config):
    """Attributes: documents: validation documents measured; blanks: number of blanks of the common ruler; prompts:
    prompts continued for the samples; seed: of masks, blanks and distractors, the same for every model compared."""

    documents: int = Field(64, ge=1)
    blanks: int = Field(200, ge=1)
    prompts: int = Field(4, ge=0)
    seed: int = 1234


class Recipe(Config):
    """One run. Build it with :meth:`load`, which resolves the objective by name.

    Attributes: start: run directory whose newest weights a new run begins from; "": drawn from the seed.
    """

    model_config = ConfigDict(**Config.model_config, arbitrary_types_allowed=True)

    name: str = "run"
    seed: int = Field(0, ge=0, lt=1 << 63)
    start: str = ""
    data: DataConfig
    objective: SerializeAsAny[TrainingObjective]
    model: ModelConfig = ModelConfig()
    training: TrainingConfig
    tuning: TuningConfig = TuningConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _rates_by_depth(self) -> Recipe:
        if self.training.optimizer == "muon" and (self.tuning.thaw or self.tuning.layer_decay != 1):
            raise ValueError('tuning.thaw and tuning.layer_decay need training.optimizer = "adamw"')
        return self

    @classmethod
    def load(cls, values: Mapping[str, Any], where: str = "the recipe") -> Recipe:
        """From the tables of a TOML file. Raises UserError for anything unknown, missing or of the wrong type."""
        values = dict(values)
        objective = _objective(values, where)
        given = dict(values.get("model") or {})
        model = filled_in(given, where)
        suits = objective.supported_architectures()
        model.setdefault("architecture", suits[0])
        if model["architecture"] not in suits:
            raise UserError(
                f"The objective {objective.name!r} does not train a model of architecture {model['architecture']!r}.",
                f"It suits: {', '.join(suits)}.",
            )
        if "type_vocab_size" not in given and objective.num_token_types() > model.get("type_vocab_size", 0):
            model["type_vocab_size"] = objective.num_token_types()
        training = values.get("training", {} if objective.training_defaults else None)
        if isinstance(training, Mapping):
            values["training"] = {**_defaults(objective, training), **training}
        return cls.parse(
            {**values, "model": model, "objective": objective.for_architecture(model["architecture"])}, where
        )

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out; `Recipe.load` reads them back to an equal recipe."""
        values = self.model_dump(mode="json", exclude_none=True)
        options = {"name": self.objective.name, **values.pop("objective")}
        values["task" if self.task else "objective"] = options
        return values

    @property
    def task(self) -> Task | None:
        """The task that is fine-tuned for; None in pre-training."""
        return self.objective if isinstance(self.objective, Task) else None

    def vocabulary(self, store: Corpus) -> Vocabulary:
        """The store's special ids in the roles that the model gives them."""
        return self.model.special_ids.roles(store.vocabulary)

    def trains_as(self, other: Recipe) -> bool:
        """Whether a run of the other may be gone on with by this one: they are equal in all that decides the result."""
        return self._decisive() == other._decisive()

    def _decisive(self) -> dict[str, Any]:
        values = self.dump()
        for table, names in FREE.items():
            values[table] = {name: value for name, value in values[table].items() if name not in names}
        return values

    def with_vocabulary(self, size: int) -> Recipe:
        """The recipe with the model's vocab_size taken from the store. Raises UserError when it is too small."""
        if self.model.vocab_size == 0:
            model = ModelConfig.parse({**self.model.model_dump(), "vocab_size": size})
            return self.model_copy(update={"model": model})
        if self.model.vocab_size < size:
            raise UserError(
                f"model.vocab_size is {self.model.vocab_size}, but the store's tokenizer has {size} tokens.",
                "Leave model.vocab_size out: it is then taken from the store.",
            )
        return self


def _objective(values: dict[str, Any], where: str) -> TrainingObjective:
    """The objective of a recipe's tables; its table is taken out. Raises UserError where there is none."""
    kind = "task" if "task" in values else "objective"
    table = values.pop(kind, None)
    if isinstance(table, str):
        table = {"name": table}
    if not isinstance(table, Mapping) or "name" not in table:
        raise UserError(f"Missing key '{kind}.name' in {where}.", 'Add: [objective] name = "causal"')
    options = {k: v for k, v in table.items() if k != "name"}
    objective = build_task(table["name"], options) if kind == "task" else build(table["name"], options)
    needed = ("train", "validation") if kind == "task" else ("store",)
    data = values.get("data")
    missing = [key for key in needed if isinstance(data, Mapping) and key not in data]
    if missing:
        raise UserError(f"Missing key 'data.{missing[0]}' in {where}.", f"Add a line such as: {missing[0]} = …")
    return objective


def _defaults(objective: TrainingObjective, training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the table [training] under this objective; a budget only where none is given."""
    given = any(key.startswith("budget_") for key in training)
    return {
        key: value for key, value in objective.training_defaults.items() if not (given and key.startswith("budget_"))
    }
