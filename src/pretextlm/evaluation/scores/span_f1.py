"""F1 of spans that tags name: a span is right where its first word, its last and its type all are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pretextlm.evaluation.scores.f1 import F64, Average, averaged
from pretextlm.evaluation.scores.paired import same_length
from pretextlm.evaluation.scores.spans import Scheme, spans_of, types_of
from pretextlm.metric import Metric

Tags = Sequence[Sequence[str]]


def span_f1(answers: Tags, wanted: Tags) -> Metric:
    """F1 of all spans, as conlleval and seqeval count them; the standard error is over sentences."""
    return averaged(*_counts(answers, wanted, "conll")[1:], "micro", len(wanted))


def span_f1_macro(answers: Tags, wanted: Tags) -> Metric:
    """Mean of the F1 of each type of span."""
    return averaged(*_counts(answers, wanted, "conll")[1:], "macro", len(wanted))


def span_f1_of_types(answers: Tags, wanted: Tags) -> dict[str, Metric]:
    """The F1 of each type of span."""
    types, right, counts = _counts(answers, wanted, "conll")
    rows = zip(types, right, counts, strict=True)
    return {kind: averaged(right_G[None], counts_G[None], "micro", len(wanted)) for kind, right_G, counts_G in rows}


def entity_f1(answers: Tags, wanted: Tags) -> Metric:
    """KLUE-NER's entity-level F1: the mean over types, of spans in strict IOB2 (Park et al. 2021)."""
    return averaged(*_counts(answers, wanted, "iob2")[1:], "macro", len(wanted))


def character_f1(answers: Tags, wanted: Tags, average: Average = "macro") -> Metric:
    """KLUE-NER's character-level F1: the mean over tags, of which B-X, I-X and O are each one (Park et al. 2021).

    Tags are those of characters. One that occurs on neither side is left out of the mean.
    """
    _check(answers, wanted)
    found, meant = ([tag for sentence in side for tag in sentence] for side in (answers, wanted))
    index = {tag: number for number, tag in enumerate(sorted({*found, *meant}))}
    lengths = [len(sentence) for sentence in wanted]
    group_T = np.repeat(np.arange(len(wanted)), lengths)
    found_T, meant_T = (np.fromiter((index[tag] for tag in side), np.int64, len(side)) for side in (found, meant))
    shape = (len(index), len(wanted))
    right = _table(meant_T[found_T == meant_T], group_T[found_T == meant_T], shape)
    counts = _table(found_T, group_T, shape) + _table(meant_T, group_T, shape)
    return averaged(right, counts, average, len(wanted))


def _counts(answers: Tags, wanted: Tags, scheme: Scheme) -> tuple[list[str], F64, F64]:
    """Types, and (C, G) right spans of each type in each sentence, and spans answered plus wanted.

    A type is one that a span has: under strict IOB2, I-X alone names none.
    """
    _check(answers, wanted)
    types = types_of(answers, wanted)
    found, meant = (spans_of(side, scheme, types) for side in (answers, wanted))
    shape = (len(types), len(wanted))
    _, of_found, of_meant = np.intersect1d(found.first, meant.first, assume_unique=True, return_indices=True)
    same = (found.stop[of_found] == meant.stop[of_meant]) & (found.type[of_found] == meant.type[of_meant])
    right = _table(found.type[of_found[same]], found.sentence[of_found[same]], shape)
    counts = _table(found.type, found.sentence, shape) + _table(meant.type, meant.sentence, shape)
    some = counts.sum(1) > 0
    return [kind for kind, has in zip(types, some, strict=True) if has], right[some], counts[some]


def _table(row: NDArray[np.int64], column: NDArray[np.int64], shape: tuple[int, int]) -> F64:
    """How often each row meets each column."""
    return np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _check(answers: Tags, wanted: Tags) -> None:
    same_length(answers, wanted)
    for number, (one, other) in enumerate(zip(answers, wanted, strict=True)):
        if len(one) != len(other):
            raise ValueError(f"sentence {number}: {len(one)} tags where {len(other)} are wanted")
