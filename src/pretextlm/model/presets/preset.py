"""Published models by name: their shape, their figure for the number of parameters, and how it was counted.

The tables beside this file hold, for each family, the values of its config.json; a published figure is held to the
digits it is written with.
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
        name: as on the hub, without its owner.
        paper: who published it.
        published: the figure as it is written: "110M".
        family: Hugging Face's model_type.
        values: of config.json.
        leaves_out: groups of components that the figure does not count.
        adds: what it counts on top, and how much.
        note: where its name or the paper says something else, why.
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
        """Its shape."""
        from pretextlm.model.families.registry import FAMILIES

        config: ModelConfig = FAMILIES[self.family]().config_in({"model_type": self.family, **self.values})
        return config

    @property
    def figure(self) -> tuple[float, float]:
        """(the published number, one unit of its last digit that is not a trailing zero)."""
        number, unit = float(self.published[:-1]), UNITS[self.published[-1]]
        digits = self.published[:-1]
        after = len(digits.partition(".")[2])
        zeros = 0 if after else len(digits) - len(digits.rstrip("0"))
        return number * unit, unit * 10.0 ** (zeros - after)

    def agrees(self, counted: int) -> bool:
        """Whether this number, rounded or cut to the digits of the published figure, is that figure."""
        number, step = self.figure
        return abs(counted - number) < step


def find(name: str) -> Preset:
    """The preset of this name, with or without its owner on the hub. Raises UserError with the nearest name."""
    every, wanted = presets(), name.lower().rpartition("/")[2]
    wanted = other_names().get(wanted, wanted)
    if wanted not in every:
        raise UserError(f"There is no preset named {name!r}.", did_you_mean(wanted, every))
    return every[wanted]


@cache
def presets() -> dict[str, Preset]:
    """All of them by name."""
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
    """Other names of the same models, in small letters → the preset's."""
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
    """Values with changes on top, table by table."""
    out = dict(values)
    for key, value in changes.items():
        inner = out.get(key)
        out[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return out


DERIVED = ("num_key_value_heads", "intermediate_size", "embedding_size", "num_decoder_layers", "head_dim")
"""Values of a shape that follow from others unless they are given."""

SCALES: dict[tuple[str, str], Callable[[ModelConfig], float]] = {
    ("head", "scale"): lambda config: config.hidden_size**-0.5,  # T5
    ("embedding", "scale"): lambda config: config.hidden_size**0.5,  # Gemma
    ("attention", "scale"): lambda config: (3 * config.head_dim) ** -0.5,  # DeBERTa
}
"""Factors that some families take from the width."""


def changed(config: ModelConfig, changes: Mapping[str, Any], where: str = "the shape") -> ModelConfig:
    """A shape with some values changed. What followed from others follows from them again."""
    values = config.model_dump()
    follow = ModelConfig.model_validate({**values, **dict.fromkeys(DERIVED, 0)})
    for name in DERIVED:
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
    """A recipe's [model] with the shape of its `preset`; the vocabulary is left to the store."""
    name = table.get("preset")
    if name is None:
        return dict(table)
    if not isinstance(name, str):
        raise UserError(f"Wrong value for 'model.preset' in {where}: it is a name.", 'For example: "bert-base-uncased"')
    changes = {"vocab_size": 0, **{key: value for key, value in table.items() if key != "preset"}}
    return changed(find(name).config(), changes, where).model_dump()
