"""The share of hidden spans that a model writes back word for word, each row's target written as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretextlm.batch import IGNORE, Batch
from pretextlm.metric import Clusters, Metric, ratio
from pretextlm.objectives.shared.measures import HeldOutView, Measure
from pretextlm.objectives.shared.sentinel_layout import SentinelLayout

ROWS = 32
"""Rows whose targets are written."""


def span_exact_match(held_out: HeldOutView) -> Metric | None:
    """Returns the share of spans written back without help; None for a model or rows without sentinels."""
    from pretextlm.model import generation

    layout = None if held_out.scorer is None else held_out.scorer.layout
    if not isinstance(layout, SentinelLayout):
        return None
    vocabulary = held_out.vocabulary
    first, sentinels = vocabulary.sentinels[0], set(vocabulary.sentinels)
    sources, targets, documents = [], [], []
    for document, batch in held_out.batches(ROWS):
        for row, labels in enumerate(batch.targets):
            target = labels[labels != IGNORE].tolist()
            if target[:1] == [first]:  # rows of other kinds may be among those with spans
                sources.append(_source(batch, row))
                targets.append(target)
                documents.append(document)
    if not targets:
        return None
    settings = generation.GenerationConfig(
        max_new_tokens=max(map(len, targets)) + 1,
        temperature=0,
        suppress=tuple(vocabulary.special - {vocabulary.eos, *vocabulary.sentinels}),
    )
    starts = [layout.target_start] * len(sources)
    written = generation.generate(held_out.model, vocabulary, sources, settings, starts)
    rights, counts = [], []
    for target, answer in zip(targets, written, strict=True):
        expected = split_spans([t for t in target if t != vocabulary.eos], sentinels)
        found = split_spans([first, *answer], sentinels)
        spans = {sentinel: span for sentinel, span in expected.items() if span}  # a closing sentinel hides nothing
        rights.append(sum(found.get(sentinel) == span for sentinel, span in spans.items()))
        counts.append(len(spans))
    of = np.array(documents)
    clusters = Clusters(of, np.zeros_like(of), np.ones(len(of)))
    return ratio(rights, counts, "share", "higher", clusters) if sum(counts) else None


def _source(batch: Batch, row: int) -> list[int]:
    """Returns the ids that a row shows before the target: the encoder's row, or the prefix, without padding."""
    ids = batch.input_ids[row]
    if batch.prefix is not None:
        ids = ids[: int(batch.prefix[row].max())]
    elif batch.segment_ids is not None:
        ids = ids[batch.segment_ids[row] >= 0]
    source: list[int] = ids.tolist()
    return source


def split_spans(tokens: Sequence[int], sentinels: set[int]) -> dict[int, list[int]]:
    """Returns for each sentinel the tokens after it; of a sentinel written twice, the first counts.

    <0> 5 6 <1> 7 <0> 8     {<0>: [5, 6], <1>: [7]}
    """
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in tokens:
        if token in sentinels:
            current = []
            spans.setdefault(token, current)
        else:
            current.append(token)
    return spans


SPAN_EXACT_MATCH = Measure(
    "span_exact_match", "Span exact match", "Share of spans written back word for word.", span_exact_match
)
