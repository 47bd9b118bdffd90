"""Export with int8 weights, and the loss or the scores before and after: `pretextlm export RUN DIR --quantize int8`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pretextlm.compression.comparison import comparison
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
    check: bool = True,
) -> Exported:
    """Like `export_model`, with the matrices of the blocks as eight-bit integers (hf/int8.py).

    Args:
        store: of held-out text, or of a fine-tuned run a file of records; by default the run's own.
        check: compare the directory with the run.

    Returns:
        The export; its `comparison` is what :func:`comparison` measured.

    Raises:
        UserError: as `export_model`, or a store was given and cannot be used.
    """
    run = Run.open(place)

    def measure(weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return comparison(run, run.load_model(), store)(run.recipe.model, weights)

    return export_model(
        place,
        out,
        family=family,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        quantize=True,
        measure=measure,
        check=check,
    )
