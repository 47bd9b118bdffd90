"""What an untrained generator proposes for hidden tokens: tokens as often as they occur in a few texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch


def propose_by_frequency(batch: Batch, tokens: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns (B, T) the text with proposals at hidden tokens, and 1 where it is not the original, else 0.

    Args:
        batch: of replaced-token detection.
        tokens: (N,) those of the texts; one of them is taken uniformly for each hidden token.
    """
    hidden = batch.labels != IGNORE
    places = (batch.draws.astype(np.int64) * len(tokens)) >> 31  # draws are uniform in 0 … 2³¹-1
    judged = np.where(hidden, tokens[places], batch.input_ids).astype(np.int32)
    original = np.where(hidden, batch.labels, batch.input_ids)
    return judged, (judged != original).astype(np.int32)
