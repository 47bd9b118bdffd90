"""Rotary positions in a config.json: rope_parameters, or the older rope_theta and rope_scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig

ORIGINAL = "original_max_position_embeddings"
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
    "dynamic": ("factor",),
    "yarn": ("factor", ORIGINAL),
    "longrope": ("short_factor", "long_factor", ORIGINAL),
}
"""rope_type → values that it needs; they have the same names in `RopeScaling`."""
OPTIONAL: Mapping[str, Mapping[str, tuple[str, Any]]] = {
    "yarn": {
        "low_freq_factor": ("beta_slow", 1.0),
        "high_freq_factor": ("beta_fast", 32.0),
        "attention_factor": ("attention_factor", 0.0),
        "truncate": ("truncate", True),
    },
    "longrope": {"attention_factor": ("attention_factor", 0.0)},
}
"""rope_type → our name of a value that may be left out → (Hugging Face's name, its default)."""


def rope_from_hf(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the rotary positions of a config.json.

    Args:
        values: Values of the config.json.

    Returns:
        Values of a `PositionConfig`.

    Raises:
        UserError: A scaling that the transformer does not have, or one without a value that it needs.
    """
    found = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise UserError(f"rope_parameters is {found!r:.80}.", "config.json must give a table there.")
    kind = found.get("rope_type", found.get("type", "default"))
    known = f"{', '.join(REQUIRED)}, the same for all layers"
    if not isinstance(kind, str) or kind not in REQUIRED or any(isinstance(value, dict) for value in found.values()):
        raise UserError(f"Rotary positions of kind {kind!r:.80} are not known.", f"Known: {known}.")
    partial = found.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if partial not in (None, 1):
        raise UserError(f"partial_rotary_factor = {partial!r} is not known here.", "Heads are rotated completely.")
    longest = values.get("max_position_embeddings") or 0
    if kind in ("yarn", "longrope"):
        found = _with_original(found, values.get(ORIGINAL), longest)
    absent = [name for name in REQUIRED[kind] if name not in found]
    if absent:
        raise UserError(f"Rotary positions of kind {kind!r} without {absent[0]}.", "Add it to rope_parameters.")
    scaling = {name: found[name] for name in REQUIRED[kind]}
    for name, (hf_name, default) in OPTIONAL.get(kind, {}).items():
        scaling[name] = found[hf_name] if found.get(hf_name) is not None else default
    if kind == "yarn":
        scaling["attention_factor"] = scaling["attention_factor"] or _mscale_ratio(found)
    if kind == "longrope":
        scaling["factor"] = found.get("factor") or longest / scaling[ORIGINAL] or 1.0
    if kind == "dynamic":
        if not longest:
            raise UserError("Dynamic rotary positions without max_position_embeddings.", "Add it to config.json.")
        scaling[ORIGINAL] = longest
    return {
        "kind": "rotary",
        "rope_theta": found.get("rope_theta", values.get("rope_theta") or 10_000.0),
        "max_position_embeddings": longest,
        "rope_scaling": {"rope_type": kind, **scaling},
    }


def _with_original(found: Mapping[str, Any], original: Any, longest: int) -> dict[str, Any]:
    """Fill in the original positions, which may lie outside of the table or be the longest row's, and the factor."""
    original = original or found.get(ORIGINAL) or longest
    out = {**found, **({ORIGINAL: original} if original else {})}
    if out.get("factor") is None and original and "factor" in out:
        out["factor"] = longest / original
    return out


def _mscale_ratio(found: Mapping[str, Any]) -> float:
    """YaRN's attention factor where it is given as the ratio of two others; 0 for the paper's formula."""
    above, below = found.get("mscale"), found.get("mscale_all_dim")
    if not above or not below or found["factor"] <= 1:
        return 0.0
    size = 0.1 * math.log(found["factor"])
    return float((above * size + 1) / (below * size + 1))


def rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Convert rotary positions to values of a config.json, in the new form and for older readers."""
    positions, scaling = config.positions, config.positions.rope_scaling
    kind = scaling.rope_type
    found = {"rope_type": kind, **{name: _plain(getattr(scaling, name)) for name in REQUIRED[kind]}}
    for name, (hf_name, default) in OPTIONAL.get(kind, {}).items():
        if getattr(scaling, name) != default:
            found[hf_name] = getattr(scaling, name)
    longest = positions.max_position_embeddings
    if kind == "longrope" and scaling.factor != (longest / scaling.original_max_position_embeddings or 1.0):
        found["factor"] = scaling.factor
    return {
        "rope_parameters": {"rope_theta": positions.rope_theta, **found},
        "rope_theta": positions.rope_theta,
        **({"max_position_embeddings": longest} if longest else {}),
        **({} if kind == "default" else {"rope_scaling": found}),
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
