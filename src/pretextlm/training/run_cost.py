"""cost.json: what a run took, in total over all its interruptions and processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JOULES_PER_KWH = 3.6e6
SECONDS_PER_HOUR = 3600.0


def energy(
    joules: float, source: str, reason: str, carbon_grams_per_kwh: float | None
) -> Mapping[str, float | str | None]:
    """The fields on energy: null and why where nothing was measured; grams of CO2 where the recipe says how many a kWh.

    Args:
        source: the counters; "" where there is none.
        reason: why there is none.
    """
    if not source:
        return {"energy_joules": None, "energy_source": f"not measured: {reason}", "co2_grams": None}
    grams = None if carbon_grams_per_kwh is None else joules / JOULES_PER_KWH * carbon_grams_per_kwh
    return {"energy_joules": joules, "energy_source": source, "co2_grams": grams}


def cost(
    *,
    parameters: int,
    steps: int,
    skipped: int,
    tokens: int,
    seconds: float,
    compile_seconds: float,
    flops: float,
    device: str,
    device_seconds: float,
    energy: Mapping[str, Any],
) -> dict[str, Any]:
    """Plain values of cost.json (docs/architecture.md says what they mean)."""
    return {
        "parameters": parameters,
        "steps": steps,
        "skipped": skipped,
        "tokens": tokens,
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "flops": flops,
        "device": device,
        "device_hours": device_seconds / SECONDS_PER_HOUR,
        **energy,
    }
