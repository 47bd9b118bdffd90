"""The registered tasks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretextlm.registry import ClassRegistry
from pretextlm.tasks.base import Task

TASKS = ClassRegistry("task", "pretextlm.tasks", "pretextlm.tasks", Task)


def build(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Returns the task registered under `name` with these options.

    Raises:
        UserError: there is no such task, or it refuses an option.
    """
    return TASKS[name].parse(options or {}, where=f"task {name!r}")
