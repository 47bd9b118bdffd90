"""A model on held-out rows, which are read once, and the metrics that its objective declares (`Objective.measures`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Term
from pretextlm.data.row_reader import RowReader
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.metric import Metric, ratio, weighted_ratios
from pretextlm.model.transformer import Outputs, Transformer
from pretextlm.objectives.base import Objective
from pretextlm.scoring.log_probabilities import score_labels
from pretextlm.scoring.scorer import Scorer
from pretextlm.training.forward import Forward
from pretextlm.training.held_out import UNIT_TOKENS, held_out_rows
from pretextlm.training.validation import evaluation_batches


@dataclass(frozen=True)
class Unit:
    """Results on one group of rows, the unit of standard errors.

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
        split: complete documents of the validation split.
        length: tokens of an input row, as in training.
        seed: of the masks; the same for all models that are compared.
        scorer: the model as a scorer; None where it fills no blanks.
        full_split: the validation split, for objectives that find no row in `split`; None if there is no more.
        unit_tokens: see UNIT_TOKENS; it changes nothing but rounding and standard errors.
    """

    model: Transformer
    objective: Objective
    vocabulary: Vocabulary
    split: Split
    length: int
    seed: int
    scorer: Scorer | None = None
    full_split: Split | None = None
    unit_tokens: int = UNIT_TOKENS

    def batches(self, rows: int | None = None) -> Iterator[Batch]:
        """Yields the held-out rows under the objective in one pass, or the first `rows` of them.

        Places after the last document are padding.
        """
        reader, count = self._reader
        count = count if rows is None else min(rows, count)
        return evaluation_batches(reader, self.objective, self.vocabulary, count, self.seed, self.unit_tokens)

    @cached_property
    def forward(self) -> Forward:
        """Runs the model, and those among its heads."""
        return Forward(self.model, self.objective, self.model.embed_tokens.weight.device, torch.float32)

    @cached_property
    def units(self) -> list[Unit]:
        """The results on all rows."""
        return list(_units(self))

    @cached_property
    def loss(self) -> Metric | None:
        """The training loss: the weighted sum of the terms' means. None without any target."""
        parts = []
        for name in self._term_names:
            terms = [unit.terms[name] for unit in self.units if name in unit.terms]
            totals, counts = self._sums(name)
            if counts.sum():
                parts.append((totals, counts, terms[0].coefficient))
        return weighted_ratios(parts, "nats", "lower") if parts else None

    def term_metrics(self) -> dict[str, Metric]:
        """Returns the mean loss of each term where there are several, and the accuracy of those that count it."""
        found = {}
        for name in self._term_names:
            totals, counts = self._sums(name)
            if not counts.sum():
                continue
            if len(self._term_names) > 1:
                found[f"{name}_loss"] = ratio(totals, counts, "nats", "lower")
            terms = [unit.terms[name] for unit in self.units if name in unit.terms]
            rights = [float(term.correct) for term in terms if term.correct is not None]
            if len(rights) == len(terms):
                found[f"{name}_accuracy"] = ratio(rights, [term.count for term in terms], "share", "higher")
        return found

    def accuracy(self, masks_only: bool = False) -> Metric | None:
        """Returns the share of labels that were the likeliest token; None without any.

        Args:
            masks_only: count the labels alone whose token is [MASK] in the input.
        """
        each = [unit.is_likeliest[unit.is_masked] if masks_only else unit.is_likeliest for unit in self.units]
        counts = [len(one) for one in each]
        return ratio([int(one.sum()) for one in each], counts, "share", "higher") if sum(counts) else None

    @cached_property
    def _term_names(self) -> list[str]:
        return list(dict.fromkeys(name for unit in self.units for name in unit.terms))

    def _sums(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Returns (G,) summed losses and (G,) targets of a term in each unit."""
        terms = [unit.terms.get(name) for unit in self.units]
        totals = np.array([0.0 if term is None else float(term.total) for term in terms])
        return totals, np.array([0 if term is None else term.count for term in terms])

    @cached_property
    def _reader(self) -> tuple[RowReader, int]:
        """The reader, and how many of its rows are measured. Raises UserError where no text gives a row."""
        return held_out_rows(self.objective, self.vocabulary, self.split, self.length, self.full_split)


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


@torch.inference_mode()
def _units(held_out: HeldOut) -> Iterator[Unit]:
    for batch in held_out.batches():
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
