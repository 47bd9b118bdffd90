"""Measures energy and device time, and writes cost.json when the run is finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.files import write_json
from pretextlm.model.parameter_count import total
from pretextlm.training.callbacks.base import Callback, StepMetrics, TrainerView
from pretextlm.training.energy import Meter
from pretextlm.training.runtime import device_name

if TYPE_CHECKING:
    from pretextlm.training.distributed import DistributedContext
    from pretextlm.training.runtime import Runtime

JOULES_PER_KWH = 3.6e6
SECONDS_PER_HOUR = 3600.0


class CostMeter(Callback):
    """Adds up energy and device time over all processes and interruptions of a run.

    Args:
        runtime: of this process.
        distributed: the processes that train together.
    """

    def __init__(self, runtime: Runtime, distributed: DistributedContext) -> None:
        self._meter = Meter(runtime.device, distributed)
        # A GPU per process, but one processor per machine however many processes it has.
        self._devices = distributed.world_size if runtime.device.type == "cuda" else distributed.num_nodes
        self._joules = 0.0

    def on_step(self, trainer: TrainerView, metrics: StepMetrics) -> None:
        """Adds the time and energy of a step."""
        trainer.state.device_seconds += metrics.seconds * self._devices
        self._joules += self._meter.used()  # read often, since processors' counters wrap around within minutes

    def on_save(self, trainer: TrainerView) -> None:
        """Sums the energy of all processes into the trainer's state."""
        used = self._joules + self._meter.used(at_once=True)
        trainer.state.energy_joules += trainer.distributed.all_reduce_sum([used])[0]
        self._joules = 0.0

    def on_finish(self, trainer: TrainerView) -> None:
        """Writes cost.json."""
        if trainer.distributed.is_main:
            write_json(trainer.run.directory / "cost.json", self._cost(trainer))

    def _cost(self, trainer: TrainerView) -> dict[str, Any]:
        """Returns the plain values of cost.json (docs/architecture.md describes them)."""
        state = trainer.state
        return {
            "parameters": total(trainer.model),
            "steps": state.step,
            "skipped": state.skipped,
            **({"overflows": state.overflows} if state.loss_scale else {}),
            "tokens": trainer.tokens,
            "seconds": state.seconds,
            "compile_seconds": trainer.compile_seconds,
            "flops": state.flops,
            "device": device_name(trainer.runtime.device),
            "device_hours": state.device_seconds / SECONDS_PER_HOUR,
            **energy(
                state.energy_joules,
                self._meter.source,
                self._meter.reason,
                trainer.recipe.training.carbon_grams_per_kwh,
            ),
        }


def energy(
    joules: float, source: str, reason: str, carbon_grams_per_kwh: float | None
) -> Mapping[str, float | str | None]:
    """Returns the fields of cost.json on energy: null with a reason if nothing was measured.

    Args:
        joules: measured energy.
        source: the counters; "" if there is none.
        reason: why there is none.
        carbon_grams_per_kwh: CO₂ intensity of the electricity; None: unknown.
    """
    if not source:
        return {"energy_joules": None, "energy_source": f"not measured: {reason}", "co2_grams": None}
    grams = None if carbon_grams_per_kwh is None else joules / JOULES_PER_KWH * carbon_grams_per_kwh
    return {"energy_joules": joules, "energy_source": source, "co2_grams": grams}
