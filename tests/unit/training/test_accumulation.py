"""The gradient of a step is the same however its rows are cut into micro-batches, for every objective."""

from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.training.corpus import Corpus
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Runtime
from pretextlm.training.trainer import Trainer

pytestmark = pytest.mark.slow

ROWS = 12
TOLERANCE = 1e-6
"""Largest difference of a weight's gradient from that of the whole step, of their norms."""


def recipe(store, name: str, options: dict) -> Recipe:
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 40},
            "objective": {"name": name, **options},
            "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "training": {"budget_steps": 1, "batch_tokens": 512, "dtype": "fp32", "validations": 0, "dropout": 0.1},
        }
    )


class Cutter:
    """One step of an objective, and its gradients for any cut of it."""

    def __init__(self, store, place, name: str, options: dict) -> None:
        self.recipe = recipe(store, name, options).with_vocabulary(store.vocabulary)
        plan = make_plan(self.recipe, Corpus.of_store(self.recipe, store), torch.device("cpu"))
        runtime = Runtime.choose(self.recipe.training, 0.0)
        self.trainer = Trainer(Run(place, self.recipe), Corpus.of_store(self.recipe, store), plan, runtime, Silent())
        torch.manual_seed(0)
        with torch.no_grad():  # projections that begin at zero would hide faults
            for parameter in self.trainer.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        self.loader = make_loader(self.recipe, Corpus.of_store(self.recipe, store), None)

    def gradients(self, places: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
        """(loss, gradients by name) with cuts before the rows at these places."""
        cuts = [0, *sorted(places), ROWS]
        batches = [batch for a, b in pairwise(cuts) for batch in self.loader.step(a, b - a, b - a)]
        if self.recipe.training_objective.name == "masked":  # unequal counts, and in some pieces none at all
            for batch in batches:
                batch.labels[batch.example_ids % 3 == 0] = -100
        loss = sum(self.trainer.gradients(batches).values())
        found = {n: p.grad.clone() for n, p in self.trainer.model.named_parameters() if p.grad is not None}
        self.trainer.model.zero_grad()
        return loss, found


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradients_do_not_depend_on_how_a_step_is_cut(some_of_all, options_of, tmp_path, objective):
    cutter = Cutter(some_of_all, tmp_path, objective, options_of(objective))
    loss, whole = cutter.gradients([])
    worst = []

    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sets(st.integers(1, ROWS - 1)))
    def holds(places):
        found_loss, found = cutter.gradients(list(places))
        assert found_loss == pytest.approx(loss, rel=TOLERANCE)
        assert found.keys() == whole.keys()
        worst.append(max(difference(found[name], whole[name]) for name in whole))
        assert worst[-1] <= TOLERANCE

    holds()
    holds.hypothesis.inner_test(range(1, ROWS))  # every row by itself
    print(f"{objective}: largest difference {max(worst):.1e}")


def difference(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Of two gradients, as a share of the second one's norm."""
    return float((mine - theirs).norm() / theirs.norm().clamp_min(1e-30))
