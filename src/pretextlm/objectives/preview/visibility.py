"""Which tokens of a batch's row attend to which, and the row without its padding."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.attention_mask import may_attend
from pretextlm.batch import Batch


def visibility_of(batch: Batch) -> dict[str, NDArray[np.bool_]]:
    """Returns the attention masks of the batch's first row: (queries, keys) True where a query may attend to a key."""
    segments, positions = _laid_out(batch.input_ids, batch.segment_ids, batch.position_ids)
    own = may_attend(segments, segments, positions, positions, batch.prefix, batch.attention, batch.rank, batch.reach)
    sights = {"input": own[0]}
    if batch.decoder_input_ids is not None:
        own, places = _laid_out(batch.decoder_input_ids, batch.decoder_segment_ids, batch.decoder_position_ids)
        sights["decoder"] = may_attend(own, own, places, places, None, "causal")[0]
        sights["cross"] = may_attend(own, segments)[0]
    return sights


def _laid_out(ids: Any, segments: Any, positions: Any) -> tuple[Any, Any]:
    """Returns segments and positions, with their defaults where they are None."""
    places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    return np.zeros_like(ids) if segments is None else segments, places if positions is None else positions


def without_padding(batch: Batch) -> Batch:
    """Returns the batch of one row without the padding at the ends of its rows."""
    arrays = {}
    for prefix, segments in (("", batch.segment_ids), ("decoder_", batch.decoder_segment_ids)):
        if segments is None:
            continue
        width = int(np.flatnonzero(segments[0] >= 0).max(initial=-1)) + 1
        for field in dataclasses.fields(batch):
            array = getattr(batch, field.name)
            own = field.name.startswith("decoder_") == bool(prefix) and field.name not in ("attention", "example_ids")
            if own and array is not None and array.ndim == 2:
                arrays[field.name] = array[:, :width]
    return dataclasses.replace(batch, **arrays)
