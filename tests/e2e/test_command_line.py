"""The commands as a user gives them: what they print, where, and with which exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tests.builders import documents

pytestmark = pytest.mark.slow

SMALL = [
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "training.batch_tokens=1024",
]


@pytest.fixture
def result(command_line, place):
    return partial(result_of, command_line, place)


@pytest.fixture
def refused(command_line, place):
    return partial(refusal_of, command_line, place)


def result_of(command_line, cwd: Path, *arguments: object) -> dict:
    """What a command prints with --json: one object on stdout and nothing else there."""
    done = command_line.run(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal_of(command_line, cwd: Path, *arguments: object) -> str:
    """The error of a command that must refuse: exit code 2, one screen with a hint, no traceback."""
    done = command_line.run(*arguments, cwd=cwd)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr
    assert len(done.stderr.splitlines()) < 24
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a store and a recipe."""
    place = tmp_path_factory.mktemp("user")
    (place / "text").mkdir()
    for index, text in enumerate(documents(120)):
        (place / "text" / f"{index:03d}.txt").write_text(text)
    prepare = ["data", "prepare", "text", "--out", "store", "--vocab-size", "512", "--json"]
    command = [sys.executable, "-m", "pretextlm", *prepare]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, timeout=300)
    assert done.returncode == 0, done.stderr
    prepared = json.loads(done.stdout)
    assert prepared["splits"]["train"]["documents"] > 100
    (place / "recipe.toml").write_text(
        'name = "small"\n[data]\nstore = "store"\nlength = 64\n[objective]\nname = "causal"\n'
        "[training]\nbudget_steps = 30\nvalidations = 2\n"
    )
    return place


@pytest.mark.parametrize("objective", ["causal", "masked", "span_corruption"])
def test_from_text_to_answers_and_a_report(place, result, refused, objective):
    run = f"run-{objective}"
    overrides = [f"objective.name={objective}", "evaluation.blanks=10", *SMALL]
    trained = result("pretrain", "recipe.toml", *overrides, "--out", run)
    assert trained["last"]["train"]["loss"] < 6.5
    measured = result("evaluate", run)["metrics"]
    assert {"loss", "blank_choice_accuracy", "blank_log_likelihood", "blank_exact_match"} <= measured.keys()
    answers = result("fill", run, "The river carries ____ before dawn.")
    assert answers
    page = Path(place / result("report", run)["report"]).read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)\s*=\s*.?(https?:|//)|url\(|@import", page)
    if objective == "masked":
        assert "fill" in refused("generate", run, "The river")
    else:
        assert result("generate", run, "The river", "--max-new-tokens", 5)


def test_a_study_compares_and_goes_on_where_it_stopped(place, result, refused):
    (place / "study.toml").write_text(
        'name = "small"\nstore = "store"\nseeds = [1]\nlength = 64\nobjectives = ["causal", "masked"]\n'
        "[budget]\ntokens = 8000\n[model]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 2\n"
        "[training]\nbatch_tokens = 1024\n[evaluation]\nblanks = 8\nprompts = 1\n"
    )
    first = result("compare", "study.toml", "--out", "study")
    assert first["conditions"].keys() == {"causal", "masked"}
    before = (place / "study" / "runs" / "causal-seed1" / "evaluation.json").stat().st_mtime_ns
    again = result("compare", "study.toml", "--out", "study")
    assert again["conditions"] == first["conditions"]
    assert (place / "study" / "runs" / "causal-seed1" / "evaluation.json").stat().st_mtime_ns == before
    assert "another" in refused("compare", "study.toml", "budget.tokens=9000", "--out", "study")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pretrain", "nowhere.toml"], "nowhere.toml"),
        (["pretrain", "recipe.toml", "training.learning_rat=1"], "learning_rate"),
        (["pretrain", "recipe.toml", "training.learning_rate=fast"], "training.learning_rate"),
        (["pretrain", "recipe.toml", "objective.name=caussal"], "causal"),
        (["pretrain", "recipe.toml", "data.store=nowhere"], "nowhere"),
        (["pretrain", "recipe.toml", "model.hidden_size=30"], "divide"),
        (["evaluate", "text"], "not a run directory"),
        (["report", "text"], "text"),
        (["data", "inspect", "text"], "text"),
        (["data", "prepare", "nowhere", "--out", "x"], "nowhere"),
        (["data", "prepare", "text", "--out", "store"], "store"),
        (["data", "prepare", "text", "--out", "x", "--tokenizer", "bpee"], "bpe"),
        (["show", "maskd", "A sentence."], "masked"),
        (["quickstart", "--source", "package:no_such_package_here"], "no_such_package_here"),
    ],
)
def test_wrong_input_is_named_with_a_way_out(refused, arguments, says):
    assert says in refused(*arguments)


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="only where there is no CUDA device")
def test_an_absent_gpu_is_refused_before_anything_is_written(place, refused):
    assert "cuda" in refused("pretrain", "recipe.toml", "training.device=cuda", "--out", "on-gpu")
    assert not (place / "on-gpu").exists()


def test_two_runs_never_share_a_directory(place, command_line, refused):
    long = [
        "pretrain",
        "recipe.toml",
        "training.budget_steps=1000000",
        "training.log_every=1",
        *SMALL,
        "--out",
        "shared",
    ]
    first = command_line.start(*long, cwd=place)
    try:
        wait_for(place / "shared" / "metrics.jsonl")
        os.kill(first.pid, signal.SIGSTOP)  # it keeps the directory, and leaves the processor to the others
        assert f"process {first.pid}" in refused(*long)
        assert f"process {first.pid}" in refused(*long, "--resume")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_and_resume_goes_on(place, command_line, number, code):
    out = f"stopped-{number}"
    arguments = ["pretrain", "recipe.toml", "training.budget_steps=3000", *SMALL, "--out", out]
    command = command_line.start(*arguments, cwd=place)
    wait_for(place / out / "metrics.jsonl")
    command.send_signal(number)
    assert command.wait() == code, command.stderr
    assert "--resume" in command.stderr
    saved = list((place / out / "checkpoints").glob("step-*"))
    assert len(saved) == 1
    resumed = command_line.start(*arguments, "--resume", cwd=place)
    resumed.wait_for(f"resumed at step {int(saved[0].name.removeprefix('step-')):,}")
    resumed.send_signal(signal.SIGKILL)
    resumed.wait()


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path.name} never appeared")
