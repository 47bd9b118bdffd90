"""Metrics as evaluation.json stores them: a value with its standard error, and how both are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

Better = Literal["lower", "higher"] | float
"""Direction of improvement, or the value that is best: 0.5, if both less and more are worse."""


@dataclass(frozen=True)
class Metric:
    """A value with its standard error.

    Attributes:
        value: The value.
        n: Number of tokens, blanks, spans or examples that it is computed from.
        stderr: Standard error of the value; None where it is unknown.
        unit: "nats", "share", "bits", or "" for a number without unit.
        better: "lower" or "higher" if such values are better, or the best value.
    """

    value: float
    n: int
    stderr: float | None
    unit: str
    better: Better

    def plain(self) -> dict[str, Any]:
        """Return the metric as a JSON object."""
        return asdict(self)


def arrow(better: Better | None) -> str:
    """Return ↓ or ↑, or → with the value that is best; "" if there is no direction."""
    if isinstance(better, str | None):
        return {"lower": "↓", "higher": "↑"}.get(better or "", "")
    return f"→ {better:g}"


def distance_from_best(value: float, better: Better | None) -> float:
    """Return a number that is smaller the better a value is; 0 if there is no direction."""
    if isinstance(better, str | None):
        return {"lower": value, "higher": -value}.get(better or "", 0.0)
    return abs(value - better)


def mean(values: ArrayLike, unit: str, better: Better) -> Metric:
    """Compute the mean of independent examples.

    Args:
        values: (N,) values.
        unit: Unit of the values.
        better: Direction of improvement.

    Raises:
        ValueError: There are no values.
    """
    sample = np.asarray(values, np.float64)
    if not len(sample):
        raise ValueError("a mean needs at least one value")
    stderr = float(sample.std(ddof=1)) / math.sqrt(len(sample)) if len(sample) > 1 else None
    return Metric(float(sample.mean()), len(sample), stderr, unit, better)


def ratio(totals: ArrayLike, counts: ArrayLike, unit: str, better: Better) -> Metric:
    """Compute r = Σ totals / Σ counts over groups that are independent of each other, but not within themselves.

    The tokens of one row are correlated, so the row is the unit of the standard error, which is that of the ratio
    estimator (Cochran 1977, ch. 6): √(G/(G-1) · Σ (tᵢ - r cᵢ)²) / Σ c.

    Args:
        totals: (G,) sum of the values of each group.
        counts: (G,) number of values of each group.
        unit: Unit of the values.
        better: Direction of improvement.

    Raises:
        ValueError: All groups are empty.
    """
    return weighted_ratios([(totals, counts, 1.0)], unit, better)


def weighted_ratios(parts: Sequence[tuple[ArrayLike, ArrayLike, float]], unit: str, better: Better) -> Metric:
    """Compute Σₖ wₖ · (Σ totalsₖ / Σ countsₖ) over the same groups: a loss of several terms.

    The standard error is that of the ratio estimator, from each group's contribution Σₖ wₖ (tₖᵢ - rₖ cₖᵢ) / Σ cₖ.

    Args:
        parts: (totals (G,), counts (G,), weight) of each term.
        unit: Unit of the result.
        better: Direction of improvement.

    Raises:
        ValueError: All groups of a term are empty.
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
    """Compute the area under the ROC curve: the probability that a positive example scores above a negative one.

    The standard error is that of the jackknife over groups, √((G-1)/G · Σ (aᵢ - mean a)²), where aᵢ is the area without
    group i.

    Args:
        scores: (N,) score of each example.
        positive: (N,) whether it is positive.
        group: (N,) its group; examples of one group are not independent.

    Returns:
        The metric, or None where all examples are positive or all are negative.
    """
    from sklearn.metrics import roc_auc_score

    score_N, positive_N, group_N = np.asarray(scores, np.float64), np.asarray(positive, bool), np.asarray(group)
    if positive_N.all() or not positive_N.any():
        return None
    kept = [group_N != one for one in np.unique(group_N)]
    areas = [roc_auc_score(positive_N[rest], score_N[rest]) for rest in kept if len(np.unique(positive_N[rest])) == 2]
    count = len(areas)
    stderr = math.sqrt((count - 1) / count * float(((areas - np.mean(areas)) ** 2).sum())) if count > 1 else None
    return Metric(float(roc_auc_score(positive_N, score_N)), len(score_N), stderr, "share", "higher")


def exponential(metric: Metric) -> Metric:
    """Return exp of a mean in nats, a perplexity; its standard error is that of the delta method."""
    value = math.exp(min(metric.value, 700.0))
    return Metric(value, metric.n, None if metric.stderr is None else value * metric.stderr, "", metric.better)


def in_bits(loss: Metric, text_bytes: int) -> Metric:
    """Convert a mean loss over the tokens of a text to bits per byte.

    Args:
        loss: Mean loss in nats per token over all tokens.
        text_bytes: Length of the text in UTF-8 bytes.
    """
    scale = loss.n / math.log(2) / text_bytes
    stderr = None if loss.stderr is None else loss.stderr * scale
    return Metric(loss.value * scale, text_bytes, stderr, "bits", loss.better)
