"""The data of a recipe: a store of text, or the records of a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from pretextlm.data.manifest import read_manifest
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.seeded_sample import sampled
from pretextlm.data.store import Store, sha256_of
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.data.records import Records
    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.tasks.base import Task
    from pretextlm.training.recipe import Recipe


SplitName = Literal["train", "validation"]
SPLITS: tuple[SplitName, ...] = ("train", "validation")


@dataclass(frozen=True)
class Corpus:
    """The data of a run, with the objective or task that reads it.

    Attributes:
        path: directory with the tokenizer.json of the text.
        train: the documents of a store's training split that the objective reads, or a task's training examples.
        validation: likewise.
        vocabulary: of the tokenizer, with the special tokens in the roles that the model gives them.
        objective: that is trained.
        length: maximum tokens of an input row.
        records: of a task, both files'; None for a store.
        num_filtered: records that the task, or training documents that the objective leaves out.
    """

    path: Path
    train: Any
    validation: Any
    vocabulary: Vocabulary
    objective: TrainingObjective
    length: int
    records: tuple[Records, Records] | None = None
    num_filtered: int = 0

    @classmethod
    def of_store(cls, recipe: Recipe, store: Store) -> Corpus:
        """Returns a store as the data of a recipe.

        Raises:
            UserError: it has no documents for the objective.
        """
        vocabulary, objective = recipe.vocabulary(store), recipe.training_objective
        train, validation = objective.documents(store.train), objective.documents(store.validation)
        left_out = store.train.num_documents - train.num_documents
        return cls(store.path, train, validation, vocabulary, objective, recipe.data.length, None, left_out)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of what is read, by name: the files of the store, or the labelled files; and the tokenizer."""
        if self.records is not None:
            files = {f"data.{split}": one.sha256 for split, one in zip(SPLITS, self.records, strict=True)}
        else:
            files = store_hashes(self.path)
        return {"the tokenizer": sha256_of(self.path / "tokenizer.json"), **files}

    @property
    def num_tokens(self) -> int:
        """Tokens of the training split."""
        return len(self.train.tokens)

    def reader(self, split: SplitName) -> RowReader:
        """Returns a reader of a split as rows of the objective.

        Raises:
            UserError: the split has no rows for the objective.
        """
        return self.objective.reader(getattr(self, split), self.vocabulary, self.length)


def store_hashes(store: Path) -> dict[str, str]:
    """Returns the SHA-256 of the files of a store, by the names that run.json has for them."""
    return {f"data.store/{name}": one.sha256 for name, one in read_manifest(store).files.items()}


def open_corpus(recipe: Recipe) -> tuple[Recipe, Corpus]:
    """Opens the data of a recipe.

    Returns:
        (the recipe completed by its data: vocabulary size and, for a task, its labels; the data).

    Raises:
        UserError: data is missing or malformed; names the file and row.
    """
    if recipe.task is None:
        store = Store.open(Path(recipe.data.store))
        recipe = recipe.with_vocabulary(store.vocabulary)
        return recipe, Corpus.of_store(recipe, store)
    return _open_records(recipe, recipe.task)


def _open_records(recipe: Recipe, task: Task) -> tuple[Recipe, Corpus]:
    from pretextlm.data.tokenizer import load_tokenizer, vocabulary_of

    place = tokenizer_place(recipe)
    tokenizer = load_tokenizer(place)
    vocabulary = vocabulary_of(tokenizer)
    recipe = recipe.with_vocabulary(vocabulary)
    read = [read_split(recipe, split) for split in SPLITS]
    train, validation = used = [task.filter_records(records) for records in read]
    task = task.fit_labels(train)
    vocabulary = recipe.model.special_token_ids.apply(vocabulary)
    encoder = OffsetTokenizer(tokenizer, vocabulary)
    train_examples, validation_examples = [
        task.examples(records, encoder, recipe.model, recipe.data.length) for records in used
    ]
    filtered = sum(map(len, read)) - sum(map(len, used)) + sum(one.skipped for one in read)
    recipe = recipe.model_copy(update={"task": task})
    records = (train, validation)
    return recipe, Corpus(
        place.parent, train_examples, validation_examples, vocabulary, task, recipe.data.length, records, filtered
    )


def read_split(recipe: Recipe, split: SplitName, source: str = "") -> Records:
    """Returns the records of a task, or a sample of as many as the recipe says, in their order.

    Args:
        recipe: of the task.
        split: which of its files.
        source: other records instead of the recipe's, without a limit.

    Raises:
        UserError: there are none, or a record is wrong.
    """
    from pretextlm.data.records import read_records

    task, data = cast("Task", recipe.task), recipe.data
    columns = task.columns() if split == "train" else task.validation_columns()
    given = data.train if split == "train" else data.validation
    if not source and not given:
        elsewhere = "; of a run to evaluate: --store FILE" if split == "validation" else ""
        message = f"There are no records: the recipe has no data.{split}."
        raise UserError(message, f"Name a file: data.{split}=FILE{elsewhere}")
    records = read_records(source or given, columns, form="" if source else data.form, on_error=data.on_error)
    most = 0 if source else data.train_records if split == "train" else data.validation_records
    if not 0 < most < len(records):
        return records
    if getattr(task, "group", ()):  # a sample would take groups apart
        return records.take(range(most))
    return records.take(sampled(np.zeros(len(records), np.int64), most, recipe.evaluation.seed).tolist())


def tokenizer_place(recipe: Recipe) -> Path:
    """Returns the path of the tokenizer.json of a task.

    Raises:
        UserError: the recipe names none.
    """
    given = recipe.data.tokenizer or recipe.start
    if not given:
        raise UserError(
            "The recipe does not say which tokenizer reads the examples.",
            "Give start = RUN to fine-tune a run, or data.tokenizer = RUN for a model from scratch.",
        )
    place = Path(given)
    place = place / "tokenizer.json" if place.is_dir() else place
    if place.name != "tokenizer.json":
        raise UserError(f"{place} is not a tokenizer.json.", "Give a run, a store, or a file of that name.")
    return place
