"""The registered objectives, by name, and the type of an option that is itself an objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from pretextlm.objectives.base import Objective, Role
from pretextlm.registry import ClassRegistry

OBJECTIVES = ClassRegistry("objective", "pretextlm.objectives", "pretextlm.objectives", Objective)


def with_role(role: Role) -> str:
    """Returns the names of the objectives that can play a role inside another, for messages."""
    return ", ".join(name for name, cls in OBJECTIVES.items() if role in cls.roles)


def build(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """Returns the objective registered under `name` with these options.

    Raises:
        UserError: there is no such objective, or it refuses an option.
    """
    return OBJECTIVES[name].parse(options or {}, where=f"objective {name!r}")


def _from_table(value: Any) -> Any:
    if isinstance(value, str):
        return build(value)
    if isinstance(value, Mapping) and "name" in value:
        return build(value["name"], {k: v for k, v in value.items() if k != "name"})
    if isinstance(value, Mapping):
        raise ValueError('an objective inside another needs its name, for example: {name = "masked", rate = 0.15}')
    return value


ObjectiveField = Annotated[
    Objective,
    BeforeValidator(_from_table),
    PlainSerializer(lambda objective: {"name": objective.name, **objective.model_dump(mode="json")}),
]
"""A field that is itself an objective: an instance, a table with its name, or the name alone."""
