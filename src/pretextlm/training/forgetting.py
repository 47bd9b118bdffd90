"""What a run that goes on with a model forgets: its loss on held-out text of other stores, document by document.

Before anything is learnt, at every validation and at the end, the same rows under the same noise, as `pretextlm
evaluate` reads them: the figure at step 0 is that of the model that the run starts from. What was found first and last
is kept in the run directory by document, so that the difference has an error of its own.

Nothing is drawn from the random numbers of training, and no weight is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Batch, Spare, Term
from pretextlm.config import read_toml
from pretextlm.data.row_reader import DocumentRowReader, RowReader
from pretextlm.data.store import Store, sha256_of
from pretextlm.errors import UserError
from pretextlm.files import write_json
from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext
from pretextlm.training.held_out import MAX_TOKENS, UNIT_TOKENS, held_out_documents, held_out_rows
from pretextlm.training.run_directory import CONFIG, FORGETTING, TOKENIZER, Run
from pretextlm.training.validation import evaluation_batches, read_through

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.training.corpus import Corpus
    from pretextlm.training.recipe import Recipe

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class StoreLoss:
    """One measurement of a store.

    Attributes:
        totals: (K, U) summed loss of each of K terms on each of U groups of rows.
        counts: (K, U) targets.
        coefficients: (K,) weights of the terms in the loss.
    """

    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    coefficients: list[float]

    @property
    def loss(self) -> float:
        """The terms' means by their weights."""
        sizes = self.counts.sum(1)
        parts = zip(self.coefficients, self.totals, sizes.tolist(), strict=True)
        return float(sum(weight * (float(totals.sum()) / size) for weight, totals, size in parts if size))


class MonitoredStore:
    """A store whose held-out text a run is measured on beside its own.

    Args:
        place: as the recipe names it.
        recipe: of the run.

    Attributes:
        name: what its figures go by.

    Raises:
        UserError: there is no such store, or it has no text or no row for the objective.
    """

    def __init__(self, name: str, place: str, recipe: Recipe) -> None:
        self.name, self.place = name, place
        self._objective = recipe.training_objective.at_evaluation()
        store = Store.open(Path(place))
        self._vocabulary: Vocabulary = recipe.vocabulary(store)
        self._seed = recipe.evaluation.seed
        self._split = held_out_documents(store.validation, recipe.evaluation.documents, MAX_TOKENS)
        self._reader, self._rows = held_out_rows(
            self._objective, self._vocabulary, self._split, recipe.data.length, store.validation
        )

    @property
    def objective(self) -> TrainingObjective:
        """By which it is measured: of a distilled model that which its teacher shares."""
        return self._objective

    def measure(
        self,
        model: nn.Module,
        step: Callable[[Batch], Mapping[str, Term]],
        distributed: DistributedContext = SINGLE_PROCESS,
        before_batch: Callable[[], None] = lambda: None,
    ) -> StoreLoss:
        """The loss of each group of rows; the same on all processes, which share the work."""
        counted: list[dict[str, int]] = []
        found: dict[int, Mapping[str, Term]] = {}
        coefficients: dict[str, float] = {}

        def take(number: int, batch: Batch, terms: Mapping[str, Term]) -> None:
            coefficients.update({name: term.coefficient for name, term in terms.items()})
            if not isinstance(batch, Spare):
                found[number] = terms

        batches = self._counted(counted)
        read_through(model, batches, step, take, distributed=distributed, before_batch=before_batch)
        names = list(dict.fromkeys(name for counts in counted for name in counts))
        totals = np.zeros((len(names), len(counted)))
        for number, terms in found.items():
            for place, name in enumerate(names):
                totals[place, number] = float(terms[name].total) if name in terms else 0.0
        weights = distributed.all_gather([coefficients.get(name, 0.0) for name in names]).max(0).values.tolist()
        summed = np.array(distributed.all_reduce_sum(totals.reshape(-1).tolist())).reshape(totals.shape)
        counts = np.array([[counts.get(name, 0) for counts in counted] for name in names], np.int64)
        return StoreLoss(summed, counts, weights)

    def about(self) -> dict[str, Any]:
        """What is kept beside what was found: the document that each group of rows begins in, and the size of all."""
        return {
            "store": self.place,
            "begins_in": [self._document(batch) for batch in self._batches()],
            "documents": self._split.num_documents,
            "text_bytes": self._split.text_bytes,
            "tokens": self._split.num_tokens,
        }

    def _counted(self, counted: list[dict[str, int]]) -> Iterator[Batch]:
        """The batches, with the targets of each noted."""
        for batch in self._batches():
            counted.append(self._objective.counts(batch))
            yield batch

    def _batches(self) -> Iterator[Batch]:
        return evaluation_batches(self._reader, self._objective, self._vocabulary, self._rows, self._seed, UNIT_TOKENS)

    def _document(self, batch: Batch) -> int:
        return document_of(self._reader, int(batch.example_ids[0]), self._seed)


def document_of(reader: RowReader, row: int, seed: int) -> int:
    """The document that a row of one pass in order begins in; a row is its own where the reader knows of none."""
    return int(reader.documents(np.array([row]), seed)[0]) if isinstance(reader, DocumentRowReader) else row


class ForgettingRecord:
    """forgetting.json of a run: what was found before training and after it, by group of rows."""

    def __init__(self, run: Path) -> None:
        self._path = run / FORGETTING

    def write(self, moment: Moment, step: int, found: Sequence[tuple[MonitoredStore, StoreLoss]]) -> None:
        """Put down what was found of all stores at a moment. Raises UserError when it cannot be written."""
        known = read_forgetting(self._path.parent) if moment == "after" else {}
        for store, one in found:
            values = dict(known.get(store.name) or store.about())
            values |= {"counts": one.counts.tolist(), "coefficients": one.coefficients}
            known[store.name] = values | {moment: one.totals.tolist(), f"{moment}_step": step}
        write_json(self._path, known)


def read_forgetting(run: Path) -> dict[str, dict[str, Any]]:
    """Returns the recorded losses of a run by the name of the store; {} if it monitors none.

    Raises UserError for a file that is damaged.
    """
    path = run / FORGETTING
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged.", "Remove it: the run then has no record of forgetting.")
    return values


def with_monitored_stores(recipe: Recipe, corpus: Corpus) -> tuple[Recipe, list[MonitoredStore]]:
    """(the recipe with the stores that are watched written out, these stores).

    Where the recipe names none, it is the store of the run that it starts from, if that is another one, is still there,
    has the same tokens and rows for the objective. Raises UserError for a store that is named and does not do.
    """
    named = recipe.data.forgetting_stores
    if named and recipe.task is not None:
        raise UserError(
            "A task has no loss on plain text: data.forgetting_stores belongs to a recipe with an [objective].",
            "Leave data.forgetting_stores out.",
        )
    if named is None:
        found = _of_start(recipe, corpus)
    else:
        found = _all(named, recipe, corpus)
    places = tuple(store.place for store in found)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"forgetting_stores": places})}), found


def recorded_stores(recipe: Recipe, directory: Path) -> Recipe:
    """The recipe with the stores that the run in this directory watches, where it does not say which."""
    if recipe.data.forgetting_stores is not None or not (directory / CONFIG).exists():
        return recipe
    stores = read_toml(directory / CONFIG).get("data", {}).get("forgetting_stores", ())
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"forgetting_stores": tuple(stores)})})


def _of_start(recipe: Recipe, corpus: Corpus) -> list[MonitoredStore]:
    """The store of the run that the recipe starts from, where it can be watched."""
    if recipe.task is not None or not recipe.start or not Path(recipe.start).exists():
        return []
    place = Run.open(Path(recipe.start)).recipe.data.store
    if not place or not Path(place).is_dir() or Path(place).resolve() == Path(recipe.data.store).resolve():
        return []
    try:
        return _all((place,), recipe, corpus)
    except UserError:
        return []


def _all(places: Sequence[str], recipe: Recipe, corpus: Corpus) -> list[MonitoredStore]:
    names = _names(places)
    for place in places:
        if sha256_of(Store.open(Path(place)).path / TOKENIZER) != sha256_of(corpus.path / TOKENIZER):
            raise UserError(
                f"The store to monitor, {place}, was prepared with another tokenizer than {corpus.path}.",
                f"Prepare it with the same: pretextlm data prepare … --tokenizer {corpus.path}",
            )
    return [MonitoredStore(name, place, recipe) for name, place in zip(names, places, strict=True)]


def _names(places: Sequence[str]) -> list[str]:
    """The stores' directories by name, whole where two have the same. Raises UserError where one comes twice."""
    whole = [Path(place).resolve() for place in places]
    if len(set(whole)) < len(whole):
        raise UserError("data.forgetting_stores names the same store twice.", "Name each once.")
    short = [path.name for path in whole]
    return [name if short.count(name) == 1 else str(place) for name, place in zip(short, places, strict=True)]
