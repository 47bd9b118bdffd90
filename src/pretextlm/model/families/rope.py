"""Rotary positions in a config.json: rope_parameters, or the older rope_theta and rope_scaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig

SCALING = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low": "low_freq_factor",
        "high": "high_freq_factor",
        "original_positions": "original_max_position_embeddings",
    },
}
"""Kind of scaling → our name and theirs of each of its numbers."""


def rope_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of our `PositionConfig`. Raises UserError for a scaling that the trunk does not have."""
    found = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise UserError(f"rope_parameters is {found!r:.80}.", "config.json must give a table there.")
    kind = found.get("rope_type", found.get("type", "default"))
    known = f"{', '.join(SCALING)}, the same for all layers"
    if not isinstance(kind, str) or kind not in SCALING or any(isinstance(value, dict) for value in found.values()):
        raise UserError(f"Rotary positions of kind {kind!r:.80} are not known.", f"Known: {known}.")
    fraction = found.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if fraction not in (None, 1):
        raise UserError(f"partial_rotary_factor = {fraction!r} is not known here.", "Heads are turned as a whole.")
    absent = [theirs for theirs in SCALING[kind].values() if theirs not in found]
    if absent:
        raise UserError(f"Rotary positions of kind {kind!r} without {absent[0]}.", "Add it to rope_parameters.")
    scaling = {ours: found[theirs] for ours, theirs in SCALING[kind].items()}
    return {
        "kind": "rotary",
        "theta": found.get("rope_theta", values.get("rope_theta") or 10_000.0),
        "max_positions": values.get("max_position_embeddings") or 0,
        "scaling": {"kind": "none" if kind == "default" else kind, **scaling},
    }


def rope_out(config: ModelConfig) -> dict[str, Any]:
    """Values of a config.json, in the new form and for older readers."""
    parts = config.positions
    kind = "default" if parts.scaling.kind == "none" else parts.scaling.kind
    found = {"rope_type": kind, **{theirs: getattr(parts.scaling, ours) for ours, theirs in SCALING[kind].items()}}
    return {
        "rope_parameters": {"rope_theta": parts.theta, **found},
        "rope_theta": parts.theta,
        **({"max_position_embeddings": parts.max_positions} if parts.max_positions else {}),
        **({} if kind == "default" else {"rope_scaling": found}),
    }
