"""The held-out loss before and after compression, on the same rows under the same noise.

It is the loss of `pretextlm evaluate`. Since the rows are the same, their difficulty cancels in the difference, whose
standard error is far below that of either loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.evaluation.held_out_metrics import HeldOut
from pretextlm.evaluation.trained_model import open_store
from pretextlm.metric import Metric, weighted_ratios
from pretextlm.model.transformer import Transformer, meta_model
from pretextlm.training.held_out import held_out_documents
from pretextlm.training.run_directory import Run

if TYPE_CHECKING:
    from pretextlm.model.config import ModelConfig
    from pretextlm.objectives.base import Objective

NO_STORE = "the run has no store of text prepared with its tokenizer; give one with --store"


@dataclass(frozen=True)
class Losses:
    """Held-out losses in nats per target.

    Attributes:
        before, after: of the original and of the compressed model.
        change: after minus before, with the standard error of the paired difference.
    """

    before: Metric
    after: Metric
    change: Metric

    def plain(self) -> dict[str, Any]:
        return {name: getattr(self, name).plain() for name in ("before", "after", "change")}

    def __str__(self) -> str:
        return f"{_shown(self.before)} → {_shown(self.after)} nats per target; change {_shown(self.change, '+')}"


@dataclass(frozen=True)
class LossComparison:
    """The held-out rows of a run, with the loss of its own weights on each."""

    run: Run
    held_out: HeldOut

    @classmethod
    def of(cls, run: Run, model: Transformer, store: Path | None = None) -> LossComparison:
        """Measure the run's own model.

        Returns:
            The comparison, ready for other weights.

        Raises:
            UserError: there is no store, it has another tokenizer, or it has no rows for the objective.
        """
        if store is None and not (run.recipe.data.store and Path(run.recipe.data.store).is_dir()):
            raise UserError(NO_STORE)
        opened, recipe = open_store(run, store), run.recipe
        objective = cast("Objective", recipe.training_objective.at_evaluation())
        full = objective.documents(opened.validation)
        split = held_out_documents(full, recipe.evaluation)
        held_out = HeldOut(
            model=model.eval(),
            objective=objective,
            vocabulary=run.vocabulary,
            split=split,
            length=recipe.data.length,
            seed=recipe.evaluation.seed,
            full_split=full,
        )
        if held_out.loss is None:
            raise UserError("the held-out text has nothing to predict under the run's objective")
        return cls(run, held_out)

    def compare(self, config: ModelConfig, weights: Mapping[str, Tensor]) -> Losses:
        """Returns the losses of the run's own weights and of other weights, whose model may be smaller."""
        after = replace(self.held_out, model=model_of(self.run, config, weights))
        before_loss, after_loss = self.held_out.loss, after.loss
        assert before_loss is not None, "checked when it was made"
        assert after_loss is not None, "the rows are the same"
        coefficients = {name: term.coefficient for unit in after.units for name, term in unit.terms.items()}
        parts = []
        for name, coefficient in coefficients.items():
            totals, counts = after.sums(name)
            if counts.sum():
                parts.append((totals - self.held_out.sums(name)[0], counts, coefficient))
        change = weighted_ratios(parts, "nats", "lower", after.rows.clusters)
        return Losses(before_loss, after_loss, change)


def model_of(run: Run, config: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
    """Returns the run's model with other weights, in evaluation mode."""
    model = meta_model(config, run.recipe.training_objective.heads)
    model.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return model.eval()


def _shown(metric: Metric, sign: str = "") -> str:
    error = "" if metric.stderr is None else f" ± {metric.stderr:.4f}"
    return f"{metric.value:{sign}.4f}{error}"
