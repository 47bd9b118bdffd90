"""Presets: the shapes of published models by name, with their published numbers of parameters.

The TOML files beside this one hold, for each family, the values of its config.json. A counted number of parameters must
equal the published one to the digits that this is written with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pretextlm.config import read_toml
from pretextlm.errors import UserError, did_you_mean
from pretextlm.model.config import ModelConfig

UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
        name: Name on the hub, without its owner.
        paper: Publication.
        published: Published number of parameters: "110M".
        family: Hugging Face's model_type.
        values: Values of the config.json.
        leaves_out: Groups of components that the published number does not count.
        adds: Components that it counts in addition → their parameters.
        note: Reason for a difference from the name or the paper.
    """

    name: str
    paper: str
    published: str
    family: str
    values: Mapping[str, Any]
    leaves_out: tuple[str, ...] = ()
    adds: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def config(self) -> ModelConfig:
        """Returns the shape."""
        from pretextlm.model.families.registry import FAMILIES

        config: ModelConfig = FAMILIES[self.family]().config_from_hf({"model_type": self.family, **self.values})
        return config

    @property
    def figure(self) -> tuple[float, float]:
        """(the published number, one unit of its last non-zero digit): "110M" → (110e6, 10e6)."""
        number, unit = float(self.published[:-1]), UNITS[self.published[-1]]
        digits = self.published[:-1]
        after = len(digits.partition(".")[2])
        zeros = 0 if after else len(digits) - len(digits.rstrip("0"))
        return number * unit, unit * 10.0 ** (zeros - after)

    def agrees(self, counted: int) -> bool:
        """Returns whether a number, rounded or truncated to the digits of the published one, equals it."""
        number, step = self.figure
        return abs(counted - number) < step


AUTO = "auto"
"""In place of a preset's name: the shape is chosen for the budget when a training begins (training/auto_size.py)."""


def find(name: str) -> Preset:
    """Finds a preset.

    Args:
        name: Name on the hub, with or without its owner.

    Raises:
        UserError: There is none; the nearest name is suggested.
    """
    every, wanted = presets(), name.lower().rpartition("/")[2]
    wanted = other_names().get(wanted, wanted)
    if wanted not in every:
        raise UserError(f"There is no preset named {name!r}.", did_you_mean(wanted, every))
    return every[wanted]


@cache
def presets() -> dict[str, Preset]:
    """Returns all presets by name."""
    found: dict[str, Preset] = {}
    for table in _tables():
        for name, entry in table["presets"].items():
            found[name] = Preset(
                name=name,
                paper=entry.get("paper", table["paper"]),
                published=entry["published"],
                family=table["family"],
                values=merged(table["values"], entry.get("values", {})),
                leaves_out=tuple(entry.get("leaves_out", ())),
                adds=entry.get("adds", {}),
                note=entry.get("note", ""),
            )
    return found


@cache
def other_names() -> dict[str, str]:
    """Returns other names of the same models, in lower case → the preset's name."""
    return {
        also.lower(): name
        for table in _tables()
        for name, entry in table["presets"].items()
        for also in entry.get("also", ())
    }


@cache
def _tables() -> tuple[dict[str, Any], ...]:
    return tuple(read_toml(path) for path in sorted(Path(__file__).parent.glob("*.toml")))


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values updated with changes, recursively."""
    out = dict(values)
    for key, value in changes.items():
        inner = out.get(key)
        out[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return out


DERIVED = ("num_key_value_heads", "intermediate_size", "embedding_size", "num_decoder_layers", "head_dim")
"""Values of a shape that are derived from others unless they are given."""

SCALES: dict[tuple[str, str], Callable[[ModelConfig], float]] = {
    ("head", "scale"): lambda config: config.hidden_size**-0.5,  # T5
    ("embedding", "scale"): lambda config: config.hidden_size**0.5,  # Gemma
    ("attention", "scale"): lambda config: 1 / math.sqrt(3 * config.head_dim),  # DeBERTa
}
"""Factors that some families derive from the width."""


def changed(config: ModelConfig, changes: Mapping[str, Any], where: str = "the shape") -> ModelConfig:
    """Changes some values of a shape, and derives again the values that were derived from others.

    With hidden_size 768 → 1024, an intermediate_size of 3072 becomes 4096: it was four times the width.

    Args:
        config: The shape.
        changes: New values, by section.
        where: Where the changes come from, for error messages.
    """
    values = config.model_dump()
    # T5 v1.1 small has 6 heads of 64 for a width of 512: its head_dim is its own, whatever the width.
    divides = config.num_attention_heads and config.hidden_size % config.num_attention_heads == 0
    derived = [name for name in DERIVED if name != "head_dim" or divides]
    follow = ModelConfig.model_validate({**values, **dict.fromkeys(derived, 0)})
    for name in derived:
        if values[name] == getattr(follow, name):
            values[name] = 0
    found = ModelConfig.parse(merged(values, changes), where)
    scales: dict[str, Any] = {}
    for (part, name), scale in SCALES.items():
        given = name in (changes.get(part) or {})
        if not given and math.isclose(getattr(getattr(config, part), name), scale(config)):
            scales = merged(scales, {part: {name: scale(found)}})
    return ModelConfig.parse(merged(found.model_dump(), scales), where)


def filled_in(table: Mapping[str, Any], where: str = "the recipe") -> dict[str, Any]:
    """Replaces the `preset` of a recipe's [model] by its shape, except for the vocabulary, which the store determines.

    Args:
        table: The [model] table.
        where: Where it comes from, for error messages.

    Returns:
        The values of a `ModelConfig`.
    """
    name = table.get("preset")
    if name is None:
        return dict(table)
    if not isinstance(name, str):
        raise UserError(f"Wrong value for 'model.preset' in {where}: it is a name.", 'For example: "bert-base-uncased"')
    changes = {"vocab_size": 0, **{key: value for key, value in table.items() if key != "preset"}}
    return changed(find(name).config(), changes, where).model_dump()
