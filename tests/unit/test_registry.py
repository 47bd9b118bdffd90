"""Registries: built-in entries by their files, entries of other packages by entry points, classes at run time."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import pytest

from pretextlm.errors import UserError
from pretextlm.extensions import register
from pretextlm.model.families.registry import FAMILIES
from pretextlm.objectives.base import Objective
from pretextlm.objectives.causal import Causal
from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.registry import ClassRegistry
from pretextlm.tasks.registry import TASKS
from pretextlm.training.trackers import TRACKERS


class Copied(Causal):
    name: ClassVar[str] = "copied"


@pytest.fixture(autouse=True)
def _forget():
    yield
    OBJECTIVES.unregister("copied")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with entry points, as `pip install` leaves it."""

    def install(points, code="", name="outside"):
        (tmp_path / f"{name}.py").write_text(code)
        information = tmp_path / f"{name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    for name in [name for name in sys.modules if name.startswith("outside")]:
        del sys.modules[name]


def fresh():
    return ClassRegistry("objective", "pretextlm.objectives", "pretextlm.objectives", Objective)


CODE = """
from pretextlm.objectives.causal import Causal

class Outside(Causal):
    name = "outside"
"""
POINTS = "[pretextlm.objectives]\noutside = outside:Outside\n"


@pytest.mark.parametrize("registry", [OBJECTIVES, TASKS, FAMILIES, TRACKERS], ids=lambda registry: registry.kind)
def test_each_file_is_an_entry_of_its_name(registry):
    assert len(registry) == len(list(registry))
    for name in registry:
        assert registry[name].name == name


def test_listing_names_imports_no_objective():
    code = (
        "import sys; from pretextlm.objectives.registry import OBJECTIVES; list(OBJECTIVES); 'masked' in OBJECTIVES;"
        "sys.exit(any(f'pretextlm.objectives.{name}' in sys.modules for name in OBJECTIVES))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_registered_class_is_found_and_may_be_registered_again():
    assert register(Copied) is Copied
    assert register(Copied) is Copied
    assert OBJECTIVES["copied"] is Copied
    assert "copied" in list(OBJECTIVES)


def test_a_name_that_is_taken_is_refused():
    class Other(Causal):
        name: ClassVar[str] = "masked"

    with pytest.raises(UserError, match="'masked' is taken"):
        register(Other)


@pytest.mark.parametrize("wrong", [int, "masked", None])
def test_what_is_none_of_ours_is_refused(wrong):
    with pytest.raises(UserError, match="neither Objective nor Task"):
        register(wrong)


@pytest.mark.parametrize("name", [None, "", "Has Space", 3])
def test_a_name_must_be_one_that_a_recipe_can_write(name):
    with pytest.raises(UserError, match="name is"):
        register(type("Odd", (Causal,), {"name": name, "__annotations__": {"name": ClassVar[str]}}))


def test_a_subclass_without_a_name_of_its_own_is_refused():
    class Nameless(Causal):
        pass

    with pytest.raises(UserError, match=r"Nameless\.name is None"):
        register(Nameless)


def test_an_installed_package_adds_an_entry(package):
    package(POINTS, CODE)
    registry = fresh()
    assert "outside" in list(registry)
    assert "outside" not in sys.modules
    assert registry["outside"].name == "outside"
    assert registry["outside"] is registry["outside"]


def test_a_broken_package_is_named_when_its_entry_is_used_and_hinders_no_other(package):
    package(POINTS, "import nothing_of_this_name")
    registry = fresh()
    assert registry["masked"].name == "masked"
    with pytest.raises(UserError, match="'outside' of the package outside cannot be loaded: No module named"):
        registry["outside"]


def test_an_entry_that_is_no_objective_is_refused_with_its_package(package):
    package(POINTS, "Outside = 3")
    with pytest.raises(UserError, match="package outside cannot be loaded: 3 is no subclass of Objective"):
        fresh()["outside"]


def test_a_package_cannot_take_a_name_of_ours(package):
    package("[pretextlm.objectives]\nmasked = outside:Outside\n", CODE)
    with pytest.raises(UserError, match="The package outside adds another objective named 'masked': pretextlm has"):
        list(fresh())


def test_an_unknown_name_is_answered_with_the_nearest_also_of_other_packages(package):
    package(POINTS, CODE)
    with pytest.raises(UserError, match="Did you mean 'outside'"):
        fresh()["outsid"]
