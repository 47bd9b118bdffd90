"""Forgetting: how the loss on held-out text of other stores changes while a run continues another model.

Before the first step, at every validation and at the end, the loss is measured on the same rows under the same noise,
as `pretextlm evaluate` reads them; the loss at step 0 is that of the model that the run starts from. The first and the
last losses are recorded in the run directory by document, so that their difference has a standard error.

Measuring changes neither the weights nor the random numbers of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Batch, Spare, Term
from pretextlm.config import read_toml
from pretextlm.data.store import Store
from pretextlm.data.tokenizer import same_ids
from pretextlm.errors import UserError
from pretextlm.files import write_json
from pretextlm.metric import Clusters, Metric, weighted_ratios
from pretextlm.plain_files import read_json
from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext
from pretextlm.training.held_out import HeldOutRows, held_out_documents, what_was_read
from pretextlm.training.run_directory import CONFIG, FORGETTING, TOKENIZER, Run
from pretextlm.training.validation import read_through

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.training.corpus import Corpus
    from pretextlm.training.recipe import Recipe

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class StoreLoss:
    """The loss on a store, for K loss terms and U batches of rows.

    Attributes:
        totals: (K, U) summed losses.
        counts: (K, U) number of targets.
        coefficients: (K,) weights of the terms in the loss.
        clusters: the documents of the batches.
    """

    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    coefficients: list[float]
    clusters: Clusters

    @property
    def metric(self) -> Metric:
        """Weighted sum of the terms' means, with its standard error."""
        terms = zip(self.totals, self.counts, self.coefficients, strict=True)
        return weighted_ratios([term for term in terms if term[1].any()], "nats", "lower", self.clusters)


class MonitoredStore:
    """A store on whose held-out text forgetting is measured.

    Args:
        name: of the store in metrics and reports.
        place: its directory, as the recipe gives it.
        recipe: of the run.

    Attributes:
        objective: by which the loss is measured; for a distilled model, the one it shares with its teacher.

    Raises:
        UserError: there is no such store, or it has no text or no rows for the objective.
    """

    def __init__(self, name: str, place: str, recipe: Recipe) -> None:
        self.name, self.place = name, place
        self.objective: TrainingObjective = recipe.training_objective.at_evaluation()
        store = Store.open(Path(place))
        self._full = self.objective.documents(store.validation)
        self._split = held_out_documents(self._full, recipe.evaluation)
        where = recipe.vocabulary(store), self._split, recipe.data.length, recipe.evaluation.seed, self._full
        self._rows = HeldOutRows.of(self.objective, *where)

    def measure(
        self,
        model: nn.Module,
        step: Callable[[Batch], Mapping[str, Term]],
        distributed: DistributedContext = SINGLE_PROCESS,
        before_batch: Callable[[], None] = lambda: None,
    ) -> StoreLoss:
        """Measures the loss of each batch of rows.

        Args:
            model: that is evaluated.
            step: computes the loss terms of a batch.
            distributed: the processes that share the work, all of which call this.
            before_batch: called before every batch; may raise to abort.

        Returns:
            The losses, the same on all processes.
        """
        counted: list[dict[str, int]] = []
        found: dict[int, Mapping[str, Term]] = {}
        coefficients: dict[str, float] = {}

        def batches() -> Iterator[Batch]:
            for batch in self._rows.batches():
                counted.append(self.objective.counts(batch))
                yield batch

        def take(number: int, batch: Batch, terms: Mapping[str, Term]) -> None:
            coefficients.update({name: term.coefficient for name, term in terms.items()})
            if not isinstance(batch, Spare):
                found[number] = terms

        read_through(model, batches(), step, take, distributed=distributed, before_batch=before_batch)
        names = list(dict.fromkeys(name for counts in counted for name in counts))
        totals = np.zeros((len(names), len(counted)))
        for number, terms in found.items():
            for row, name in enumerate(names):
                totals[row, number] = float(terms[name].total) if name in terms else 0.0
        # Each process has the totals of its own batches and zeros elsewhere, so the sum is the complete table.
        weights = distributed.all_gather([coefficients.get(name, 0.0) for name in names]).max(0).values.tolist()
        summed = np.array(distributed.all_reduce_sum(totals.reshape(-1).tolist())).reshape(totals.shape)
        counts = np.array([[counts.get(name, 0) for counts in counted] for name in names], np.int64)
        return StoreLoss(summed, counts, weights, self._rows.clusters)

    def describe(self) -> dict[str, Any]:
        """Returns plain values for the record: what was read, and the document and source of each batch of rows."""
        clusters = self._rows.clusters
        return {
            "store": self.place,
            **what_was_read(self._split, self._full),
            "text_bytes": self._split.text_bytes,
            "weighted_bytes": self._rows.weighted_bytes,
            "batches": {
                "document": clusters.documents.tolist(),
                "source": clusters.sources.tolist(),
                "weight": clusters.weights.tolist(),
            },
        }


def record_losses(run: Path, moment: Moment, step: int, losses: Sequence[tuple[MonitoredStore, StoreLoss]]) -> None:
    """Writes losses into forgetting.json of a run; those before training replace an earlier record.

    Args:
        run: the run directory.
        moment: before the first step, or after the last one.
        step: at which they were measured.
        losses: each store with its loss.

    Raises:
        UserError: the earlier record is damaged.
    """
    known = read_forgetting(run) if moment == "after" else {}
    for store, loss in losses:
        values = dict(known.get(store.name) or store.describe())
        values |= {"counts": loss.counts.tolist(), "coefficients": loss.coefficients}
        known[store.name] = values | {moment: loss.totals.tolist(), f"{moment}_step": step}
    write_json(run / FORGETTING, known)


def read_forgetting(run: Path) -> dict[str, dict[str, Any]]:
    """Returns the recorded losses of a run by the name of the store; {} if it monitors none.

    Raises:
        UserError: the file is damaged.
    """
    path = run / FORGETTING
    try:
        values = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged.", "Remove it: the run then has no record of forgetting.")
    return values


def with_monitored_stores(recipe: Recipe, corpus: Corpus) -> tuple[Recipe, list[MonitoredStore]]:
    """Opens the stores on which forgetting is measured.

    If the recipe names none, it is the store of the run that it starts from, provided that this is another store, still
    exists, has the same tokenizer and has rows for the objective.

    Args:
        recipe: complete.
        corpus: its data.

    Returns:
        (the recipe with these stores written out, the stores).

    Raises:
        UserError: a store that the recipe names cannot be used.
    """
    named = recipe.data.forgetting_stores
    if named and recipe.task is not None:
        raise UserError(
            "A task has no loss on plain text: data.forgetting_stores belongs to a recipe with an [objective].",
            "Leave data.forgetting_stores out.",
        )
    found = _store_of_start(recipe, corpus) if named is None else _open_all(named, recipe, corpus)
    return _with_stores(recipe, [store.place for store in found]), found


def recorded_stores(recipe: Recipe, directory: Path) -> Recipe:
    """Returns the recipe with the stores that the run in a directory monitors, unless it names its own."""
    if recipe.data.forgetting_stores is not None or not (directory / CONFIG).exists():
        return recipe
    return _with_stores(recipe, read_toml(directory / CONFIG).get("data", {}).get("forgetting_stores", ()))


def _with_stores(recipe: Recipe, places: Sequence[str]) -> Recipe:
    data = recipe.data.model_copy(update={"forgetting_stores": tuple(places)})
    return recipe.model_copy(update={"data": data})


def _store_of_start(recipe: Recipe, corpus: Corpus) -> list[MonitoredStore]:
    """Returns the store of the run that the recipe starts from, if it can be monitored."""
    if recipe.task is not None or not recipe.start or not Path(recipe.start).exists():
        return []
    place = Run.open(Path(recipe.start)).recipe.data.store
    if not place or not Path(place).is_dir() or Path(place).resolve() == Path(recipe.data.store).resolve():
        return []
    try:
        return _open_all((place,), recipe, corpus)
    except UserError:
        return []


def _open_all(places: Sequence[str], recipe: Recipe, corpus: Corpus) -> list[MonitoredStore]:
    names = _names(places)
    for place in places:
        if not same_ids(Store.open(Path(place)).path / TOKENIZER, corpus.path / TOKENIZER):
            raise UserError(
                f"The store to monitor, {place}, was prepared with another tokenizer than {corpus.path}.",
                f"Prepare it with the same: pretextlm data prepare … --tokenizer {corpus.path}",
            )
    return [MonitoredStore(name, place, recipe) for name, place in zip(names, places, strict=True)]


def _names(places: Sequence[str]) -> list[str]:
    """Returns the last part of each store's path, or the path itself where two stores have the same last part.

    Raises:
        UserError: a store is named twice.
    """
    paths = [Path(place).resolve() for place in places]
    if len(set(paths)) < len(paths):
        raise UserError("data.forgetting_stores names the same store twice.", "Name each once.")
    short = [path.name for path in paths]
    return [name if short.count(name) == 1 else str(place) for name, place in zip(short, places, strict=True)]
