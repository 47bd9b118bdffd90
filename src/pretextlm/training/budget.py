"""The budget of a training: its unit, its size, and all arithmetic between it and steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

BudgetKind = Literal["steps", "tokens", "epochs", "flops", "seconds"]

TYPICAL_FLOPS_PER_SECOND = 2e11
"""Two CPU cores in fp32. Used only to estimate whether compiling pays under a budget that is not in seconds."""


class StepCost(Protocol):
    """Cost of a step: rows, text tokens and floating-point operations; and the rows of one pass over the data."""

    @property
    def rows(self) -> int: ...

    @property
    def rows_per_pass(self) -> int: ...

    @property
    def tokens_per_step(self) -> float: ...

    @property
    def flops_per_step(self) -> float: ...


@dataclass(frozen=True)
class Budget:
    """How long a run trains.

    Attributes:
        kind: unit of the budget.
        size: amount in that unit.
    """

    kind: BudgetKind
    size: float

    def used(self, cost: StepCost, step: int, flops: float, seconds: float) -> float:
        """Returns the share of the budget that is used, at most 1.

        Args:
            cost: of a step.
            step: steps done.
            flops: floating-point operations done.
            seconds: seconds of training.
        """
        amounts = self._amounts(cost, step)
        return min(1.0, {**amounts, "flops": flops, "seconds": seconds}[self.kind] / self.size)

    def step_share(self, cost: StepCost) -> float:
        """Returns the share of the budget that the first step uses, taken as 1 % for a budget in seconds."""
        return self.used(cost, 1, cost.flops_per_step, 0.01 * self.size)

    def per_step(self, cost: StepCost, seconds_per_step: float | None = None) -> float | None:
        """Returns the amount that one step uses; None for a budget in seconds without a measured step."""
        if self.kind == "seconds":
            return seconds_per_step
        return {**self._amounts(cost, 1), "flops": cost.flops_per_step}[self.kind]

    def steps(self, cost: StepCost, seconds_per_step: float | None = None) -> int | None:
        """Returns the steps of the whole run; None for a budget in seconds without a measured step."""
        per_step = self.per_step(cost, seconds_per_step)
        # A tiny tolerance keeps rounding from adding a step to a budget that is an exact multiple of one.
        return None if per_step is None else max(1, math.ceil(self.size / per_step - 1e-9))

    def rows(self, rows_per_step: int, tokens_per_row: float, flops_per_row: float, rows_per_pass: int) -> float | None:
        """Returns the rows of the whole run; None for a budget in seconds."""
        per_row = {
            "steps": 1 / rows_per_step,
            "tokens": tokens_per_row,
            "epochs": 1 / rows_per_pass,
            "flops": flops_per_row,
        }
        return self.size / per_row[self.kind] if self.kind != "seconds" else None

    def expected_seconds(self, cost: StepCost) -> float:
        """Returns an estimate of the seconds of training on a typical CPU."""
        per_step = self.per_step(cost)
        if per_step is None:
            return self.size
        return self.size / per_step * cost.flops_per_step / TYPICAL_FLOPS_PER_SECOND

    @staticmethod
    def _amounts(cost: StepCost, step: int) -> dict[BudgetKind, float]:
        """Returns the amounts that follow from the number of steps alone."""
        return {
            "steps": step,
            "tokens": step * cost.tokens_per_step,
            "epochs": step * cost.rows / cost.rows_per_pass,
        }
