"""F1 of tagged spans: a span is correct if its first word, its last word and its type all are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretextlm.evaluation.scores.bootstrap import RESAMPLES
from pretextlm.evaluation.scores.classification import Average, f1_of_ids
from pretextlm.evaluation.scores.inputs import check_lengths
from pretextlm.evaluation.scores.spans import Scheme, spans_of
from pretextlm.metric import Metric

Tags = Sequence[Sequence[str]]


def span_f1(predictions: Tags, references: Tags, *, resamples: int = RESAMPLES) -> Metric:
    """Compute the F1 of all spans, as conlleval and seqeval do, with a standard error over sentences."""
    return _span_f1(predictions, references, "conll", "micro", resamples)


def span_f1_macro(predictions: Tags, references: Tags, *, resamples: int = RESAMPLES) -> Metric:
    """Compute the mean of the F1 of each type of span."""
    return _span_f1(predictions, references, "conll", "macro", resamples)


def entity_f1(predictions: Tags, references: Tags, *, resamples: int = RESAMPLES) -> Metric:
    """Compute KLUE-NER's entity-level F1: the mean over types of spans in strict IOB2 (Park et al. 2021)."""
    return _span_f1(predictions, references, "iob2", "macro", resamples)


def character_f1(predictions: Tags, references: Tags, *, resamples: int = RESAMPLES) -> Metric:
    """Compute KLUE-NER's character-level F1: the mean over tags, O included (Park et al. 2021).

    Tags are those of characters; B-X and I-X are tags of their own. A tag that occurs on neither side is left out.
    """
    _check(predictions, references)
    pairs = [
        (tag, other, sentence)
        for sentence, sides in enumerate(zip(predictions, references, strict=True))
        for tag, other in zip(*sides, strict=True)
    ]
    return _f1_of_pairs(pairs, "macro", len(references), resamples)


def _span_f1(predictions: Tags, references: Tags, scheme: Scheme, average: Average, resamples: int) -> Metric:
    """Compute the F1 of spans as that of a classification, whose examples are the spans of either side.

    predicted (PER, 0, 2), (LOC, 4, 5)      span          prediction  reference
    true      (PER, 0, 2), (LOC, 4, 6)      (PER, 0, 2)   PER         PER
                                            (LOC, 4, 5)   LOC         None
                                            (LOC, 4, 6)   None        LOC
    """
    _check(predictions, references)
    sides = zip(spans_of(predictions, scheme), spans_of(references, scheme), strict=True)
    pairs = [
        (span[0] if span in found else None, span[0] if span in true else None, sentence)
        for sentence, (found, true) in enumerate(sides)
        for span in dict.fromkeys([*found, *true])
    ]
    return _f1_of_pairs(pairs, average, len(references), resamples)


def _f1_of_pairs(
    pairs: Sequence[tuple[str | None, str | None, int]], average: Average, sentences: int, resamples: int
) -> Metric:
    """Compute the F1 of (prediction, reference, sentence) triples; None is not a class."""
    names = sorted({name for pair in pairs for name in pair[:2] if name is not None})
    index: dict[str | None, int] = {name: number for number, name in enumerate(names)} | {None: len(names)}
    ids = np.array([(index[one], index[other], sentence) for one, other, sentence in pairs], np.int64).reshape(-1, 3)
    return f1_of_ids(ids[:, 0], ids[:, 1], len(names), average, sentences, groups=ids[:, 2], resamples=resamples)


def _check(predictions: Tags, references: Tags) -> None:
    check_lengths(predictions, references)
    for number, (one, other) in enumerate(zip(predictions, references, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"sentence {number}: {len(one)} tags for {len(other)} references")
