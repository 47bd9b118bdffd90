"""How well a model does what it was trained to do, on held-out text: each objective has its own measures.

Numbers of different objectives are not comparable with one another; evaluation/blanks.py is the ruler for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.store import Split
from pretextlm.evaluation.cloze import Cloze, Filler
from pretextlm.evaluation.metrics import Better, Metric, exponential, ratio
from pretextlm.evaluation.scoring import TOKENS_AT_ONCE, score_batch
from pretextlm.evaluation.span_filler import SpanFiller
from pretextlm.keyed import permute
from pretextlm.model.generation import GenerationSettings, generate
from pretextlm.training.validation import evaluation_batches

PSEUDO_TOKENS = 1024
"""Tokens that are hidden one by one for the pseudo-perplexity."""

SPAN_ROWS = 32
"""Rows whose spans are written out and compared."""

LONGEST_SENTENCE = 64


@dataclass(frozen=True)
class HeldOut:
    """What the measures are taken on.

    Attributes:
        filler: the model, its objective and its tokens.
        split: whole documents of the validation split.
        length: tokens of an input row, as in training.
        seed: of the masks; the same for all models compared.
        tokens_at_once: size of a batch; it changes nothing but rounding.
    """

    filler: Filler
    split: Split
    length: int
    seed: int
    tokens_at_once: int = TOKENS_AT_ONCE

    def batches(self, rows: int | None = None) -> list[Batch]:
        """The split under the objective, once through: what lies after the last document is padding."""
        objective, vocabulary = self.filler.objective, self.filler.vocabulary
        reader = objective.reader(self.split, vocabulary, self.length)
        count = reader.rows_per_pass if rows is None else rows
        return list(evaluation_batches(reader, objective, vocabulary, count, self.seed, self.tokens_at_once))


@dataclass(frozen=True)
class _Labels:
    """All labels of the held-out rows, in order: (N,) each.

    Attributes:
        row: the row it stands in.
        cost: -log p in nats.
        right: it was the likeliest token.
        hidden: its input was [MASK].
    """

    row: NDArray[np.int64]
    cost: NDArray[np.float64]
    right: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def intrinsic_metrics(held_out: HeldOut) -> dict[str, Metric]:
    """The loss on the held-out documents, and the objective's own measures."""
    labels = _score(held_out)
    loss = _per_row(labels.row, labels.cost, "nats", "lower")
    own = MEASURES.get(held_out.filler.objective.name)
    return {"loss": loss, **(own(held_out, labels, loss) if own else {})}


def _score(held_out: HeldOut) -> _Labels:
    rows, costs, rights, hidden, done = [], [], [], [], 0
    for batch in held_out.batches():
        labelled = batch.targets != IGNORE
        scored = score_batch(held_out.filler.model, batch)
        rows.append(np.nonzero(labelled)[0] + done)
        costs.append(-scored.log_probabilities)
        rights.append(scored.right)
        masks = batch.input_ids == held_out.filler.vocabulary.mask
        hidden.append(masks[labelled] if batch.decoder_labels is None else np.zeros(len(scored.right), bool))
        done += len(labelled)
    return _Labels(*(np.concatenate(parts) for parts in (rows, costs, rights, hidden)))


def _per_row(row: NDArray[np.int64], values: NDArray[Any], unit: str, better: Better) -> Metric:
    return ratio(np.bincount(row, weights=values), np.bincount(row), unit, better)


def _causal(held_out: HeldOut, labels: _Labels, loss: Metric) -> dict[str, Metric]:
    """Perplexity, and bits per byte: all the bits it takes to write the documents and their ends, by their bytes."""
    bits_per_nat_per_byte = loss.n / math.log(2) / held_out.split.text_bytes
    stderr = None if loss.stderr is None else loss.stderr * bits_per_nat_per_byte
    bits = Metric(loss.value * bits_per_nat_per_byte, held_out.split.text_bytes, stderr, "bits", "lower")
    return {"perplexity": exponential(loss), "bits_per_byte": bits}


def _masked(held_out: HeldOut, labels: _Labels, loss: Metric) -> dict[str, Metric]:
    """Share of [MASK] tokens restored, and pseudo-perplexity."""
    metrics = {}
    if labels.hidden.any():
        row, right = labels.row[labels.hidden], labels.right[labels.hidden]
        metrics["fill_accuracy"] = _per_row(row, right, "share", "higher")
    pseudo = pseudo_loss(held_out)
    return metrics if pseudo is None else {**metrics, "pseudo_perplexity": exponential(pseudo)}


def pseudo_loss(held_out: HeldOut, tokens: int = PSEUDO_TOKENS) -> Metric | None:
    """Mean of -log p(token | all others of its sentence), each token masked alone.

    Salazar et al. 2020, https://arxiv.org/abs/1910.14659. Sentences are drawn by the seed until `tokens` are reached;
    None where the split has none of 2 … LONGEST_SENTENCE tokens.
    """
    sentences = _sentences(held_out.split, held_out.seed, tokens)
    if not sentences:
        return None
    clozes = [Cloze(s[:place], s[place + 1 :]) for s in sentences for place in range(len(s))]
    scores = held_out.filler.scores(clozes, [[(token,)] for s in sentences for token in s])
    owners = np.repeat(np.arange(len(sentences)), [len(s) for s in sentences])
    return _per_row(owners, -np.concatenate(scores), "nats", "lower")


def _sentences(split: Split, seed: int, tokens: int) -> list[tuple[int, ...]]:
    begins = split.sentences.astype(np.int64)
    ends = np.append(begins[1:], split.num_tokens)
    order = permute(np.arange(len(begins)), len(begins), seed, 0)
    lengths = (ends - begins)[order]
    order = order[(lengths >= 2) & (lengths <= LONGEST_SENTENCE)]
    enough = int(np.searchsorted(np.cumsum((ends - begins)[order]), tokens)) + 1
    return [tuple(split.tokens[begins[i] : ends[i]].astype(int).tolist()) for i in order[:enough].tolist()]


def _spans(held_out: HeldOut, labels: _Labels, loss: Metric) -> dict[str, Metric]:
    """Share of target tokens predicted right after the right ones, and of whole spans written back without help."""
    metrics = {"token_accuracy": _per_row(labels.row, labels.right, "share", "higher")}
    rights, spans = _written_spans(held_out)
    metrics["span_exact_match"] = ratio(rights, spans, "share", "higher")
    return metrics


def _written_spans(held_out: HeldOut) -> tuple[list[int], list[int]]:
    """For each of some rows, how many of its spans the model writes back word for word, and how many it has."""
    filler = held_out.filler
    assert isinstance(filler, SpanFiller), "spans are written by the span filler"
    sources, targets = [], []
    for batch in held_out.batches(SPAN_ROWS):
        sources += [_source(batch, row) for row in range(len(batch.input_ids))]
        targets += [labels[labels != IGNORE].tolist() for labels in batch.targets]
    vocabulary = filler.vocabulary
    settings = GenerationSettings(
        max_new_tokens=max(map(len, targets)) + 1,
        temperature=0,
        suppress=tuple(vocabulary.special - {vocabulary.eos, *vocabulary.sentinels}),
    )
    written = generate(filler.model, vocabulary, sources, settings, [filler.target_start] * len(sources))
    first, sentinels = vocabulary.sentinels[0], set(vocabulary.sentinels)
    rights, counts = [], []
    for target, answer in zip(targets, written, strict=True):
        expected = split_spans([t for t in target if t != vocabulary.eos], sentinels)
        found = split_spans([first, *answer], sentinels)
        rights.append(sum(found.get(sentinel) == span for sentinel, span in expected.items()))
        counts.append(len(expected))
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


Measures = Callable[[HeldOut, _Labels, Metric], dict[str, Metric]]

MEASURES: dict[str, Measures] = {"causal": _causal, "masked": _masked, "span_corruption": _spans}
"""Objective → its measures beside the loss."""
