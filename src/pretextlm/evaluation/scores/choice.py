"""How right a choice among scored candidates is. Candidates of equal score are chosen with equal probability.

The first of equals is no answer: a model that gives all candidates one score would be right as often as the right one
stands first, in all questions of BLiMP for example.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike


def credit(scores: ArrayLike, right: Collection[int]) -> float:
    """Returns the probability that the choice is right: 1/k if k candidates share the highest score and one is right.

    Args:
        scores: (K,) of the candidates; the highest is chosen.
        right: indices of the right candidates.
    """
    best = _best(scores)
    return float(np.isin(best, list(right)).mean())


def is_tied(scores: ArrayLike) -> bool:
    """Returns whether several candidates share the highest score."""
    return len(_best(scores)) > 1


def _best(scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores)
    found: np.ndarray = np.flatnonzero(values == values.max())
    return found
