"""The bootstrap's standard error of a statistic that is no mean: its spread over samples drawn with replacement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
RESAMPLES, FEWEST = 1000, 200
_DRAWS = 10_000_000  # in all, where that leaves the fewest: the error is then known to 5 %
_AT_ONCE = 1 << 22


def bootstrap_error(
    statistic: Callable[[F64], F64], n: int, resamples: int | None = None, seed: int = 0
) -> float | None:
    """Standard deviation of a statistic over resamples (Efron 1979); the same for a seed.

    Args:
        statistic: (R, N) how often each example was drawn → (R,) values, not a number where they are undefined.
        n: number of examples.
        resamples: by default 1,000, and of many examples fewer, down to 200.

    None for a single example, and where most resamples leave it undefined.
    """
    if n < 2:
        return None
    resamples = resamples or max(FEWEST, min(RESAMPLES, _DRAWS // n))
    rng = np.random.default_rng(seed)
    values = []
    at_once = max(1, _AT_ONCE // n)  # bounds memory
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        weights_RN = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        values.append(statistic(weights_RN.astype(np.float64)))
    found = np.concatenate(values)
    found = found[np.isfinite(found)]
    return float(found.std(ddof=1)) if len(found) > max(1, resamples // 2) else None
