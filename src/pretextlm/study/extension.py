"""A plan joined with the one that its directory already holds, so that a study can grow.

    held     seeds [1, 2], objectives causal, masked
    asked    seeds [2, 3], objectives masked, prefix
    joined   seeds [1, 2, 3], objectives causal, masked, prefix: what is missing is run

Everything that decides what a finished run is (budget, model, data, an objective's options) must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretextlm.config import read_toml
from pretextlm.errors import UserError
from pretextlm.study.plan import StudyPlan
from pretextlm.study.task_plan import AnyPlan, TaskStudy

MOST_DIFFERENCES = 5

Values = Mapping[str, Any]


def joined(held: AnyPlan, asked: AnyPlan, file: Path) -> AnyPlan:
    """Returns the plan of everything that either plan compares.

    Args:
        held: the plan of the study directory.
        asked: the plan that is to be run in it.
        file: of the plan that is held, for messages.

    Raises:
        UserError: the plans contradict each other; says in what.
    """
    if type(held) is not type(asked):
        kinds = {StudyPlan: "of objectives", TaskStudy: "of a task"}
        raise _another(file, [f"it is {kinds[type(held)]}, this one {kinds[type(asked)]}"])
    old, new = held.plain(), asked.plain()
    compared = "objectives" if isinstance(held, StudyPlan) else "entries"
    differences = [
        *_differences(_fixed(old, compared), _fixed(new, compared)),
        *_of_entries(old[compared], new[compared]),
        *_of_grids(old, new),
    ]
    if differences:
        raise _another(file, differences)
    values = {**new, "seeds": _union(old["seeds"], new["seeds"]), compared: _by_label(old[compared], new[compared])}
    if "grid" in new:
        values["grid"] = {setting: _union(old["grid"][setting], new["grid"][setting]) for setting in old["grid"]}
    return type(asked).parse(values, where=str(file))


def held_plan(file: Path, like: AnyPlan) -> AnyPlan:
    """Returns the plan of a study directory, of objectives or of a task."""
    values = read_toml(file)
    kind = TaskStudy if "entries" in values else StudyPlan if "objectives" in values else type(like)
    return kind.parse(values, where=str(file))


def _fixed(plan: Values, compared: str) -> dict[str, Any]:
    """Returns what must be the same. The store is known by the hash of its manifest, not by its path."""
    return {key: value for key, value in plan.items() if key not in ("name", "seeds", "grid", "store", compared)}


def _differences(old: Values, new: Values, prefix: str = "") -> Iterator[str]:
    """Yields what differs in nested tables: "budget.seconds is 60, here 120"."""
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) or isinstance(after, Mapping):
            yield from _differences(before or {}, after or {}, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} is {_shown(before)}, here {_shown(after)}"


def _shown(value: Any) -> str:
    return "not given" if value is None else repr(value) if isinstance(value, str) else str(value)


def _of_entries(old: Sequence[Values], new: Sequence[Values]) -> Iterator[str]:
    """Yields how conditions of the same label differ."""
    known = {entry["label"]: entry for entry in old}
    for entry in new:
        yield from _differences(known.get(entry["label"], entry), entry, f"{entry['label']}: ")


def _of_grids(old: Values, new: Values) -> Iterator[str]:
    """Yields why a grid cannot grow: runs have the names of all its settings, and of its entries if it has several."""
    settings = [sorted(plan.get("grid", {})) for plan in (old, new)]
    if settings[0] != settings[1]:
        yield "grid has the settings {}, here {}".format(*(", ".join(names) or "none" for names in settings))
    elif settings[0] and (len(old["entries"]) == 1) != (len(_by_label(old["entries"], new["entries"])) == 1):
        yield "its grid has one entry, here several"


def _union(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    return [*first, *(one for one in second if one not in first)]


def _by_label(old: Sequence[Values], new: Sequence[Values]) -> list[Values]:
    return [*old, *(entry for entry in new if entry["label"] not in {one["label"] for one in old})]


def _another(file: Path, differences: Sequence[str]) -> UserError:
    more = len(differences) - MOST_DIFFERENCES
    told = "; ".join([*differences[:MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])
    return UserError(
        f"{file.parent} holds another study: {told}.",
        f"Give another directory with --out DIR, or resume its own plan: pretextlm compare {file} --out {file.parent}",
    )
