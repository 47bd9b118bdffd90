"""One measured number, as evaluation.json holds it, with how sure it is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

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
    total, count = np.asarray(totals, np.float64), np.asarray(counts, np.float64)
    total, count = total[count > 0], count[count > 0]
    if not len(count):
        raise ValueError("a ratio needs at least one group that is not empty")
    value = float(total.sum() / count.sum())
    groups = len(count)
    stderr = None
    if groups > 1:
        stderr = math.sqrt(groups / (groups - 1) * float(((total - value * count) ** 2).sum())) / float(count.sum())
    return Metric(value, int(count.sum()), stderr, unit, better)


def exponential(metric: Metric) -> Metric:
    """exp of a mean in nats: a perplexity; its error by the delta method."""
    value = math.exp(min(metric.value, 700.0))
    return Metric(value, metric.n, None if metric.stderr is None else value * metric.stderr, "", metric.better)
