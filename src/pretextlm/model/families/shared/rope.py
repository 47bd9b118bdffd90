"""Rotary positions in a config.json: rope_parameters, or the older rope_theta and rope_scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig

ORIGINAL = "original_max_position_embeddings"
SCALING: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low": "low_freq_factor",
        "high": "high_freq_factor",
        "original_positions": ORIGINAL,
    },
    "dynamic": {"factor": "factor"},
    "yarn": {"factor": "factor", "original_positions": ORIGINAL},
    "longrope": {"short_factors": "short_factor", "long_factors": "long_factor", "original_positions": ORIGINAL},
}
"""Kind of scaling → our name and theirs of each of its values."""
OPTIONAL: Mapping[str, Mapping[str, tuple[str, Any]]] = {
    "yarn": {
        "low": ("beta_slow", 1.0),
        "high": ("beta_fast", 32.0),
        "attention_factor": ("attention_factor", 0.0),
        "whole_range": ("truncate", True),
    },
    "longrope": {"attention_factor": ("attention_factor", 0.0)},
}
"""Those that may be left out, and what they then are."""


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
    longest = values.get("max_position_embeddings") or 0
    if kind in ("yarn", "longrope"):
        found = _completed(found, values.get(ORIGINAL), longest)
    absent = [theirs for theirs in SCALING[kind].values() if theirs not in found]
    if absent:
        raise UserError(f"Rotary positions of kind {kind!r} without {absent[0]}.", "Add it to rope_parameters.")
    scaling = {ours: found[theirs] for ours, theirs in SCALING[kind].items()}
    for ours, (theirs, default) in OPTIONAL.get(kind, {}).items():
        scaling[ours] = found[theirs] if found.get(theirs) is not None else default
    if kind == "yarn":
        scaling["attention_factor"] = scaling["attention_factor"] or _of_scores(found)
    if kind == "longrope":
        scaling["factor"] = found.get("factor") or longest / scaling["original_positions"] or 1.0
    if kind == "dynamic":
        if not longest:
            raise UserError("Dynamic rotary positions without max_position_embeddings.", "Add it to config.json.")
        scaling["original_positions"] = longest
    return {
        "kind": "rotary",
        "theta": found.get("rope_theta", values.get("rope_theta") or 10_000.0),
        "max_positions": longest,
        "scaling": {"kind": "none" if kind == "default" else kind, **scaling},
    }


def _completed(found: Mapping[str, Any], original: Any, longest: int) -> dict[str, Any]:
    """With the original positions, which may stand outside of the table or be the longest row's, and their factor."""
    original = original or found.get(ORIGINAL) or longest
    out = {**found, **({ORIGINAL: original} if original else {})}
    if out.get("factor") is None and original and "factor" in out:
        out["factor"] = longest / original
    return out


def _of_scores(found: Mapping[str, Any]) -> float:
    """YaRN's factor of cosines and sines where it is given by two others; 0: by the formula."""
    above, below = found.get("mscale"), found.get("mscale_all_dim")
    if not above or not below or found["factor"] <= 1:
        return 0.0
    size = 0.1 * math.log(found["factor"])
    return float((above * size + 1) / (below * size + 1))


def rope_out(config: ModelConfig) -> dict[str, Any]:
    """Values of a config.json, in the new form and for older readers."""
    parts, scaling = config.positions, config.positions.scaling
    kind = "default" if scaling.kind == "none" else scaling.kind
    found = {"rope_type": kind, **{theirs: _plain(getattr(scaling, ours)) for ours, theirs in SCALING[kind].items()}}
    for ours, (theirs, default) in OPTIONAL.get(kind, {}).items():
        if getattr(scaling, ours) != default:
            found[theirs] = getattr(scaling, ours)
    if kind == "longrope" and scaling.factor != (parts.max_positions / scaling.original_positions or 1.0):
        found["factor"] = scaling.factor
    return {
        "rope_parameters": {"rope_theta": parts.theta, **found},
        "rope_theta": parts.theta,
        **({"max_position_embeddings": parts.max_positions} if parts.max_positions else {}),
        **({} if kind == "default" else {"rope_scaling": found}),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
