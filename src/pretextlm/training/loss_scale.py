"""Dynamic loss scaling: gradients of fp16 activations, too small for its range, are computed of a larger loss.

The loss is multiplied by a power of two before the backward pass, and the gradient of the fp32 weights divided by it. A
step whose gradient overflows is skipped and the scale halved; after 2,000 steps without one it is doubled (Micikevicius
et al. 2018, https://arxiv.org/abs/1710.03740; the constants are those of torch.amp.GradScaler). Products with powers of
two are exact: the scale changes no gradient that is representable with and without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pretextlm.training.state import TrainerState

INITIAL, LEAST = 65_536.0, 1.0
GROWTH_FACTOR, BACKOFF_FACTOR, GROWTH_INTERVAL = 2.0, 0.5, 2000


def begin_scaling(state: TrainerState, dtype: torch.dtype) -> None:
    """Set the scale of a run that begins or is resumed: none unless its activations are fp16."""
    if dtype != torch.float16:
        state.loss_scale, state.steps_at_scale = 0.0, 0
    elif not state.loss_scale:
        state.loss_scale, state.steps_at_scale = INITIAL, 0


def overflowed(state: TrainerState, norm: float) -> bool:
    """Adapt the scale to the gradient of a step.

    All processes see the norm of the same summed gradient, so they all have the same scale.

    Args:
        state: Of the trainer.
        norm: Global norm of the gradient.

    Returns:
        Whether the step must be skipped because its scale was too large. A gradient that is not finite at the least
        scale is no matter of the scale.
    """
    if not state.loss_scale:
        return False
    if not math.isfinite(norm):
        if state.loss_scale <= LEAST:
            return False
        state.loss_scale, state.steps_at_scale = max(LEAST, state.loss_scale * BACKOFF_FACTOR), 0
        state.overflows += 1
        return True
    state.steps_at_scale += 1
    if state.steps_at_scale == GROWTH_INTERVAL:
        state.loss_scale, state.steps_at_scale = state.loss_scale * GROWTH_FACTOR, 0
    return False
