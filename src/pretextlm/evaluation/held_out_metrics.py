"""A model on held-out rows, which are read once, and the metrics that its objective declares (`Objective.measures`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pretextlm.batch import IGNORE, Batch, Term
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.metric import Better, Metric, in_bits, ratio, weighted_ratios
from pretextlm.model.transformer import Outputs, Transformer
from pretextlm.objectives.base import Objective
from pretextlm.scoring.log_probabilities import score_labels
from pretextlm.scoring.scorer import Scorer
from pretextlm.training.forward import Forward
from pretextlm.training.held_out import BATCH_TOKENS, HeldOutRows, what_was_read


@dataclass(frozen=True)
class Unit:
    """Results on one batch of rows.

    Attributes:
        terms: the objective's loss terms.
        is_likeliest: (N,) bool: the label was the likeliest token of the language-model head.
        is_masked: (N,) bool: the labelled token is [MASK] in the input.
    """

    terms: dict[str, Term]
    is_likeliest: NDArray[np.bool_]
    is_masked: NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """The model and the rows that measures are computed on.

    Attributes:
        model: in eval mode.
        objective: by which it is measured; no other model but those among its heads takes part.
        vocabulary: of its tokens.
        split: complete documents of the validation split, sampled.
        length: tokens of an input row, as in training.
        seed: of the masks; the same for all models that are compared.
        scorer: the model as a scorer; None where it fills no blanks.
        full_split: the validation split that they were sampled from; None if there is no more.
        batch_tokens: see BATCH_TOKENS; it changes nothing but rounding.
    """

    model: Transformer
    objective: Objective
    vocabulary: Vocabulary
    split: Split
    length: int
    seed: int
    scorer: Scorer | None = None
    full_split: Split | None = None
    batch_tokens: int = BATCH_TOKENS

    def batches(self, rows: int | None = None) -> Iterator[tuple[int, Batch]]:
        """Yields the held-out rows under the objective in one pass, or a sample of `rows` of them.

        Yields:
            The document (or group of short ones) that a batch belongs to, and the batch.
        """
        some = self.rows if rows is None else self.rows.some(rows)
        return zip(some.clusters.documents.tolist(), some.batches(), strict=True)

    @cached_property
    def rows(self) -> HeldOutRows:
        """The rows. Raises UserError where no text gives a row."""
        where = self.vocabulary, self.split, self.length, self.seed, self.full_split, self.batch_tokens
        return HeldOutRows.of(self.objective, *where)

    @cached_property
    def forward(self) -> Forward:
        """Runs the model, and those among its heads."""
        return Forward(self.model, self.objective, self.model.embed_tokens.weight.device, torch.float32)

    @cached_property
    def units(self) -> list[Unit]:
        """The results on all rows, batch by batch."""
        return list(_units(self))

    @cached_property
    def loss(self) -> Metric | None:
        """The training loss: the weighted sum of the terms' means. None without any target."""
        return self.loss_of(np.ones(len(self.units), np.bool_))

    def loss_of(self, chosen: NDArray[np.bool_]) -> Metric | None:
        """Returns the loss on some of the batches (U,); None without any target."""
        parts = []
        for name in self._term_names:
            terms = [unit.terms[name] for unit in self.units if name in unit.terms]
            totals, counts = self.sums(name)
            if counts[chosen].sum():
                parts.append((totals[chosen], counts[chosen], terms[0].coefficient))
        return weighted_ratios(parts, "nats", "lower", self.rows.clusters.of(chosen)) if parts else None

    @property
    def targets_per_byte(self) -> float:
        """Targets of the loss by the UTF-8 bytes of the documents."""
        clusters, counts = self.rows.clusters, self.sums(self._term_names[0])[1]
        return float(clusters.summed(counts).sum()) / self.rows.weighted_bytes

    def term_metrics(self) -> dict[str, Metric]:
        """Returns the mean loss of each term where there are several, and the accuracy of those that count it."""
        found = {}
        for name in self._term_names:
            totals, counts = self.sums(name)
            if not counts.sum():
                continue
            if len(self._term_names) > 1:
                found[f"{name}_loss"] = self._ratio(totals, counts, "nats", "lower")
            terms = [unit.terms.get(name, Term(torch.zeros(()), 0, correct=torch.zeros(()))) for unit in self.units]
            rights = [float(term.correct) for term in terms if term.correct is not None]
            if len(rights) == len(terms):
                found[f"{name}_accuracy"] = self._ratio(rights, counts, "share", "higher")
        return found

    def accuracy(self, masks_only: bool = False) -> Metric | None:
        """Returns the share of labels that were the likeliest token; None without any.

        Args:
            masks_only: count the labels alone whose token is [MASK] in the input.
        """
        each = [unit.is_likeliest[unit.is_masked] if masks_only else unit.is_likeliest for unit in self.units]
        counts = [len(one) for one in each]
        rights = [int(one.sum()) for one in each]
        return self._ratio(rights, counts, "share", "higher") if sum(counts) else None

    def _ratio(self, totals: ArrayLike, counts: ArrayLike, unit: str, better: Better) -> Metric:
        return ratio(totals, counts, unit, better, self.rows.clusters)

    @cached_property
    def _term_names(self) -> list[str]:
        return list(dict.fromkeys(name for unit in self.units for name in unit.terms))

    def sums(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns (U,) summed losses and (U,) targets of a term in each batch."""
        terms = [unit.terms.get(name) for unit in self.units]
        totals = np.array([0.0 if term is None else float(term.total) for term in terms])
        return totals, np.array([0 if term is None else term.count for term in terms])


class _RecordingForward:
    """A forward that keeps the last outputs of each model."""

    def __init__(self, forward: Forward) -> None:
        self.forward, self.last = forward, dict[str, Outputs]()

    def __call__(self, batch: Batch, role: str = "model") -> Outputs:
        self.last[role] = self.forward(batch, role)
        return self.last[role]


def held_out_metrics(held_out: HeldOut) -> dict[str, Metric]:
    """Returns the loss on the held-out rows, that of its terms, and the objective's own measures, where there are any.

    Raises:
        UserError: the held-out text gives no row for the objective.
    """
    metrics = {} if held_out.loss is None else {"loss": held_out.loss}
    metrics |= held_out.term_metrics()
    for measure in held_out.objective.measures:
        metric = None if measure.compute is None else measure.compute(held_out)
        if metric is not None:
            metrics[measure.name] = metric
    return metrics


def by_source(held_out: HeldOut, names: Sequence[str]) -> dict[str, Any]:
    """Returns the loss on each source of the text, and its bits per byte where they are defined.

    Args:
        held_out: the model and the rows.
        names: of the store's sources. Equal ones are told apart by their place.

    Returns:
        For each source {"documents", "documents_total", "tokens", "tokens_total", "metrics"}; {} if there is only one.
    """
    full, split = held_out.full_split or held_out.split, held_out.split
    there = np.unique(full.document_sources).tolist()
    found: dict[str, Any] = {}
    for source in there if len(there) > 1 else []:
        some, every = split.select(split.document_sources == source), full.select(full.document_sources == source)
        chosen = held_out.rows.clusters.sources == source
        loss = held_out.loss_of(chosen)
        metrics = {} if loss is None else {"loss": loss.plain()}
        if loss is not None and held_out.objective.models_every_token and some.text_bytes:
            metrics["bits_per_byte"] = in_bits(loss, loss.n / some.text_bytes, some.text_bytes).plain()
        name = names[source] if names.count(names[source]) == 1 else f"{names[source]} ({source + 1})"
        found[name] = what_was_read(some, every) | {"metrics": metrics}
    return found


@torch.inference_mode()
def _units(held_out: HeldOut) -> Iterator[Unit]:
    for _, batch in held_out.batches():
        forward = _RecordingForward(held_out.forward)
        terms = held_out.objective.step(forward, batch)
        outputs = forward.last.get("generator", forward.last["model"])  # the model that restores tokens
        likeliest = score_labels(outputs.model, outputs.hidden_ND, outputs.labels_N).is_likeliest
        yield Unit(terms, likeliest, _is_masked(batch, held_out.objective, held_out.vocabulary))


def _is_masked(batch: Batch, objective: Objective, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Returns (N,) for the labels in row order whether the labelled token is [MASK] in the input."""
    labelled: NDArray[np.bool_] = batch.targets != IGNORE
    masks = np.zeros(labelled.shape, bool)
    if batch.decoder_labels is None:
        masks = batch.input_ids == vocabulary.mask
        if getattr(objective, "predict", "here") == "next":  # the label of column t is the token of column t + 1
            masks = np.concatenate([masks[:, 1:], np.zeros_like(masks[:, :1])], axis=1)
    return masks[labelled]
