"""`pretextlm.register`: a class of your own among the objectives, tasks or model families of this process.

A package that is installed adds its classes by entry points instead, so that the command line knows them too:

    [project.entry-points."pretextlm.objectives"]
    my_objective = "my_package:MyObjective"

The groups are pretextlm.objectives, pretextlm.tasks, pretextlm.families, pretextlm.commands and pretextlm.trackers.
"""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from pretextlm.errors import UserError

C = TypeVar("C", bound=type[Any])

REGISTRIES = {
    "pretextlm.objectives.base.Objective": ("pretextlm.objectives.registry", "OBJECTIVES"),
    "pretextlm.tasks.base.Task": ("pretextlm.tasks.registry", "TASKS"),
    "pretextlm.model.families.base.Family": ("pretextlm.model.families.registry", "FAMILIES"),
}
"""Base class → the registry of its subclasses, imported only for a class that extends the base."""


def register(cls: C) -> C:
    """Adds a class under its `name`, for this process, to the registry of its base.

    Args:
        cls: subclass of Objective, Task or Family.

    Returns:
        The class, so that `@pretextlm.register` decorates it.

    Raises:
        UserError: it extends none of these, has no valid name, or the name is taken.
    """
    for base in cls.__mro__ if isinstance(cls, type) else ():
        place = REGISTRIES.get(f"{base.__module__}.{base.__qualname__}")
        if place is not None:
            module, name = place
            getattr(importlib.import_module(module), name).register(cls)
            return cls
    raise UserError(f"{cls!r} extends neither Objective nor Task nor Family.", "Derive it from one of these.")
