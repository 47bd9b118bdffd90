"""How well a model does what it was trained to do, on held-out text: each objective has its own measures.

Numbers of different objectives are not comparable with one another; evaluation/blanks.py is the ruler for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Term
from pretextlm.counter_rng import permute
from pretextlm.data.row_reader import RowReader
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.evaluation.cloze import Cloze, Filler
from pretextlm.evaluation.scoring import score_labels
from pretextlm.evaluation.span_filler import SpanFiller
from pretextlm.metric import Metric, area_under_curve, exponential, in_bits, ratio, weighted_ratios
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.model.transformer import Outputs, Transformer
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.training.forward import Forward
from pretextlm.training.held_out import UNIT_TOKENS, held_out_rows
from pretextlm.training.validation import evaluation_batches

PSEUDO_TOKENS = 1024
"""Tokens that are hidden one by one for the pseudo-perplexity."""

SPAN_ROWS = 32
"""Rows whose spans are written out and compared."""

LONGEST_SENTENCE = 64

Measure = Callable[["HeldOut"], dict[str, Metric]]


@dataclass(frozen=True)
class Unit:
    """What was found on one group of rows.

    Attributes:
        terms: the objective's terms.
        right, labels: how many labels of the language-model head were its likeliest token, of how many.
        hidden_right, hidden: the same of those labels alone whose token's place holds [MASK].
    """

    terms: dict[str, Term]
    right: int
    labels: int
    hidden_right: int
    hidden: int


@dataclass(frozen=True)
class HeldOut:
    """What the measures are taken on.

    Attributes:
        model: in eval mode.
        objective: by which it is measured; no other model but those among its heads takes part.
        vocabulary: of its tokens.
        split: whole documents of the validation split.
        length: tokens of an input row, as in training.
        seed: of the masks; the same for all models compared.
        way: the model as one that fills blanks; None where it does not.
        whole: the validation split, for objectives that find no row in `split`; None if `split` is all there is.
        unit_tokens: see UNIT_TOKENS; it changes nothing but rounding and standard errors.
    """

    model: Transformer
    objective: Objective
    vocabulary: Vocabulary
    split: Split
    length: int
    seed: int
    way: Filler | None = None
    whole: Split | None = None
    unit_tokens: int = UNIT_TOKENS

    def batches(self, rows: int | None = None) -> Iterator[Batch]:
        """The held-out rows under the objective, once through: what lies after the last document is padding."""
        reader, count = self._reader
        count = count if rows is None else min(rows, count)
        return evaluation_batches(reader, self.objective, self.vocabulary, count, self.seed, self.unit_tokens)

    @cached_property
    def forward(self) -> Forward:
        """Runs the model, and those among its heads."""
        return Forward(self.model, self.objective, self.model.embed_tokens.weight.device, torch.float32)

    @cached_property
    def units(self) -> list[Unit]:
        """The whole of the held-out rows, measured once."""
        return list(_units(self))

    @cached_property
    def loss(self) -> Metric | None:
        """What training minimises: the terms' means by their weights. None without any target."""
        names = list(dict.fromkeys(name for unit in self.units for name in unit.terms))
        parts = []
        for name in names:
            terms = [unit.terms[name] for unit in self.units if name in unit.terms]
            totals, counts = self._sums(name)
            if counts.sum():
                parts.append((totals, counts, terms[0].coefficient))
        return weighted_ratios(parts, "nats", "lower") if parts else None

    def term_metrics(self) -> dict[str, Metric]:
        """Mean loss of each term where there are several, and how often it was right where it is judged so."""
        names = list(dict.fromkeys(name for unit in self.units for name in unit.terms))
        found = {}
        for name in names:
            totals, counts = self._sums(name)
            if not counts.sum():
                continue
            if len(names) > 1:
                found[f"{name}_loss"] = ratio(totals, counts, "nats", "lower")
            correct = [u.terms[name].correct for u in self.units if name in u.terms]
            if all(value is not None for value in correct):
                rights = np.array([float(value) for value in correct if value is not None])
                counts = np.array([u.terms[name].count for u in self.units if name in u.terms])
                found[f"{name}_accuracy"] = ratio(rights, counts, "share", "higher")
        return found

    def _sums(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(G,) summed losses and targets of a term in each unit."""
        terms = [unit.terms.get(name) for unit in self.units]
        totals = np.array([0.0 if term is None else float(term.total) for term in terms])
        return totals, np.array([0 if term is None else term.count for term in terms])

    @cached_property
    def _reader(self) -> tuple[RowReader, int]:
        """The reader, and how many of its rows are measured. Raises UserError where no text gives a row."""
        return held_out_rows(self.objective, self.vocabulary, self.split, self.length, self.whole)


class _Watched:
    """A forward that remembers what each model put out last."""

    def __init__(self, forward: Forward) -> None:
        self.forward, self.last = forward, dict[str, Outputs]()

    def __call__(self, batch: Batch, role: str = "model") -> Outputs:
        self.last[role] = self.forward(batch, role)
        return self.last[role]


def intrinsic_metrics(held_out: HeldOut) -> dict[str, Metric]:
    """The loss on the held-out documents and its parts, and the objective's own measures; nothing that is not there.

    Raises UserError where the held-out text gives no row for the objective.
    """
    loss = held_out.loss
    metrics = {} if loss is None else {"loss": loss}
    metrics |= held_out.term_metrics()
    for own in MEASURES.get(held_out.objective.name, ()):
        metrics |= own(held_out)
    return metrics


@torch.inference_mode()
def _units(held_out: HeldOut) -> Iterator[Unit]:
    for batch in held_out.batches():
        watched = _Watched(held_out.forward)
        terms = held_out.objective.step(watched, batch)
        outputs = watched.last.get("generator", watched.last["model"])
        right = score_labels(outputs.model, outputs.hidden_ND, outputs.labels_N).right
        hidden = _at_masks(batch, held_out.objective, held_out.vocabulary)
        yield Unit(terms, int(right.sum()), len(right), int(right[hidden].sum()), int(hidden.sum()))


def _at_masks(batch: Batch, objective: Objective, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """(N,) of the labels in row order, whether the place of the labelled token holds [MASK] in the input."""
    labelled: NDArray[np.bool_] = batch.targets != IGNORE
    masks = np.zeros(labelled.shape, bool)
    if batch.decoder_labels is None:
        masks = batch.input_ids == vocabulary.mask
        if getattr(objective, "predict", "here") == "next":
            masks = np.concatenate([masks[:, 1:], np.zeros_like(masks[:, :1])], axis=1)
    return masks[labelled]


def _perplexity(held_out: HeldOut) -> dict[str, Metric]:
    """exp of the loss per predicted token."""
    return {} if held_out.loss is None else {"perplexity": exponential(held_out.loss)}


def _bits_per_byte(held_out: HeldOut) -> dict[str, Metric]:
    """All the bits it takes to write the documents and their ends, by their bytes."""
    loss = held_out.loss
    if loss is None or not held_out.split.text_bytes:
        return {}
    return {"bits_per_byte": in_bits(loss, held_out.split.text_bytes)}


def _token_accuracy(held_out: HeldOut) -> dict[str, Metric]:
    """Share of target tokens that were the likeliest, the right ones before them given."""
    counts = [unit.labels for unit in held_out.units]
    rights = [unit.right for unit in held_out.units]
    return {"token_accuracy": ratio(rights, counts, "share", "higher")} if sum(counts) else {}


def _fill_accuracy(held_out: HeldOut) -> dict[str, Metric]:
    """Share of [MASK] tokens restored."""
    return _restored(held_out, "fill_accuracy")


def _generator_accuracy(held_out: HeldOut) -> dict[str, Metric]:
    """Share of [MASK] tokens that the generator restores."""
    return _restored(held_out, "generator_accuracy")


def _restored(held_out: HeldOut, name: str) -> dict[str, Metric]:
    counts = [unit.hidden for unit in held_out.units]
    rights = [unit.hidden_right for unit in held_out.units]
    return {name: ratio(rights, counts, "share", "higher")} if sum(counts) else {}


def _pseudo_perplexity(held_out: HeldOut) -> dict[str, Metric]:
    loss = pseudo_loss(held_out)
    return {} if loss is None else {"pseudo_perplexity": exponential(loss)}


def pseudo_loss(held_out: HeldOut, tokens: int = PSEUDO_TOKENS) -> Metric | None:
    """Mean of -log p(token | all others of its sentence), each token hidden alone.

    Salazar et al. 2020, https://arxiv.org/abs/1910.14659. Sentences are drawn by the seed until `tokens` are reached;
    None where the split has none of 2 … LONGEST_SENTENCE tokens, or the model reads from one side only.
    """
    from pretextlm.evaluation.in_place import InPlaceFiller

    sentences = _sentences(held_out.split, held_out.seed, tokens)
    if not sentences or not isinstance(held_out.way, InPlaceFiller):
        return None
    clozes = [Cloze(s[:place], s[place + 1 :]) for s in sentences for place in range(len(s))]
    scores = held_out.way.scores(clozes, [[(token,)] for s in sentences for token in s])
    owners = np.repeat(np.arange(len(sentences)), [len(s) for s in sentences])
    costs = np.bincount(owners, weights=-np.concatenate(scores))
    return ratio(costs, np.bincount(owners), "nats", "lower")


def _sentences(split: Split, seed: int, tokens: int) -> list[tuple[int, ...]]:
    begins = split.sentences.astype(np.int64)
    ends = np.append(begins[1:], split.num_tokens)
    order = permute(np.arange(len(begins)), len(begins), seed, 0)
    lengths = (ends - begins)[order]
    order = order[(lengths >= 2) & (lengths <= LONGEST_SENTENCE)]
    enough = int(np.searchsorted(np.cumsum((ends - begins)[order]), tokens)) + 1
    return [tuple(split.tokens[begins[i] : ends[i]].astype(int).tolist()) for i in order[:enough].tolist()]


@torch.inference_mode()
def _replaced_auc(held_out: HeldOut) -> dict[str, Metric]:
    """How often a replaced token seems more so than an original one: what accuracy hides, since few are replaced."""
    from pretextlm.objectives.replaced_token import propose

    logits, labels, units = [], [], []
    for unit, batch in enumerate(held_out.batches()):
        ids, replaced = propose(held_out.forward(batch, "generator"), batch)
        judged = held_out.forward(replace(batch, input_ids=ids, labels=None, draws=None))
        real = np.ones(batch.input_ids.size, bool) if batch.segment_ids is None else batch.segment_ids.reshape(-1) >= 0
        places = np.flatnonzero(real)
        logits.append(judged.heads["replaced"](judged.hidden_at(places)).double().cpu().numpy())
        labels.append(replaced.cpu().numpy().reshape(-1)[places])
        units.append(np.full(len(places), unit))
    metric = area_under_curve(np.concatenate(logits), np.concatenate(labels), np.concatenate(units))
    return {} if metric is None else {"replaced_auc": metric}


def _span_exact_match(held_out: HeldOut) -> dict[str, Metric]:
    """Share of whole spans written back without help."""
    if not isinstance(held_out.way, SpanFiller):
        return {}
    rights, spans = _written_spans(held_out, held_out.way)
    return {"span_exact_match": ratio(rights, spans, "share", "higher")} if sum(spans) else {}


def _written_spans(held_out: HeldOut, way: SpanFiller) -> tuple[list[int], list[int]]:
    """For each of some rows, how many of its spans the model writes back word for word, and how many it has."""
    vocabulary = held_out.vocabulary
    first, sentinels = vocabulary.sentinels[0], set(vocabulary.sentinels)
    sources, targets = [], []
    for batch in held_out.batches(SPAN_ROWS):
        for row, labels in enumerate(batch.targets):
            target = labels[labels != IGNORE].tolist()
            if target[:1] == [first]:  # rows of other kinds may stand between those with spans
                sources.append(_source(batch, row))
                targets.append(target)
    if not targets:
        return [], []
    settings = GenerationConfig(
        max_new_tokens=max(map(len, targets)) + 1,
        temperature=0,
        suppress=tuple(vocabulary.special - {vocabulary.eos, *vocabulary.sentinels}),
    )
    written = generate(held_out.model, vocabulary, sources, settings, [way.target_start] * len(sources))
    rights, counts = [], []
    for target, answer in zip(targets, written, strict=True):
        expected = split_spans([t for t in target if t != vocabulary.eos], sentinels)
        found = split_spans([first, *answer], sentinels)
        spans = {sentinel: span for sentinel, span in expected.items() if span}  # a closing sentinel hides nothing
        rights.append(sum(found.get(sentinel) == span for sentinel, span in spans.items()))
        counts.append(len(spans))
    return rights, counts


def _source(batch: Batch, row: int) -> list[int]:
    """What a row shows the model before the target: the encoder's row, or the prefix, without padding."""
    ids: NDArray[np.int32] = batch.input_ids[row]
    if batch.prefix is not None:
        ids = ids[: int(batch.prefix[row].max())]
    elif batch.segment_ids is not None:
        ids = ids[batch.segment_ids[row] >= 0]
    source: list[int] = ids.tolist()
    return source


def split_spans(tokens: Sequence[int], sentinels: set[int]) -> dict[int, list[int]]:
    """Sentinel → the tokens after it; of a sentinel written twice, the first counts."""
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in tokens:
        if token in sentinels:
            current = []
            spans.setdefault(token, current)
        else:
            current.append(token)
    return spans


_HIDDEN: tuple[Measure, ...] = (_fill_accuracy, _pseudo_perplexity)
_WRITTEN: tuple[Measure, ...] = (_token_accuracy, _span_exact_match)

MEASURES: dict[str, tuple[Measure, ...]] = {
    "causal": (_perplexity, _bits_per_byte),
    "prefix": (_perplexity,),
    "fill_in_middle": (_perplexity,),
    "masked": _HIDDEN,
    "span_boundary": _HIDDEN,
    "word_structure": _HIDDEN,
    "next_sentence": _HIDDEN,
    "sentence_order": _HIDDEN,
    "bimodal_code": _HIDDEN,
    "mixed_visibility": _HIDDEN,
    "permutation": (_token_accuracy, _pseudo_perplexity),
    "replaced_token": (_replaced_auc, _generator_accuracy),
    "span_corruption": _WRITTEN,
    "denoisers": _WRITTEN,
    "text_to_text": _WRITTEN,
    "denoising": (_token_accuracy,),
    "masked_sequence": (_perplexity, _token_accuracy),
}
"""Objective → its measures beside the loss and its parts."""


def writes_it_all(objective: TrainingObjective) -> bool:
    """Whether its loss is that of every token of the text, so that it can be told in bits per byte."""
    return _bits_per_byte in MEASURES.get(objective.name, ())
