"""Every objective, under the settings that change what it does, keeps the promises of pretextlm.testing."""

from __future__ import annotations

import pytest
from tests.unit.objectives.contract import CASES

from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.testing.checks import CHECKS
from pretextlm.testing.loss_check import check_loss_is_a_sum


def test_every_registered_objective_is_among_the_cases():
    assert {case.name for case in CASES} == set(OBJECTIVES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_keeps_its_promises(case, check):
    check(case.contract)


NETWORKS = [
    pytest.param(case, architecture, id=f"{case}-{architecture}")
    for case in CASES
    for architecture in case.objective.supported_architectures()
]


@pytest.mark.parametrize(("case", "architecture"), NETWORKS)
def test_loss_and_gradients_do_not_depend_on_how_a_step_is_cut(case, architecture):
    check_loss_is_a_sum(case.contract, architecture)
