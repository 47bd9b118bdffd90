"""Export with int8 weights and the resulting change of the loss: `pretextlm export RUN DIR --quantize int8`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pretextlm.compression.losses import LossComparison
from pretextlm.errors import UserError
from pretextlm.hf.export_model import MAX_SHARD_BYTES, Exported, export_model
from pretextlm.training.run_directory import Run


def export_quantized(
    place: Path,
    out: Path,
    *,
    family: str | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    store: Path | None = None,
) -> Exported:
    """Like `export_model`, with the matrices of the blocks as eight-bit integers (hf/int8.py).

    Args:
        store: of held-out text; by default the run's own.

    Returns:
        The export; its `loss` has "measured" (before, after and change) or the reason in "not_measured".

    Raises:
        UserError: as `export_model`, or a store was given and cannot be used.
    """
    run = Run.open(place)

    def measure(weights: Mapping[str, Tensor]) -> dict[str, Any]:
        try:
            ruler = LossComparison.of(run, run.load_model(), store)
        except UserError as error:
            if store is not None:
                raise
            return {"measured": None, "not_measured": error.message}
        return {"measured": ruler.compare(run.recipe.model, weights).plain(), "not_measured": None}

    return export_model(
        place, out, family=family, dtype=dtype, max_shard_bytes=max_shard_bytes, quantize=True, measure=measure
    )
