"""The models of a run behind one call: the trained one, those trained jointly with it, and frozen ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pretextlm.batch import Batch
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Outputs, Transformer

if TYPE_CHECKING:
    from pretextlm.objectives.protocol import TrainingObjective


class Forward:
    """`forward(batch)` runs the trained model, `forward(batch, role)` another one that the objective needs.

    A role is the name of a Transformer among the model's heads (trained jointly with it), or a key of the objective's
    `frozen_models` (a run directory whose weights are loaded here).

    Args:
        model: the model that is trained or evaluated.
        objective: its `frozen_models` are loaded.
        device: of the model and its inputs.
        dtype: of the activations.

    Raises:
        UserError: a frozen model's run cannot be opened.
    """

    def __init__(
        self, model: Transformer, objective: TrainingObjective, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.device, self.dtype = device, dtype
        self.models = {"model": model}
        self.models |= {name: head for name, head in model.heads.items() if isinstance(head, Transformer)}
        for role, place in objective.frozen_models().items():
            self.models[role] = load_frozen(Path(place), device)

    def __call__(self, batch: Batch, role: str = "model") -> Outputs:
        model = self.models[role]
        outputs: Outputs = model(prepare(batch, model.config, self.device, self.dtype))
        return outputs


def load_frozen(place: Path, device: torch.device) -> Transformer:
    """Loads the newest weights of a run, without gradients.

    Raises:
        UserError: the directory is not a run, or has no checkpoint.
    """
    from pretextlm.training.run_directory import Run

    return Run.open(place).load_model(device).requires_grad_(False)
