"""Metrics as evaluation.json stores them: a value with its standard error, and how both are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Better = Literal["lower", "higher"] | float
"""Direction of improvement, or the value that is best: 0.5, if both less and more are worse."""
LEAST_DOCUMENTS = 10
"""With fewer documents there is no standard error: it would be a guess that is mostly too small."""


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


def amount_read(settings: Mapping[str, Any]) -> str:
    """Return "12 of 40 documents, 3,210 of 9,876 tokens" from the settings of an evaluation; "" where they lack it."""
    parts = [(settings.get(name), settings.get(f"{name}_total"), name) for name in ("documents", "tokens")]
    known = [part for part in parts if isinstance(part[0], int) and isinstance(part[1], int)]
    return ", ".join(f"{some:,} of {every:,} {name}" for some, every, name in known)


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


@dataclass(frozen=True)
class Clusters:
    """Where U groups of values come from: documents that were sampled from several sources.

    Attributes:
        documents: (U,) document of each group; the groups of a document are not independent of each other.
        sources: (U,) source of that document.
        weights: (U,) documents of the source for each one that was sampled, up to a common factor.
    """

    documents: NDArray[np.int64]
    sources: NDArray[np.int64]
    weights: NDArray[np.float64]

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """(D,) source of each document, in the order of `summed`."""
        return self.sources[np.unique(self.documents, return_index=True)[1]]

    def summed(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the weighted sum of the values (U,) of each document."""
        index = np.unique(self.documents, return_inverse=True)[1]
        return np.bincount(index, weights=values * self.weights).astype(np.float64)

    def of(self, chosen: NDArray[np.bool_]) -> Clusters:
        """Returns some of the groups (U,)."""
        return Clusters(self.documents[chosen], self.sources[chosen], self.weights[chosen])


def ratio(totals: ArrayLike, counts: ArrayLike, unit: str, better: Better, clusters: Clusters | None = None) -> Metric:
    """Compute r = Σ totals / Σ counts over groups that are independent of each other, but not within themselves.

    The tokens of a document are correlated, so the document is the unit of the standard error, which is that of the
    ratio estimator (Cochran 1977, ch. 6): √(G/(G-1) · Σ (tᵢ - r cᵢ)²) / Σ c.

    Args:
        totals: (G,) sum of the values of each group.
        counts: (G,) number of values of each group.
        unit: Unit of the values.
        better: Direction of improvement.
        clusters: Documents and sources of the groups; None if each group is sampled by itself.

    Raises:
        ValueError: All groups are empty.
    """
    return weighted_ratios([(totals, counts, 1.0)], unit, better, clusters)


def weighted_ratios(
    parts: Sequence[tuple[ArrayLike, ArrayLike, float]],
    unit: str,
    better: Better,
    clusters: Clusters | None = None,
) -> Metric:
    """Compute Σₖ wₖ · (Σ totalsₖ / Σ countsₖ) over the same groups: a loss of several terms.

    The standard error is that of the ratio estimator, from each group's contribution Σₖ wₖ (tₖᵢ - rₖ cₖᵢ) / Σ cₖ. With
    clusters, groups are first summed by document, and the error is that of a sample stratified by source. No correction
    is made for a finite population: the error is that of documents like these, also where all were read.

    Args:
        parts: (totals (G,), counts (G,), weight) of each term.
        unit: Unit of the result.
        better: Direction of improvement.
        clusters: As in `ratio`. With fewer than LEAST_DOCUMENTS documents there is no standard error.

    Raises:
        ValueError: All groups of a term are empty.
    """
    value, n, shares, counted = 0.0, 0, np.zeros(1), np.zeros(1, bool)
    for totals, counts, weight in parts:
        total, count = np.asarray(totals, np.float64), np.asarray(counts, np.float64)
        n += int(count.sum())
        if clusters is not None:
            total, count = clusters.summed(total), clusters.summed(count)
        size = float(count.sum())
        if not size:
            raise ValueError("a ratio needs at least one group that is not empty")
        mean_of_part = float(total.sum()) / size
        value += weight * mean_of_part
        shares, counted = shares + weight * (total - mean_of_part * count) / size, counted | (count > 0)
    if clusters is None:
        return Metric(
            value, n, _stratified_error(shares[counted], np.zeros(int(counted.sum()), np.int64)), unit, better
        )
    few = int(counted.sum()) < LEAST_DOCUMENTS
    stderr = None if few else _stratified_error(shares[counted], clusters.strata[counted])
    return Metric(value, n, stderr, unit, better)


def _stratified_error(shares: NDArray[np.float64], strata: NDArray[np.int64]) -> float | None:
    """Compute the standard error of a sum of contributions (G,) that are independent within their strata (G,).

    √(Σₕ nₕ/(nₕ-1) · Σᵢ (sᵢ - mean of h)²). A stratum with one contribution has no spread of its own; its deviation from
    the mean of all contributions, which is 0, is used instead, and the error is rather too large.
    """
    if len(shares) < 2:
        return None
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    means = np.where(sizes > 1, np.bincount(stratum, weights=shares) / sizes, 0.0)
    factors = np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), 1.0)
    return math.sqrt(float((factors[stratum] * (shares - means[stratum]) ** 2).sum()))


def area_under_curve(scores: ArrayLike, positive: ArrayLike, group: ArrayLike) -> Metric | None:
    """Compute the area under the ROC curve: the probability that a positive example scores above a negative one.

    The standard error is that of the jackknife over groups, √((G-1)/G · Σ (aᵢ - mean a)²), where aᵢ is the area without
    group i; None for fewer than LEAST_DOCUMENTS groups.

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
    stderr = (
        math.sqrt((count - 1) / count * float(((areas - np.mean(areas)) ** 2).sum()))
        if count >= LEAST_DOCUMENTS
        else None
    )
    return Metric(float(roc_auc_score(positive_N, score_N)), len(score_N), stderr, "share", "higher")


def exponential(metric: Metric) -> Metric:
    """Return exp of a mean in nats, a perplexity; its standard error is that of the delta method."""
    value = math.exp(min(metric.value, 700.0))
    return Metric(value, metric.n, None if metric.stderr is None else value * metric.stderr, "", metric.better)


def in_bits(loss: Metric, targets_per_byte: float, text_bytes: int) -> Metric:
    """Convert a mean loss over the tokens of a text to bits per byte.

    Args:
        loss: Mean loss in nats per token over all tokens.
        targets_per_byte: Tokens of the text by its UTF-8 bytes.
        text_bytes: Length of the text in UTF-8 bytes.
    """
    scale = targets_per_byte / math.log(2)
    stderr = None if loss.stderr is None else loss.stderr * scale
    return Metric(loss.value * scale, text_bytes, stderr, "bits", loss.better)
