"""Names → steps of cleaning pipelines: those of `pretextlm.cleaning.steps`, and others' by entry points."""

from __future__ import annotations

from types import ModuleType

from pretextlm.cleaning.step import Step
from pretextlm.errors import UserError
from pretextlm.registry import Registry


class StepRegistry(Registry[type[Step]]):
    """Finds the class whose `name` is the module's."""

    def find(self, module: ModuleType, name: str) -> type[Step]:
        for entry in vars(module).values():
            if isinstance(entry, type) and issubclass(entry, Step) and entry.__dict__.get("name") == name:
                return entry
        raise UserError(f"{module.__name__} holds no step named {name!r}.", "Name the class's `name` like its file.")

    def check(self, entry: object) -> type[Step]:
        if isinstance(entry, type) and issubclass(entry, Step):
            return entry
        raise UserError(f"{entry!r} is no step.", "Register a subclass of pretextlm.cleaning.step.Step.")


STEPS = StepRegistry("cleaning step", "pretextlm.cleaning.steps", "pretextlm.cleaning_steps")
