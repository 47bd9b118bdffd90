"""Classification tasks that can be distilled from a larger model (Hinton et al. 2015; Sanh et al. 2019).

    label          positive
    teacher        positive .93   negative .07        a run that was fine-tuned on the same classes
    student        is trained on both, the teacher's probabilities softened by a temperature T

The loss is weight_hard · the task's own + weight_soft · T² KL(teacher || student).

Axis letters: M classified items (examples, or labelled tokens), C classes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.objectives.protocol import Forward, Outputs
from pretextlm.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor

SOFT = "soft"
"""Name of the term that compares with the teacher."""


class DistilledTask(Task):
    """Base of the tasks with classes.

    Args:
        teacher: run directory of a model trained on the same task and classes; "" for none.
        temperature: T, by which both models' logits are divided before they are compared.
        weight_soft: weight of the divergence from the teacher.
        weight_hard: weight of the labels, where there is a teacher.
    """

    teacher: str = Field(default="", description="run of the same task to learn from; empty for none")
    temperature: float = Field(default=2.0, gt=0, description="by which scores are divided before they are compared")
    weight_soft: float = Field(default=0.5, ge=0, description="weight of the teacher's answers, where there is one")
    weight_hard: float = Field(default=0.5, ge=0, description="weight of the labels beside them")

    def class_scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (M, C) the logits of the classes."""
        raise NotImplementedError

    def frozen_models(self) -> dict[str, str]:
        """Returns the teacher's run directory."""
        return {"teacher": self.teacher} if self.teacher else {}

    def at_evaluation(self) -> Self:
        """Returns the task without the teacher, which may no longer exist."""
        return self.model_copy(update={"teacher": ""})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of classified items, once for the labels and once for the teacher."""
        own = self.own_counts(batch)
        return own | {SOFT: sum(own.values())} if self.teacher else own

    def own_counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of classified items, by the name of the task's own term."""
        raise NotImplementedError

    def step(self, forward: Forward, batch: Batch) -> dict[str, Term]:
        """Returns the task's own terms and the divergence from the teacher."""
        student = forward(batch)
        terms = self.terms(student, batch)
        if not self.teacher:
            return terms
        import torch
        from torch.nn import functional

        with torch.no_grad():
            teacher_MC = self.class_scores(forward(batch, "teacher"), batch).float()
        own_MC = self.class_scores(student, batch).float()
        own_MC, teacher_MC = ((scores / self.temperature).log_softmax(1) for scores in (own_MC, teacher_MC))
        # The gradient of the divergence falls with 1 / T²; the factor makes its size independent of T.
        total = self.temperature**2 * functional.kl_div(own_MC, teacher_MC, reduction="sum", log_target=True)
        terms = {name: dataclasses.replace(term, coefficient=self.weight_hard) for name, term in terms.items()}
        return terms | {SOFT: Term(total, len(own_MC), self.weight_soft)}
