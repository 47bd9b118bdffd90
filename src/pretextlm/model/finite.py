"""Weights that are not numbers: NaN and infinity, which a broken training or conversion leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pretextlm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 5


def check_finite(weights: Mapping[str, Tensor], place: str) -> None:
    """Checks that all weights are finite.

    Args:
        weights: by name.
        place: of the model, for the message.

    Raises:
        UserError: some are not; their number is given, and the tensors are named.
    """
    import torch

    # The largest magnitude of a tensor is NaN or infinite if any of its values is; that takes one pass over it.
    broken = [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point()
        and tensor.numel()
        and not torch.linalg.vector_norm(tensor, float("inf"), dtype=torch.float32).isfinite()
    ]
    if not broken:
        return
    count = sum(int((~weights[name].isfinite()).sum()) for name in broken)
    names = ", ".join(broken[:SHOWN]) + (f" and {len(broken) - SHOWN:,} more tensors" if len(broken) > SHOWN else "")
    raise UserError(
        f"{place} has {count:,} weights that are NaN or infinite, in {names}: all that it says would be meaningless.",
        "Use an earlier checkpoint, or fetch the model again. --allow-non-finite (import, export) takes it as it is.",
    )
