"""Kills, signals, lost and hanging processes, crowds: whatever happens to a training, the run goes on and ends as if
nothing had. PRETEXTLM_FAULTS=full repeats it as often as `make faults` does.
"""

import shutil

import pytest
from tests.builders import make_store
from tests.faults.harness import FULL, Harness

pytestmark = pytest.mark.slow

KILLS, SEEDS = (200, 3) if FULL else (10, 1)
CALLS = 100 if FULL else 8
READS = 300 if FULL else 18
KILLS_OF_TWO = 40 if FULL else 4
STEPS = 50 if FULL else 20
INSTANTS = (
    {"step": 9, "validation": 5, "data": 2, "save": 4} if FULL else {"step": 2, "validation": 1, "data": 1, "save": 1}
)
IN_SAVES = 0.2
"""Share of the kills that must fall into a save: a fault that never landed proves nothing."""
EXIT_SECONDS = 5.0
PATIENCE = 3
"""Seconds that processes wait for one that hangs."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return str(make_store(tmp_path_factory.mktemp("data") / "store").path)


@pytest.fixture(scope="module")
def measure(store):
    """Makes an experiment with this store: all in one process, which imports torch but once."""
    with Harness() as harness:
        yield lambda experiment, **options: harness.measure(experiment, store=store, **options)


def test_a_run_that_is_killed_at_any_instant_ends_as_the_uninterrupted_one(measure, tmp_path):
    found = measure("kills.alone", place=str(tmp_path), kills=KILLS, seeds=SEEDS, steps=STEPS)
    assert found["kills"] == KILLS
    assert found["differ"] == []
    if FULL:
        assert found["in a save"] >= IN_SAVES * KILLS


def test_a_kill_at_any_call_of_the_file_system_loses_no_best_weights(measure, tmp_path):
    found = measure("kills.at_calls", place=str(tmp_path), kills=CALLS)
    assert found["unnamed"] == []
    assert found["differ"] == []
    if FULL:
        assert found["between best and checkpoint"] >= 20


def test_a_run_that_saves_at_every_step_can_be_read_meanwhile(measure, tmp_path):
    found = measure("readers.while_training", place=str(tmp_path), reads=READS)
    assert found["wrong"] == []
    assert found["steps"] > READS


def test_when_one_of_two_processes_is_killed_the_other_says_so_and_the_run_goes_on(measure, tmp_path):
    found = measure("kills.one_of_two", place=str(tmp_path), kills=KILLS_OF_TWO, ways=["ddp", "zero3"])
    assert found["kills"] == KILLS_OF_TWO
    assert found["unclear"] == []
    assert found["differ"] == []


def test_a_signal_at_any_instant_leaves_a_checkpoint_within_seconds(measure, tmp_path):
    found = measure("signals.stopped", place=str(tmp_path), instants=INSTANTS)
    assert found["wrong"] == []
    assert found["instants"] == sum(INSTANTS.values())
    assert max(found["slowest exit"].values()) <= EXIT_SECONDS


@pytest.mark.skipif(not FULL, reason="cold compilations take long")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
def test_a_signal_while_compiling_leaves_a_checkpoint_within_seconds(measure, tmp_path):
    found = measure("signals.stopped", place=str(tmp_path), instants={"compile": 3})
    assert found["wrong"] == []
    assert found["slowest exit"]["compile"] <= EXIT_SECONDS


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
@pytest.mark.parametrize(
    ("way", "seconds", "to", "least", "most"),
    [
        pytest.param("ddp", [60, 60], [0, 1], 0, EXIT_SECONDS, id="all leave at once"),
        pytest.param("ddp", [2, 60], [1], 2, 2 + EXIT_SECONDS, id="one waits until the other has compiled"),
        pytest.param("zero3", [2, 2], [0, 1], 2, 2 + EXIT_SECONDS, id="of weights in parts all compile first"),
    ],
)
def test_a_signal_while_several_processes_compile_ends_them_promptly(measure, tmp_path, way, seconds, to, least, most):
    found = measure("signals.compiling_together", place=str(tmp_path), way=way, seconds=seconds, to=to)
    assert found["codes"] == [143, 143]
    assert least <= found["seconds"] <= most
    assert found["steps"] == ["step-00000000"]
    assert found["same"]


def test_of_twenty_simultaneous_starts_one_wins_and_the_others_name_it(measure, tmp_path):
    found = measure("starts.crowd", place=str(tmp_path), count=20)
    assert found["codes"] == [0] + [2] * 19
    assert f"process {found['winner']} on " in found["refused"][0]
    assert len(set(found["refused"])) == 1
    assert found["stale"] not in found["refused"][0]
    assert found["most work"] < 1.0  # of a processor; twenty share what there is


def test_when_one_process_hangs_all_end_in_time_and_say_what_their_threads_were_doing(measure, tmp_path):

    found = measure("starts.hang", place=str(tmp_path), patience=PATIENCE)
    assert found["codes"] == [2, 2]
    assert found["seconds"] < 4 * PATIENCE
    assert "Rank 0 of 2 waited 3 seconds for the other processes" in found["said"][0]
    assert "Rank 1 has made no step for 3 seconds" in found["said"][1]
    assert "all_gather" in found["stacks"][0]
    assert "falls_asleep" in found["stacks"][1]
    for rank, said in enumerate(found["said"]):
        assert f"stacks-rank{rank}.txt" in said
        assert "--resume" in said


def test_a_process_whose_fellow_never_starts_says_so(measure, tmp_path):
    found = measure("starts.alone_of_two", place=str(tmp_path), patience=2)
    assert found["code"] == 2
    assert "Rank 0 of 2 cannot reach the others" in found["said"]
    assert found["seconds"] < 20


def test_a_process_whose_fellow_is_killed_while_they_join_says_so_soon(measure, tmp_path):
    found = measure("starts.killed_while_joining", place=str(tmp_path), patience=2)
    assert found["codes"] == [2, -9]
    assert "Rank 0 of 2 cannot reach the others, for which it waits 2 seconds (training.join_seconds)" in found["said"]
    assert found["seconds"] < 20


def test_once_they_have_joined_processes_have_the_patience_that_the_recipe_says(measure, tmp_path):
    found = measure("starts.slow", place=str(tmp_path), patience=3)
    assert found["codes"] == [0, 0], found["said"]


def test_when_the_data_of_one_process_is_damaged_it_says_so_and_the_other_leaves(measure, tmp_path):
    found = measure("starts.one_fails", place=str(tmp_path), patience=30)
    assert found["codes"] == [2, 2]
    assert "lost another process" in found["said"][0]
    assert "tokens.bin is damaged" in found["said"][1]
    assert found["seconds"] < 30


def test_a_fault_of_the_first_process_ends_the_others_with_its_name(measure, tmp_path):
    found = measure("starts.first_fails", place=str(tmp_path), patience=30)
    assert found["codes"] == [1, 2]
    assert "ZeroDivisionError: a fault of ours" in found["said"][0]
    assert "The main process failed: ZeroDivisionError: a fault of ours." in found["said"][1]
