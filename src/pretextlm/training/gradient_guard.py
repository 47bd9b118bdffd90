"""Skips steps whose gradient is not finite or far above its running mean, before any weight is changed by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretextlm.training.state import TrainerState

MEAN_WEIGHT = 0.02
"""Weight of one step in the running mean of the gradient norm."""
WARMUP_STEPS = 20
"""Steps before which no norm counts as a spike."""


def gradient_fault(norm: float, state: TrainerState, spike: float) -> str | None:
    """Checks the gradient norm of a step, and updates the running mean in `state`.

    All processes see the same summed gradient, so they all decide alike.

    Args:
        norm: global norm of the step's gradient.
        state: of the trainer.
        spike: a norm this many times the running mean is a fault; 0: none is.

    Returns:
        What is wrong with the gradient, or None.
    """
    spiked = spike and state.typical_norm and state.step >= WARMUP_STEPS and norm > spike * state.typical_norm
    if norm < float("inf") and not spiked:
        first = not state.typical_norm
        state.typical_norm = norm if first else state.typical_norm + MEAN_WEIGHT * (norm - state.typical_norm)
        return None
    return f"is {norm / state.typical_norm:.0f} times its usual size" if norm < float("inf") else "is not finite"
