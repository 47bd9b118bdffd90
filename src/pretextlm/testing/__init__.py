"""Checks that an objective of your own keeps the promises that the rest of the library relies on.

    from pretextlm.testing import check_objective

    def test_my_objective():
        check_objective(MyObjective(rate=0.3))

The checks read a text in which every token occurs once. A label then names the position it came from: whether the
source can be recovered, and whether an answer can be read off somewhere, become questions about numbers.
"""

from __future__ import annotations

from pretextlm.objectives.base import Objective
from pretextlm.testing.checks import CHECKS
from pretextlm.testing.contract import Contract, Text

__all__ = ["check_objective"]


def check_objective(
    objective: Objective,
    *,
    text: Text | None = None,
    noise: float = 0.0,
    padded: bool | None = None,
    shows_answers: bool = False,
    lost: float = 0.0,
) -> None:
    """Checks that an objective is pure, deterministic and well-formed, and that no answer can be read off its input.

    Args:
        objective: with the options to be checked.
        text: the documents that it reads: "plain", "pairs" or "both"; by default as `objective.reads_pairs` says.
        noise: least share of rows that must differ between epochs and seeds, such as 0.7; 0 does not check it.
        padded: whether full rows may hold padding; by default only where the objective has a reader of its own.
        shows_answers: whether the input shows answers on purpose, so that reading them off is no fault.
        lost: share of the text that may be neither in the input nor in the labels.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    contract = Contract(
        objective,
        text or ("pairs" if objective.reads_pairs else "plain"),
        noise,
        not objective.reads_stream if padded is None else padded,
        shows_answers,
        lost,
    )
    for check in CHECKS:
        check(contract)
    from pretextlm.testing.loss_check import check_loss_is_a_sum

    for architecture in objective.supported_architectures():
        check_loss_is_a_sum(contract, architecture)
