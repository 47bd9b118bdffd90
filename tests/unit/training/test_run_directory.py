"""A run directory belongs to one process, one recipe and one story."""

import json
import subprocess
import sys

import pytest

from pretextlm.errors import UserError
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run, locked

VALUES = {
    "data": {"store": "somewhere"},
    "objective": {"name": "masked", "rate": 0.3},
    "training": {"budget_steps": 5},
}


def new_run(directory):
    tokenizer = directory / "tokenizer.json"
    tokenizer.write_text("{}")
    return Run.create(directory / "run", Recipe.load(VALUES), {"python": "3"}, tokenizer)


def test_a_recipe_written_to_the_run_reads_back_equal(tmp_path):
    run = new_run(tmp_path)
    assert Run.open(run.directory).recipe == run.recipe
    assert Run.open(run.directory).recipe.training_objective.rate == 0.3


def test_a_run_from_before_an_option_existed_has_its_default_whatever_a_new_recipe_gets(tmp_path):
    recipe = Recipe.load({**VALUES, "objective": "span_corruption", "model": {"sentinel_states": False}})
    assert Recipe.load({**VALUES, "objective": "span_corruption"}).model.sentinel_states
    (tmp_path / "tokenizer.json").write_text("{}")
    run = Run.create(tmp_path / "run", recipe, {"python": "3"}, tmp_path / "tokenizer.json")
    config = run.directory / "config.toml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("sentinel_")]
    config.write_text("\n".join(lines))
    (run.directory / "run.json").unlink()
    assert Run.open(run.directory).recipe == recipe


def test_what_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        Run.open(tmp_path)


def test_a_second_process_is_told_who_holds_the_run_and_a_dead_one_holds_nothing(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pretextlm.training.run_directory import locked\n"
        "with locked(Path(sys.argv[1])):\n print('held', flush=True)\n time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError, match=f"process {holder.pid}"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path):
        pass


def test_what_killed_writers_left_goes_and_what_others_write_stays(tmp_path):
    run = new_run(tmp_path)
    for name in (".metrics.jsonl.7.partial", ".cost.json.7.partial", ".evaluation.json.7.partial"):
        (run.directory / name).write_text("")
    run.sweep()
    assert [path.name for path in run.directory.glob(".*")] == [".evaluation.json.7.partial"]


def test_metrics_after_the_checkpoint_are_dropped_and_a_line_cut_by_a_kill_is_no_line(tmp_path):
    run = new_run(tmp_path)
    lines = [json.dumps({"kind": "train", "step": step}) + "\n" for step in (1, 2, 3)]
    (run.directory / "metrics.jsonl").write_text("".join(lines) + '{"kind": "tr')
    assert [m["step"] for m in run.metrics()] == [1, 2, 3]
    run.rewind_metrics(2)
    assert [m["step"] for m in run.metrics()] == [1, 2]


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(UserError, match="no checkpoint"):
        new_run(tmp_path).load_model()
