"""One measured number, as evaluation.json holds it, with how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """A value with its standard error.

    Attributes:
        n: what was counted: tokens, blanks or spans.
        stderr: standard error of the value; None where it cannot be known.
        unit: "nats", "share", "bits", or "" for a bare number.
        better: the direction in which models improve.
    """

    value: float
    n: int
    stderr: float | None
    unit: str
    better: Better

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def mean(values: ArrayLike, unit: str, better: Better) -> Metric:
    """The mean of independent examples. Raises ValueError when there is none."""
    sample = np.asarray(values, np.float64)
    if not len(sample):
        raise ValueError("a mean needs at least one value")
    stderr = float(sample.std(ddof=1)) / math.sqrt(len(sample)) if len(sample) > 1 else None
    return Metric(float(sample.mean()), len(sample), stderr, unit, better)


def ratio(totals: ArrayLike, counts: ArrayLike, unit: str, better: Better) -> Metric:
    """Σ totals / Σ counts over groups, of which each is independent of the others but not within itself.

    Tokens of one row are alike, so the row is the unit of the standard error: that of the ratio estimator (Cochran
    1977, ch. 6), √(G/(G-1) · Σ (tᵢ - r cᵢ)²) / Σ c.

    Args:
        totals, counts: (G,) sum over a group, and how many were summed.
    """
    return weighted_ratios([(totals, counts, 1.0)], unit, better)


def weighted_ratios(parts: Sequence[tuple[ArrayLike, ArrayLike, float]], unit: str, better: Better) -> Metric:
    """Σₖ wₖ · (Σ totalsₖ / Σ countsₖ) over the same groups: a loss of several terms.

    The standard error is that of the ratio estimator for each group's share in the sum, Σₖ wₖ (tₖᵢ - rₖ cₖᵢ) / Σ cₖ.

    Args:
        parts: (totals (G,), counts (G,), weight) of each term.
    """
    value, n, shares, counted = 0.0, 0, np.zeros(1), np.zeros(1, bool)
    for totals, counts, weight in parts:
        total, count = np.asarray(totals, np.float64), np.asarray(counts, np.float64)
        size = float(count.sum())
        if not size:
            raise ValueError("a ratio needs at least one group that is not empty")
        mean_of_part = float(total.sum()) / size
        value, n = value + weight * mean_of_part, n + int(size)
        shares, counted = shares + weight * (total - mean_of_part * count) / size, counted | (count > 0)
    groups = int(counted.sum())
    stderr = math.sqrt(groups / (groups - 1) * float((shares**2).sum())) if groups > 1 else None
    return Metric(value, n, stderr, unit, better)


def area_under_curve(scores: ArrayLike, positive: ArrayLike, group: ArrayLike) -> Metric | None:
    """Probability that a positive example scores above a negative one, ties half (Mann & Whitney 1947).

    The standard error is the jackknife's over groups, of which each is left out in turn. None where either kind is
    missing.

    Args:
        scores, positive, group: (N,) of each example; groups are numbered from 0.
    """
    score, is_positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    of, groups = np.asarray(group, np.int64), int(np.asarray(group).max(initial=-1)) + 1

    def wins(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
        """For each example of `one`, of how many of `other` it scores above."""
        ordered = np.sort(score[other])
        low, high = (np.searchsorted(ordered, score[one], side) for side in ("left", "right"))
        return np.asarray((low + high) / 2)

    negative = ~is_positive
    positives, negatives = (np.bincount(of[kind], minlength=groups) for kind in (is_positive, negative))
    if not positives.sum() or not negatives.sum():
        return None
    over = np.bincount(of[is_positive], wins(is_positive, negative), groups)
    under = np.bincount(of[negative], positives.sum() - wins(negative, is_positive), groups)
    inside = np.array([wins(is_positive & (of == g), negative & (of == g)).sum() for g in range(groups)])
    value = float(over.sum() / positives.sum() / negatives.sum())
    pairs = (positives.sum() - positives) * (negatives.sum() - negatives).astype(np.float64)
    left = (pairs > 0) & (positives + negatives > 0)
    without = (over.sum() - over - under + inside)[left] / pairs[left]
    count = len(without)
    stderr = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum())) if count > 1 else None
    return Metric(value, int(positives.sum() + negatives.sum()), stderr, "share", "higher")


def exponential(metric: Metric) -> Metric:
    """exp of a mean in nats: a perplexity; its error by the delta method."""
    value = math.exp(min(metric.value, 700.0))
    return Metric(value, metric.n, None if metric.stderr is None else value * metric.stderr, "", metric.better)


def in_bits(loss: Metric, text_bytes: int) -> Metric:
    """A mean loss in nats over all tokens of a text as bits per byte of it."""
    scale = loss.n / math.log(2) / text_bytes
    stderr = None if loss.stderr is None else loss.stderr * scale
    return Metric(loss.value * scale, text_bytes, stderr, "bits", loss.better)
