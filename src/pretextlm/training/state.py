"""The state of a trainer that is neither weights nor optimizer state; every checkpoint has it as state.json."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TrainerState:
    """Progress of a training.

    Attributes:
        run_id: of the run's manifest; "" in runs without one.
        step: optimizer steps done; it also determines the position in the data.
        seconds: of training, without evaluation and compilation.
        flops: floating-point operations of training.
        validations: number of the last validation; the one before the first step is 0, -1 means none yet.
        window: sums of the metrics line in progress.
        skipped: steps that were skipped because of their gradient.
        typical_norm: running mean of the gradient norm.
        loss_scale: factor of the loss in fp16 (loss_scale.py); 0 in other types.
        steps_at_scale: steps since it changed.
        overflows: steps that were skipped because it was too large.
        device_seconds: seconds of training summed over all devices.
        energy_joules: measured energy, summed over all processes.
        best: best validation value, lower is better; None before the first.
        best_step: step of that validation.
        is_best: the weights are those of `best_step`, restored when training ended.
        stale: validations since then without improvement.
    """

    run_id: str = ""
    step: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    validations: int = -1
    window: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    typical_norm: float = 0.0
    loss_scale: float = 0.0
    steps_at_scale: int = 0
    overflows: int = 0
    device_seconds: float = 0.0
    energy_joules: float = 0.0
    best: float | None = None
    best_step: int = 0
    is_best: bool = False
    stale: int = 0
