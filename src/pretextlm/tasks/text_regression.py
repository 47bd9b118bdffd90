"""One number for a text, or for a pair of texts: the similarity of two sentences (STS), the rating of a review.

    {"sentence1": "A plane is taking off.", "sentence2": "An air plane is taking off.", "score": 5.0}

Trained by the squared error of the number, standardised by the training labels' mean and standard deviation, so that
one learning rate suits any unit; answers are in the labels' own unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import HEAD
from pretextlm.tasks.shared.labels import named_labels
from pretextlm.tasks.shared.text_input import TextTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.examples import Examples
    from pretextlm.data.offset_mapping import OffsetTokenizer
    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import TaskClass


OUT = f"{HEAD}out."

PROBLEM_TYPE = "regression"
"""transformers' name of this kind of output."""


class TextRegression(TextTask):
    """Regression of a number from a text.

    Args:
        text, text_pair, wording, marks, label, head: as for :class:`TextTask`; a label is a number.
        mean: of the training labels; computed.
        spread: standard deviation of the training labels; computed.
    """

    name: ClassVar[str] = "text_regression"
    title: ClassVar[str] = "Text regression"
    paper: ClassVar[str] = "Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    summary: ClassVar[str] = "Gives a number to a text, or to a pair of texts."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman")

    mean: float = Field(default=0.0, description="of the training labels; computed")
    spread: float = Field(default=0.0, ge=0, description="standard deviation of the training labels; computed")

    def fit_labels(self, records: Records) -> Self:
        """Returns the task with the mean and standard deviation of the labels.

        Raises:
            UserError: all labels are equal.
        """
        values = np.asarray(records.numbers("label"))
        if not values.std():
            raise UserError(f"All labels of {records.source} are {values[0]:g}.", "Give records with different labels.")
        return self.model_copy(update={"mean": float(values.mean()), "spread": float(values.std())})

    def labels_of(self, records: Records) -> NDArray[Any]:
        """Returns (E,) the standardised labels."""
        return ((np.asarray(records.numbers("label")) - self.mean) / (self.spread or 1.0)).astype(np.float32)

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns a head with one output."""
        from pretextlm.tasks.shared.heads import SequenceHead

        return {"task": SequenceHead(config, 1, self.head or "tanh")}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of examples."""
        return {"number": len(batch.row_labels)}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the squared error in units of the labels' variance."""
        import torch

        found_E = self.head_scores(outputs, batch).squeeze(1)
        labels_E = torch.from_numpy(batch.row_labels).to(found_E.device, non_blocking=True)
        return {"number": Term((found_E - labels_E).square().sum(), len(labels_E))}

    def head_of_same_task(self, other: Self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the weights in the unit of this task's labels.

        A head computes y = (label - mean) / spread. With m, s of the other task and m', s' of this one,
        y' = (y · s + m - m') / s' = y · (s / s') + (m - m') / s': its last layer is scaled and its bias shifted.
        """
        scale, shift = other.spread / self.spread, (other.mean - self.mean) / self.spread
        out = {name: t * scale if name.startswith(OUT) else t for name, t in weights.items()}
        if f"{OUT}bias" in out:
            out[f"{OUT}bias"] = out[f"{OUT}bias"] + shift
        return out

    def check_head_class(self, head: TaskClass) -> None:
        super().check_head_class(head)
        if not head.bias and self.mean:
            raise UserError(
                f"{head.theirs} adds no constant to its score, so that the labels' mean {self.mean:g} has no place in "
                "it.",
                "Take the mean from the labels before training, or fine-tune an encoder.",
            )

    def published_head(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the weights whose output is a label: y · spread + mean is linear in the last layer."""
        out = {name: t * self.spread if name.startswith(OUT) else t for name, t in weights.items()}
        if f"{OUT}bias" in out:
            out[f"{OUT}bias"] = out[f"{OUT}bias"] + self.mean
        return out

    def published_values(self) -> dict[str, Any]:
        return {**named_labels((self.label,)), "problem_type": PROBLEM_TYPE}

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        if outputs != 1 or (values.get("problem_type") or PROBLEM_TYPE) != PROBLEM_TYPE:
            return None
        return cls(head=head.form, mean=0.0, spread=1.0)

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns (E,) numbers in the labels' unit."""
        found: NDArray[Any] = self.head_scores(outputs, batch).squeeze(1).cpu().numpy()
        return found * self.spread + self.mean

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the numbers."""
        return [float(value) for value in predictions]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns the mean of the training labels."""
        return {"label": [self.mean] * len(records)}

    def references(self, records: Records) -> list[Any]:
        """Returns the labels."""
        return [float(value) for value in records.numbers("label")]
