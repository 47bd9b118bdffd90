"""Uncertainty of results: spread over seeds, intervals over examples, and paired comparisons on the same examples.

Seeds are few and roughly normal, so their mean has a t-interval. Examples are many and often 0 or 1, so they have a
bootstrap interval or an exact test. Two models evaluated on the same examples are compared example by example: the
difficulty of an example cancels out, and smaller differences become significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
INDICES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A closed interval."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Return whether the intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Summary:
    """Repeated measurements of one number.

    Attributes:
        mean: Arithmetic mean.
        deviation: Sample standard deviation (divided by n - 1); None for a single value.
        half_width: Half of the confidence interval of the mean; None for a single value.
        n: Number of values.
    """

    mean: float
    deviation: float | None
    half_width: float | None
    n: int

    @property
    def interval(self) -> Interval | None:
        """mean ± half_width; None for a single value."""
        return None if self.half_width is None else Interval(self.mean - self.half_width, self.mean + self.half_width)


@dataclass(frozen=True)
class Difference:
    """Difference between two conditions.

    Attributes:
        value: Mean of the first minus mean of the second.
        interval: Confidence interval; None where it is unknown.
        p_value: Two-sided p-value of no difference; None where the method has none.
    """

    value: float
    interval: Interval | None = None
    p_value: float | None = None


def summarise(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """Compute mean, deviation and t-interval of the mean: mean ± t(1-α/2, n-1) · s / √n  (Student 1908).

    Raises:
        ValueError: There are no values.
    """
    from scipy.stats import t as student

    sample = _vector(values)
    n = len(sample)
    mean = float(sample.mean())
    if n == 1:
        return Summary(mean, None, None, 1)
    deviation = float(sample.std(ddof=1))
    return Summary(mean, deviation, float(student.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n), n)


def welch(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """Compare the means of independent seeds whose variances may differ (Welch 1947), by scipy.

    Returns:
        The difference; without interval and p-value unless both have two values and at least one of them varies.
    """
    from scipy.stats import ttest_ind

    a, b = _vector(first), _vector(second)
    value = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2 or not (a.var() or b.var()):
        return Difference(value)
    test = ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(confidence)
    return Difference(value, Interval(float(interval.low), float(interval.high)), float(test.pvalue))


def bootstrap(values: ArrayLike, confidence: float = CONFIDENCE, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Compute the percentile bootstrap interval of the mean over examples (Efron 1979), by scipy.

    Raises:
        ValueError: There are no values.
    """
    from scipy import stats

    sample = _vector(values)
    if len(sample) == 1:
        return Interval(float(sample[0]), float(sample[0]))
    found = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, INDICES_AT_ONCE // len(sample)),  # bounds memory: resamples × examples may be billions
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Compare two models on the same examples by the bootstrap of the differences aᵢ - bᵢ (Koehn 2004).

    Raises:
        ValueError: The two differ in length.
    """
    a, b = _pair(first, second)
    return Difference(float((a - b).mean()), bootstrap(a - b, confidence, resamples, seed))


def mcnemar(first: ArrayLike, second: ArrayLike) -> Difference:
    """Compare two models' correct (1) and wrong (0) answers to the same examples by McNemar's exact test (1947).

    Only examples on which they differ carry information: n₁₀ that only the first answers correctly, n₀₁ that only the
    second does. Without a difference n₁₀ would be Binomial(n₁₀ + n₀₁, ½); the p-value is that of the two-sided exact
    binomial test.

    Raises:
        ValueError: The two differ in length.
    """
    from scipy.stats import binomtest

    a, b = _pair(first, second)
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return Difference(float((a - b).mean()), None, p)


def standard_error_interval(value: float, stderr: float, confidence: float = CONFIDENCE) -> Interval:
    """Return value ± z(1-α/2) · stderr, for a mean over many examples."""
    from scipy.stats import norm

    half = float(norm.ppf((1 + confidence) / 2)) * stderr
    return Interval(value - half, value + half)


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"needs a list of at least one number, not an array of shape {vector.shape}")
    return vector


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _vector(first), _vector(second)
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same examples: {len(a)} and {len(b)} differ")
    return a, b
