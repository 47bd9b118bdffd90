"""How sure a number is: spread over seeds, intervals over examples, and paired comparisons on the same examples.

Seeds are few and roughly normal, so they get Student's t. Examples are many and often yes or no, so they get the
bootstrap or an exact test. Two models that answered the same blanks are compared blank by blank: what is hard for
both then cancels out, and a smaller difference can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A closed interval of a statistic."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """True where the two have a point in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Summary:
    """Repeated measurements of one number.

    Attributes:
        mean: arithmetic mean.
        deviation: sample standard deviation (divided by n - 1); None for a single value.
        half_width: half of the confidence interval of the mean; None for a single value.
        n: number of values.
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
    """How much the first of two conditions is above the second.

    Attributes:
        value: mean of the first less mean of the second.
        interval: its confidence interval; None where it cannot be known.
        p_value: two-sided, of "there is no difference"; None where the method has none.
    """

    value: float
    interval: Interval | None = None
    p_value: float | None = None


def summarise(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """Mean, spread and the t-interval of the mean: mean ± t(1-α/2, n-1) · s / √n  (Student 1908).

    Raises ValueError when there is no value.
    """
    sample = _vector(values)
    n = len(sample)
    mean = float(sample.mean())
    if n == 1:
        return Summary(mean, None, None, 1)
    deviation = float(sample.std(ddof=1))
    return Summary(mean, deviation, _t_quantile(confidence, n - 1) * deviation / math.sqrt(n), n)


def welch(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """Difference of two means over independent seeds, whose variances may differ (Welch 1947).

    d ± t(1-α/2, ν) · √(s₁²/n₁ + s₂²/n₂), with Satterthwaite's ν = (v₁+v₂)² / (v₁²/(n₁-1) + v₂²/(n₂-1)), vᵢ = sᵢ²/nᵢ.
    The interval and the p-value are None unless both have two values and at least one of them varies.
    """
    from scipy.stats import t as student

    a, b = _vector(first), _vector(second)
    value = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Difference(value)
    v = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    error = math.sqrt(float(v.sum()))
    if error == 0:
        return Difference(value)
    freedom = float(v.sum() ** 2 / (v**2 / np.array([len(a) - 1, len(b) - 1])).sum())
    half = _t_quantile(confidence, freedom) * error
    return Difference(value, Interval(value - half, value + half), float(2 * student.sf(abs(value) / error, freedom)))


def bootstrap(values: ArrayLike, confidence: float = CONFIDENCE, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean over examples (Efron 1979).

    The means of `resamples` samples of n drawn with replacement; the interval is their α/2 and 1-α/2 quantiles.
    """
    means = _resampled_means(_vector(values), resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Two models on the same examples: the bootstrap of the per-example differences aᵢ - bᵢ (Koehn 2004).

    Raises ValueError when the two are not equally long.
    """
    a, b = _pair(first, second)
    return Difference(float((a - b).mean()), bootstrap(a - b, confidence, resamples, seed))


def mcnemar(first: ArrayLike, second: ArrayLike) -> Difference:
    """Two models' right (1) and wrong (0) answers to the same examples: the exact test of McNemar (1947).

    Only examples on which they differ tell anything: n₁₀ that the first alone has right, n₀₁ that the second alone
    has. Were there no difference, n₁₀ would be Binomial(n₁₀ + n₀₁, ½); p is the two-sided exact binomial test.
    Raises ValueError when the two are not equally long.
    """
    from scipy.stats import binomtest

    a, b = _pair(first, second)
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return Difference(float((a - b).mean()), None, p)


def standard_error_interval(value: float, stderr: float, confidence: float = CONFIDENCE) -> Interval:
    """value ± z(1-α/2) · stderr, for a mean over many examples."""
    from scipy.stats import norm

    half = float(norm.ppf((1 + confidence) / 2)) * stderr
    return Interval(value - half, value + half)


def _t_quantile(confidence: float, freedom: float) -> float:
    from scipy.stats import t as student

    return float(student.ppf((1 + confidence) / 2, freedom))


def _resampled_means(sample: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    n = len(sample)
    at_once = max(1, _CHUNK // n)  # bounds memory: resamples × n indices may be billions
    parts = [
        sample[rng.integers(0, n, size=(min(at_once, resamples - done), n))].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    return np.concatenate(parts)


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
