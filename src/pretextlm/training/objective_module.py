"""The objective and its models as one module: a batch in, summed losses out.

One module means one call for everything that spreads a model over devices: weights are there whole for as long as the
call lasts, also those that only the loss reads, and for objectives that call several models.
"""

from __future__ import annotations

from torch import Tensor, nn

from pretextlm.batch import Batch, Term
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.training.forward import Forward


class ObjectiveModule(nn.Module):
    """Attributes: model: what is trained."""

    def __init__(self, model: Transformer, objective: TrainingObjective, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._objective, self._forward = objective, forward

    def forward(
        self, batch: Batch, way: tuple[TrainingObjective, Forward] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Term]]:
        """(each term's total, the terms): totals by themselves, since wrappers look for tensors in plain containers.

        Args:
            way: another objective and another forward of the same model, by which it is measured.
        """
        objective, forward = way or (self._objective, self._forward)
        terms = objective.step(forward, batch)
        return {name: term.total for name, term in terms.items()}, dict(terms)
