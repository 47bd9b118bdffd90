"""What a recipe learns from, opened: a store of text, or the records of a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.store import Store
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.data.examples import Examples
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.tasks.base import Task
    from pretextlm.training.recipe import Recipe


Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class Corpus(Protocol):
    """Attributes: path: directory with the tokenizer.json of the text; train, validation: what an objective's reader
    reads; vocabulary: of the tokenizer."""

    @property
    def path(self) -> Path: ...

    @property
    def train(self) -> Any: ...

    @property
    def validation(self) -> Any: ...

    @property
    def vocabulary(self) -> Vocabulary: ...


@dataclass(frozen=True)
class Labelled:
    """A task's examples. Attributes: as of any corpus; records: of both files; left_out: how many the task left out."""

    path: Path
    train: Examples
    validation: Examples
    vocabulary: Vocabulary
    records: tuple[Records, Records]
    left_out: int


def open_corpus(recipe: Recipe) -> tuple[Recipe, Corpus]:
    """(the recipe with what only its data can say, what it learns from).

    Raises UserError for data that is missing or wrong, by file and row.
    """
    if recipe.task is None:
        store = Store.open(Path(recipe.data.store))
        return recipe.with_vocabulary(store.vocabulary.size), store
    return _open_labelled(recipe)


def _open_labelled(recipe: Recipe) -> tuple[Recipe, Labelled]:
    from pretextlm.data.tokenizer import load_tokenizer, vocabulary_of

    task = cast("Task", recipe.task)
    place = tokenizer_place(recipe)
    tokenizer = load_tokenizer(place)
    vocabulary = vocabulary_of(tokenizer)
    recipe = recipe.with_vocabulary(vocabulary.size)
    read = [read_split(recipe, split) for split in SPLITS]
    train, validation = used = [task.filter_records(records) for records in read]
    left_out = sum(map(len, read)) - sum(map(len, used))
    task = task.fit_labels(train)
    encoder = OffsetTokenizer(tokenizer, recipe.model.special_token_ids.apply(vocabulary))
    made = [task.examples(records, encoder, recipe.model, recipe.data.length) for records in (train, validation)]
    recipe = recipe.model_copy(update={"task": task})
    return recipe, Labelled(place.parent, made[0], made[1], vocabulary, (train, validation), left_out)


def read_split(recipe: Recipe, split: Split, source: str = "") -> Records:
    """A task's records, as many as the recipe takes of them.

    Args:
        source: other records than the recipe's; all of them are read.
    """
    from pretextlm.data.records import read_records

    task, data = cast("Task", recipe.task), recipe.data
    columns = task.columns() if split == "train" else task.validation_columns()
    given = data.train if split == "train" else data.validation
    records = read_records(source or given, columns)
    most = 0 if source else data.train_records if split == "train" else data.validation_records
    return records.take(range(most)) if 0 < most < len(records) else records


def tokenizer_place(recipe: Recipe) -> Path:
    """The tokenizer.json of a task. Raises UserError where the recipe names none."""
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
