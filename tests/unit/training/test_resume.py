"""A run that was stopped anywhere and gone on with is the uninterrupted run, bit for bit, for every objective.

Each run is seven steps of two micro-batches and more, four to an epoch. A signal comes for real, at the place that is
tested; what is compared is everything that is on the disk at the end, apart from what the clock says.
"""

import signal

import numpy as np
import pytest
import torch

from pretextlm.objectives.registry import OBJECTIVES, build
from pretextlm.training.checkpoint import newest
from pretextlm.training.objective_module import ObjectiveModule
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.signals import Stopped
from pretextlm.training.trainer import Trainer

pytestmark = pytest.mark.slow

STEPS, STEPS_PER_EPOCH, MICRO_BATCHES = 7, 4, 2
POINTS = {
    "after the first step": (1,),
    "in the midst of a step": (3,),
    "at the end of an epoch": (STEPS_PER_EPOCH,),
    "twice within an epoch": (5, 6),
}
CLOCK = {"seconds", "tokens_per_second", "data_wait", "mfu", "memory", "device_seconds", "energy_joules"}


@pytest.fixture(scope="module", autouse=True)
def no_measurement_of_the_machine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretextlm.training.peak_flops.MEASURED_SECONDS", 0.0)
        patch.setattr("pretextlm.training.peak_flops.WIDTHS", {"cpu": 64})
        yield


def recipe(store, name: str, options: dict, optimizer: str) -> Recipe:
    """Rows of such a length that an epoch has a whole number of steps, and a step of micro-batches."""
    objective = build(name, options)
    for length in range(33, 64):
        reader = objective.reader(store.train, store.vocabulary, length)
        rows = int((reader.shuffled(np.arange(1000), 0)[1] == 0).sum())
        if rows % (STEPS_PER_EPOCH * MICRO_BATCHES) == 0:
            break
    tokens = rows // STEPS_PER_EPOCH * reader.tokens_per_row
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": length},
            "objective": {"name": name, **options},
            "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "training": {
                "budget_steps": STEPS,
                "batch_tokens": int(np.ceil(tokens)),
                "micro_batch_tokens": int(np.ceil(tokens / MICRO_BATCHES)),
                "optimizer": optimizer,
                "dtype": "fp32",
                "dropout": 0.1,
                "log_every": 2,
                "validations": 3,
                "validation_rows": 4,
            },
        }
    )


def stop_in_step(patch, number: int, amid: bool) -> None:
    """SIGTERM comes in the so-manyth step: after its first micro-batch, or when all of it is done."""
    step, forward = Trainer.step, ObjectiveModule.forward
    passed: list[int] = []

    def watched_step(self, *of):
        passed[:] = [self.state.step]
        done = step(self, *of)
        if self.state.step == number and not amid:
            signal.raise_signal(signal.SIGTERM)
        return done

    def watched_forward(self, batch):
        if amid and self.training and passed == [number - 1, 1]:
            signal.raise_signal(signal.SIGTERM)
        passed.append(1)
        return forward(self, batch)

    patch.setattr(Trainer, "step", watched_step)
    patch.setattr(ObjectiveModule, "forward", watched_forward)


def on_disk(run: Run) -> tuple[dict, list, dict]:
    """(weights and optimizer's state, lines of metrics.jsonl, the trainer's other state)."""
    found = newest(run.checkpoints)
    tensors = found.model() | {f"optimizer {name}": tensor for name, tensor in found.optimizer().items()}
    lines = [without_clock(line) for line in run.metrics()]
    return tensors, lines, without_clock(found.state | {"window": without_clock(found.state["window"])})


def without_clock(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in CLOCK}


def assert_the_same(one: Run, other: Run) -> None:
    (mine, my_lines, my_state), (theirs, their_lines, their_state) = on_disk(one), on_disk(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert my_lines == their_lines
    assert my_state == their_state


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Runs by objective and optimizer, made when they are asked for."""
    place, made = tmp_path_factory.mktemp("whole"), {}

    def run(chosen: Recipe) -> Run:
        key = f"{chosen.training_objective.name}-{chosen.training.optimizer}"
        if key not in made:
            made[key] = pretrain(chosen, place / key)
        return made[key]

    return run


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("objective", "optimizer"), [*((name, "muon") for name in OBJECTIVES), ("causal", "adamw")])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    some_of_all, options_of, uninterrupted, tmp_path, objective, optimizer, point
):
    chosen = recipe(some_of_all, objective, options_of(objective), optimizer)
    whole = uninterrupted(chosen)
    for number in POINTS[point]:
        with pytest.MonkeyPatch.context() as patch:
            stop_in_step(patch, number, amid="midst" in point)
            with pytest.raises(Stopped):
                pretrain(chosen, tmp_path / "cut", resume=True)
        assert newest(Run.open(tmp_path / "cut").checkpoints).step == number
    assert_the_same(whole, pretrain(chosen, tmp_path / "cut", resume=True))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_steps_of_these_runs_end_where_the_epoch_does(some_of_all, options_of, objective):
    chosen = recipe(some_of_all, objective, options_of(objective), "muon")
    reader = chosen.training_objective.reader(some_of_all.train, some_of_all.vocabulary, chosen.data.length)
    rows = STEPS_PER_EPOCH * int(chosen.training.batch_tokens // reader.tokens_per_row)
    numbers, epochs = reader.shuffled(np.arange(2 * rows), chosen.seed)
    if len(reader.groups(numbers)) == 1:
        assert epochs[:rows].tolist() == [0] * rows
        assert epochs[rows] == 1
    else:  # several shapes are mixed, and each has epochs of its own
        assert 0 in epochs[:rows]
        assert 1 in epochs[rows:]
