"""A recipe: everything that determines a run. With the store's bytes it determines every bit of it on a CPU.

    Recipe(data=DataConfig(store="stores/mine"), objective=Masked(rate=0.3), training=TrainingConfig(budget_steps=100))

and `Recipe.load` of a file with the same values give the same recipe, or the same error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)

from pretextlm.config import WHERE, Config, DirectoryName, PathText, apply_overrides, read_toml, write_toml
from pretextlm.errors import UserError
from pretextlm.files import AnyPath, write_text
from pretextlm.model.config import ModelConfig
from pretextlm.model.presets.preset import AUTO, filled_in
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.objectives.registry import build as build_objective
from pretextlm.shipped_recipes import recipe_file
from pretextlm.tasks.base import Task
from pretextlm.tasks.registry import build as build_task
from pretextlm.training.budget import Budget, BudgetKind
from pretextlm.training.recipe_paths import absolute, found_beside
from pretextlm.training.time_limit import parse_stop_at
from pretextlm.training.trainable_parameters import TuningConfig

if TYPE_CHECKING:
    from pretextlm.data.vocabulary import Vocabulary

Table = Mapping[str, Any]
"""A table of a recipe as plain values."""
TimeText = Annotated[
    str, BeforeValidator(lambda value: value.isoformat() if isinstance(value, time | datetime) else value)
]
"""A time as text; TOML's own dates and times are accepted as well."""
BUDGET = "training.budget_"
BUDGETS: tuple[BudgetKind, ...] = ("steps", "tokens", "epochs", "flops", "seconds")
ONE_BUDGET = f"give exactly one of {', '.join(f'budget_{kind}' for kind in BUDGETS)}"


class WithVocabulary(Protocol):
    """A store, or the records of a task."""

    @property
    def vocabulary(self) -> Vocabulary: ...


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns a recipe's tables with `section.key=value` set; a budget among these replaces the recipe's."""
    training = values.get("training")
    if isinstance(training, dict) and any(override.strip().startswith(BUDGET) for override in overrides):
        kept = {key: value for key, value in training.items() if not f"training.{key}".startswith(BUDGET)}
        values = {**values, "training": kept}
    return apply_overrides(values, overrides)


FREE = {
    "data": ("workers", "forgetting_stores"),
    "training": (
        *("device", "compile", "threads", "parallel", "micro_batch_tokens", "gradient_checkpointing"),
        *("timeout_seconds", "join_seconds"),
        *("checkpoint_seconds", "keep_checkpoints", "stop_at", "skip_steps", "spike"),
        *("trackers", "carbon_grams_per_kwh"),
    ),
}
"""Settings that may change when a run is resumed: they affect how it is computed, not its result."""


class DataConfig(Config):
    """The data that a run is trained on. Paths may be given as text, as `Path`, or as a `Store` or `Run`.

    Attributes:
        store: directory written by `pretextlm data prepare`; required for a pre-training objective.
        forgetting_stores: other stores of the same tokenizer, on whose held-out text the loss is measured before,
            during and after training, to see how much of them it forgets. Left out: the store of the run named by
            `start`, if that is another one and still exists; []: none.
        train, validation: required for a task: files with one record per line or row (.jsonl, .csv, .tsv, .parquet,
            .conll, also compressed), or hf:NAME.
        form: how these files are written, if not as their suffix says: the name of a form (data/forms), as "squad".
        on_error: "skip" leaves out rows that cannot be read or of which a column of the task is empty, and counts them.
        train_records, validation_records: read only this many records, sampled by the evaluation's seed (where records
            belong to groups: the first ones); 0: all.
        tokenizer: of a task whose model does not start from a run: a run, a store or a tokenizer.json.
        length: tokens per input row, or the most tokens of an example.
        workers: threads that prepare batches ahead; the batches do not depend on it.
    """

    section: ClassVar[str] = "data"

    store: PathText = ""
    forgetting_stores: tuple[PathText, ...] | None = None
    train: PathText = ""
    validation: PathText = ""
    form: str = ""
    on_error: Literal["error", "skip"] = "error"
    train_records: int = Field(0, ge=0)
    validation_records: int = Field(0, ge=0)
    tokenizer: PathText = ""
    length: int = Field(256, ge=8, le=1 << 20)
    workers: int = Field(1, ge=1, le=64)

    if TYPE_CHECKING:  # the types that are accepted, where they are wider than the fields'

        def __init__(
            self,
            *,
            store: AnyPath = "",
            forgetting_stores: Sequence[AnyPath] | None = None,
            train: AnyPath = "",
            validation: AnyPath = "",
            form: str = "",
            on_error: Literal["error", "skip"] = "error",
            train_records: int = 0,
            validation_records: int = 0,
            tokenizer: AnyPath = "",
            length: int = 256,
            workers: int = 1,
        ) -> None: ...


class TrainingConfig(Config):
    """Budget, optimizer, schedule and hardware of a run.

    Attributes:
        budget_steps, budget_tokens, budget_epochs, budget_flops, budget_seconds: length of the training; a recipe gives
            exactly one, and the schedule spans it. An epoch is one pass over the rows. A run with a budget in seconds
            ends on time on any machine, and is the only kind that cannot be repeated bit for bit.
        batch_tokens: raw text tokens per step, over all micro-batches; rounded to whole rows.
        batch_rows: rows per step instead (examples, for a task); 0: as many as batch_tokens gives.
        micro_batch_tokens: raw text tokens per forward and backward pass; 0: on a GPU the full batch at once, or the
            half, the quarter … of it that fits into memory; 8,192 on a CPU. The gradients do not depend on it.
        gradient_checkpointing: "blocks": only the inputs of each block are kept, and the backward pass recomputes the
            rest, a third more work for a fraction of the memory; "auto": for as many blocks as needed to fit a step
            into memory; "off". The gradients do not depend on it.
        optimizer: "muon" (matrices of the blocks; AdamW for embedding and head) or "adamw" for all.
        learning_rate: peak of the schedule. Muon's updates are scaled to the size of AdamW's, so one rate serves both.
        embedding_learning_rate: of embedding and head; 0: the same.
        weight_decay, beta1, beta2, momentum: of AdamW, AdamW, AdamW and Muon.
        schedule: "wsd" (warm-up, stable, linear decay), "cosine" or "linear".
        warmup, cooldown: shares of the budget; cooldown is the decay of "wsd".
        final_learning_rate: share of the peak rate at the end.
        dropout: dropout probability of the embedding's and of each sub-layer's output (model/dropout.py).
        max_grad_norm: largest global norm of the gradient; 0: no clipping.
        dtype: of activations; auto: bf16 on CUDA and on a CPU with AMX, fp16 on a GPU without bf16 that has fp16 tensor
            cores (T4, V100), else fp32. Weights are always fp32; in fp16 the loss is scaled (loss_scale.py).
        device: auto: CUDA if available.
        compile: auto: if the run is long enough to pay for it and a compiler is available.
        threads: CPU threads; 0: torch's default.
        log_every: steps per line of metrics.jsonl.
        validations: number of validations, evenly spaced over the budget; validation_rows: rows used for each, a
            sample of all of them by the evaluation's seed, in proportion over the sources.
        patience: stop after this many validations without improvement; 0: never.
        keep_best: the run ends with the weights of its best validation, not with the last ones.
        best_by: the metric to compare validations by: "loss" (lower is better), or an accuracy (class_accuracy,
            tag_accuracy, span_accuracy, …; higher is better).
        checkpoint_seconds: most seconds between checkpoints; keep_checkpoints: newest ones kept.
        stop_at: time to leave with a checkpoint and exit code 138, as by SIGUSR1: "2h30m" or "90m" after the start,
            "18:30", or "2030-01-31T18:30"; "": none. A Slurm job is left two minutes before its end in any case, if
            SLURM_JOB_END_TIME says when that is.
        skip_steps: how many steps may be skipped because the gradient is not finite, or is a spike; one more ends the
            run.
        spike: a gradient norm this many times its running mean counts as not finite; 0: none does.
        parallel: over several processes: "ddp" (replicated), "zero2" (sharded gradients and optimizer state), "zero3"
            (sharded weights too), "hybrid" (zero3 within a machine, replicated between machines).
        timeout_seconds: how long processes wait for each other before they give up; join_seconds: at the start.
        trackers: services that log the numbers of metrics.jsonl too: "tensorboard", "wandb", "trackio".
        carbon_grams_per_kwh: CO2 of the electricity, to convert measured energy into grams; left out: not computed.
    """

    section: ClassVar[str] = "training"

    budget_steps: int | None = Field(None, ge=1)
    budget_tokens: float | None = Field(None, gt=0)
    budget_epochs: float | None = Field(None, gt=0)
    budget_flops: float | None = Field(None, gt=0)
    budget_seconds: float | None = Field(None, gt=0)
    batch_tokens: int = Field(16_384, ge=8, le=1 << 40)
    batch_rows: int = Field(0, ge=0, le=1 << 32)
    micro_batch_tokens: int = Field(0, ge=0, le=1 << 40)
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
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
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
    stop_at: TimeText = ""
    skip_steps: int = Field(0, ge=0)
    spike: float = Field(0.0, ge=0)
    parallel: Literal["ddp", "zero2", "zero3", "hybrid"] = "ddp"
    timeout_seconds: float = Field(600.0, gt=0)
    join_seconds: float = Field(120.0, gt=0)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    carbon_grams_per_kwh: float | None = Field(None, ge=0, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if len(self._budgets()) > 1:
            raise ValueError(ONE_BUDGET)
        if self.warmup + (self.cooldown if self.schedule == "wsd" else 0) > 1:
            raise ValueError("warmup and cooldown together exceed the budget")
        if self.stop_at:
            parse_stop_at(self.stop_at, 0.0)
        return self

    def _budgets(self) -> dict[BudgetKind, float]:
        values = {kind: getattr(self, f"budget_{kind}") for kind in BUDGETS}
        return {kind: value for kind, value in values.items() if value is not None}

    @property
    def budget(self) -> Budget:
        """The one budget that is given."""
        kind, size = next(iter(self._budgets().items()))
        return Budget(kind, size)


class EvaluationConfig(Config):
    """Settings of the evaluation on held-out text.

    Attributes:
        documents: read at most so many validation documents, sampled in proportion over the store's sources; 0: all.
        tokens: read about so many tokens of complete documents; 0: all.
        blanks: number of blanks of the benchmark that all models share.
        prompts: number of prompts continued for the samples.
        seed: of masks, blanks and distractors, the same for every model compared.
    """

    section: ClassVar[str] = "evaluation"

    documents: int = Field(0, ge=0)
    tokens: int = Field(32_768, ge=0)
    blanks: int = Field(200, ge=1)
    prompts: int = Field(4, ge=0)
    seed: int = 1234


class Recipe(Config):
    """Everything that determines one run. Constructing a recipe and loading one from a file follow the same rules.

    The values that are not given are resolved on construction: the model's architecture and token types follow from the
    objective, a preset fills in the model's shape, and a task brings its own training defaults. A value that is given
    is never changed, also if it equals the default of its field.

    Args:
        name: of the run; its directory is runs/NAME unless another is given.
        seed: of weights, data order and noise.
        start: run directory whose newest weights a new run starts from; "": random initialisation.
        imported_from: of a run that `pretextlm import` wrote, where its model comes from; such a run has no data.
        data: the store of an objective, or the records of a task.
        objective: pre-training objective: an instance, a table with its `name` and options, or its name alone.
        task: instead of an objective, a task for fine-tuning, given in the same ways.
        model: shape of the model: an instance, a table (which may name a `preset`), or the name of a preset.
        training: budget, optimizer, schedule and hardware.
        tuning: which weights are trained.
        evaluation: settings of the evaluation on held-out text.

    Raises:
        UserError: a value is unknown, missing or wrong, or the objective does not suit the model's architecture.
    """

    model_config = ConfigDict(**Config.model_config, arbitrary_types_allowed=True)

    name: DirectoryName = "run"
    seed: int = Field(0, ge=0, lt=1 << 63)
    start: PathText = ""
    imported_from: str = ""
    data: DataConfig
    objective: SerializeAsAny[Objective] | None = None
    task: SerializeAsAny[Task] | None = None
    model: ModelConfig = ModelConfig()
    training: TrainingConfig
    tuning: TuningConfig = TuningConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    if TYPE_CHECKING:  # the types that are accepted, where they are wider than the fields'

        def __init__(
            self,
            *,
            name: str = "run",
            seed: int = 0,
            start: AnyPath = "",
            imported_from: str = "",
            data: DataConfig | Table,
            objective: Objective | Table | str | None = None,
            task: Task | Table | str | None = None,
            model: ModelConfig | Table | str = ...,
            training: TrainingConfig | Table = ...,
            tuning: TuningConfig | Table = ...,
            evaluation: EvaluationConfig | Table = ...,
        ) -> None: ...

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, values: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)
        recipe = handler(_resolved(values, (info.context or {}).get(WHERE, cls.described_as())))
        if "model" not in values:  # so that a run that starts from another may take its shape
            recipe.model_fields_set.discard("model")
        return recipe

    @model_validator(mode="after")
    def _rates_by_depth(self) -> Recipe:
        if self.training.optimizer == "muon" and (self.tuning.thaw or self.tuning.layer_decay != 1):
            raise ValueError('tuning.thaw and tuning.layer_decay need training.optimizer = "adamw"')
        return self

    @classmethod
    def described_as(cls) -> str:
        return "the recipe"

    @classmethod
    def load(
        cls,
        source: AnyPath | Table,
        *,
        overrides: Sequence[str] = (),
        where: str = "",
    ) -> Self:
        """Load a recipe from a TOML file or from its tables.

        Args:
            source: path of the file, name of a recipe of the package, or the tables as plain values.
            overrides: changes as on the command line, such as "training.learning_rate=1e-3"; a budget among them
                replaces the recipe's.
            where: name of the source in error messages; by default the path.

        Raises:
            UserError: the file cannot be read, or a value is unknown, missing or wrong.
        """
        if isinstance(source, Mapping):
            values, place = dict(source), where or cls.described_as()
        else:
            file = recipe_file(source)
            values, place = found_beside(read_toml(file), file), where or os.fspath(source)
        return cls.parse(overridden(values, overrides) if overrides else values, place)

    def save(self, path: AnyPath) -> None:
        """Write the recipe as TOML, every default included. Raises UserError if the file cannot be written."""
        write_text(Path(path), write_toml(self.dump()))

    def dump(self) -> dict[str, Any]:
        """Returns plain values, every default included; `Recipe.load` of them gives an equal recipe."""
        values = self.model_dump(mode="json", exclude_none=True)
        kind = "objective" if self.task is None else "task"
        values[kind] = {"name": self.training_objective.name, **values.pop(kind)}
        return values

    @property
    def training_objective(self) -> TrainingObjective:
        """The objective or the task: whichever is trained."""
        trained = self.objective if self.task is None else self.task
        assert trained is not None  # _resolved takes care of it
        return trained

    def vocabulary(self, store: WithVocabulary) -> Vocabulary:
        """Returns the store's special ids in the roles that the model gives them."""
        return self.model.special_token_ids.apply(store.vocabulary)

    def trains_as(self, other: Recipe) -> bool:
        """Returns whether this recipe may resume a run of the other: all that affects the result is equal."""
        return self._decisive() == other._decisive()

    def differences(self, before: Recipe) -> dict[str, tuple[Any, Any]]:
        """Returns the settings that affect the result and differ from another recipe: (before, now) by name."""
        now, then = (dict(_flat(one._decisive())) for one in (self, before))
        return {name: (then.get(name), now.get(name)) for name in {**then, **now} if then.get(name) != now.get(name)}

    def _decisive(self) -> dict[str, Any]:
        values = absolute(self.dump())
        for table, names in FREE.items():
            values[table] = {name: value for name, value in values[table].items() if name not in names}
        return values

    def with_vocabulary(self, vocabulary: Vocabulary) -> Self:
        """Returns the recipe with the model's vocab_size and sentinel_ids taken from the store.

        Raises:
            UserError: the model has fewer tokens than the store's tokenizer, or its sentinels cannot be found by id.
        """
        model, size = self.model, vocabulary.size
        if 0 < model.vocab_size < size:
            raise UserError(
                f"model.vocab_size is {model.vocab_size}, but the store's tokenizer has {size} tokens.",
                "Leave model.vocab_size out: it is then taken from the store.",
            )
        values = {"vocab_size": model.vocab_size or size, **_sentinel_values(model, vocabulary)}
        if values.items() <= dict(model).items():
            return self
        return self.model_copy(update={"model": ModelConfig.parse({**model.model_dump(), **values})})


def _sentinel_values(model: ModelConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns what a model with `sentinel_states` takes from the vocabulary; without sentinels it has no such states.

    Raises:
        UserError: there are other tokens among the sentinels' ids.
    """
    if not model.sentinel_states or model.sentinel_ids != (0, 0):
        return {}
    sentinels = vocabulary.sentinels
    if not sentinels:
        return {"sentinel_states": False}
    first, last = min(sentinels), max(sentinels)
    if last - first + 1 != len(sentinels):
        raise UserError(
            f"The tokenizer's sentinels have ids from {first} to {last}, with other tokens among them.",
            "Give model.sentinel_states = false: the decoder then finds sentinels by attention alone.",
        )
    return {"sentinel_ids": (first, last)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _resolved(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a recipe's values with everything filled in that follows from others."""
    values = dict(values)
    kind, trained = _trained(values, where)
    _check_data(values, kind, where)
    architecture = None
    model = values.get("model", {})
    given = {"preset": model} if isinstance(model, str) else _given(model)
    if given is not None and given.get("preset") == AUTO:
        raise UserError(
            f'model = "auto" in {where} is a size that is chosen when a training begins.',
            "Give tables or a file to pretrain, or write a recipe with the numbers by pretextlm plan --out FILE.",
        )
    if given is not None:
        values["model"] = _model(given, trained, where)
        architecture = values["model"]["architecture"]
    training = _given(values.get("training", {} if trained.training_defaults else None))
    if training is not None:
        values["training"] = {**_defaults(trained, training), **training}
        if not any(key.startswith("budget_") and value is not None for key, value in values["training"].items()):
            raise UserError(f"Wrong value for 'training' in {where}: {ONE_BUDGET}.", "For example: budget_tokens = 2e6")
    values.pop("objective", None)
    return {**values, kind: trained if architecture is None else trained.for_architecture(architecture)}


def _given(table: Any) -> dict[str, Any] | None:
    """Returns the values that are set in a table, or on a configuration; None where it is neither."""
    if isinstance(table, Config):
        return table.model_dump(exclude_unset=True)
    return dict(table) if isinstance(table, Mapping) else None


def _trained(values: Mapping[str, Any], where: str) -> tuple[Literal["objective", "task"], TrainingObjective]:
    """Returns the key and the instance of the objective or task. Raises UserError where there is none, or both."""
    objective, task = values.get("objective"), values.get("task")
    if objective is not None and task is not None:
        raise UserError(
            f"There are both an objective and a task in {where}.",
            "Give one of them: an objective is pre-trained, a task is fine-tuned.",
        )
    kind: Literal["objective", "task"] = "objective" if task is None else "task"
    value = objective if task is None else task
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping) and "name" in value:
        build = build_objective if kind == "objective" else build_task
        value = build(value["name"], {k: v for k, v in value.items() if k != "name"})
    if not isinstance(value, TrainingObjective):
        example = "causal" if kind == "objective" else "text_classification"
        raise UserError(f"Missing key '{kind}.name' in {where}.", f'Add: [{kind}] name = "{example}"')
    if not isinstance(value, Objective if kind == "objective" else Task):
        right, article = ("task", "a") if kind == "objective" else ("objective", "an")
        raise UserError(f"{value.name!r} is {article} {right}, given as {kind} in {where}.", f"Give it as {right} = …")
    return kind, value


def _check_data(values: Mapping[str, Any], kind: str, where: str) -> None:
    """Raises UserError if the data names no files to read; only an imported model has none."""
    data = values.get("data")
    if values.get("imported_from") or not isinstance(data, Mapping | DataConfig):
        return
    given = data if isinstance(data, Mapping) else data.model_dump()
    missing = [key for key in (("train", "validation") if kind == "task" else ("store",)) if not given.get(key)]
    if missing:
        raise UserError(f"Missing key 'data.{missing[0]}' in {where}.", f"Add a line such as: {missing[0]} = …")


def _model(given: Mapping[str, Any], trained: TrainingObjective, where: str) -> dict[str, Any]:
    """Returns the table [model] with the values of its preset, and those that follow from the objective."""
    model = filled_in(given, where)
    suits = trained.supported_architectures()
    model.setdefault("architecture", suits[0])
    if model["architecture"] not in suits:
        raise UserError(
            f"The {trained.described_as()} does not train a model of architecture {model['architecture']!r}.",
            f"It suits: {', '.join(suits)}.",
        )
    if model["architecture"] == "encoder_decoder" and "preset" not in given:
        model.setdefault("sentinel_states", True)
    if "type_vocab_size" not in given and trained.num_token_types() > model.get("type_vocab_size", 0):
        model["type_vocab_size"] = trained.num_token_types()
    return model


def _defaults(objective: TrainingObjective, training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the objective's defaults for the table [training]; a budget only where none is given."""
    given = any(key.startswith("budget_") for key in training)
    return {
        key: value for key, value in objective.training_defaults.items() if not (given and key.startswith("budget_"))
    }
