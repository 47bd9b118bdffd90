"""The commands as a user gives them: what they print, where, and with which exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.builders import documents

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
SMALL = [
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "training.batch_tokens=1024",
]


def pretextlm(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pretextlm.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=300, **options)


def result(*arguments: object, cwd: Path) -> dict:
    """What a command prints with --json: one object on stdout and nothing else there."""
    done = pretextlm(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*arguments: object, cwd: Path) -> str:
    """The error of a command that must refuse: exit code 2, one screen with a hint, no traceback."""
    done = pretextlm(*arguments, cwd=cwd)
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
    prepared = result("data", "prepare", "text", "--out", "store", "--vocab-size", 512, cwd=place)
    assert prepared["splits"]["train"]["documents"] > 100
    (place / "recipe.toml").write_text(
        'name = "small"\n[data]\nstore = "store"\nlength = 64\n[objective]\nname = "causal"\n'
        "[training]\nbudget_steps = 30\nvalidations = 2\n"
    )
    return place


@pytest.mark.parametrize("objective", ["causal", "masked", "span_corruption"])
def test_from_text_to_answers_and_a_report(place, objective):
    run = f"run-{objective}"
    overrides = [f"objective.name={objective}", "evaluation.blanks=10", *SMALL]
    trained = result("pretrain", "recipe.toml", *overrides, "--out", run, cwd=place)
    assert trained["last"]["train"]["loss"] < 6.5
    measured = result("evaluate", run, cwd=place)["metrics"]
    assert {"loss", "blank_choice_accuracy", "blank_log_likelihood", "blank_exact_match"} <= measured.keys()
    answers = result("fill", run, "The river carries ____ before dawn.", cwd=place)
    assert answers
    page = Path(place / result("report", run, cwd=place)["report"]).read_text()
    assert "<script" not in page
    assert not re.search(r"(src|href)\s*=\s*.?(https?:|//)|url\(|@import", page)
    if objective == "masked":
        assert "fill" in refused("generate", run, "The river", cwd=place)
    else:
        assert result("generate", run, "The river", "--max-new-tokens", 5, cwd=place)


def test_a_study_compares_and_goes_on_where_it_stopped(place):
    (place / "study.toml").write_text(
        'name = "small"\nstore = "store"\nseeds = [1]\nlength = 64\nobjectives = ["causal", "masked"]\n'
        "[budget]\ntokens = 8000\n[model]\nhidden_size = 32\nnum_hidden_layers = 2\nnum_attention_heads = 2\n"
        "[training]\nbatch_tokens = 1024\n[evaluation]\nblanks = 8\nprompts = 1\n"
    )
    first = result("compare", "study.toml", "--out", "study", cwd=place)
    assert first["conditions"].keys() == {"causal", "masked"}
    before = (place / "study" / "runs" / "causal-seed1" / "evaluation.json").stat().st_mtime_ns
    again = result("compare", "study.toml", "--out", "study", cwd=place)
    assert again["conditions"] == first["conditions"]
    assert (place / "study" / "runs" / "causal-seed1" / "evaluation.json").stat().st_mtime_ns == before
    assert "another" in refused("compare", "study.toml", "budget.tokens=9000", "--out", "study", cwd=place)


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
def test_wrong_input_is_named_with_a_way_out(place, arguments, says):
    assert says in refused(*arguments, cwd=place)


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="only where there is no CUDA device")
def test_an_absent_gpu_is_refused_before_anything_is_written(place):
    assert "cuda" in refused("pretrain", "recipe.toml", "training.device=cuda", "--out", "on-gpu", cwd=place)
    assert not (place / "on-gpu").exists()


def test_two_runs_never_share_a_directory(place):
    long = ["pretrain", "recipe.toml", "training.budget_steps=1000000", *SMALL, "--out", "shared"]
    command = [sys.executable, "-m", "pretextlm.cli.main", *long]
    first = subprocess.Popen(command, cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(place / "shared" / "metrics.jsonl")
        assert f"process {first.pid}" in refused(*long, cwd=place)
        assert f"process {first.pid}" in refused(*long, "--resume", cwd=place)
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_and_resume_goes_on(place, number, code):
    out = f"stopped-{number}"
    arguments = ["pretrain", "recipe.toml", "training.budget_steps=3000", *SMALL, "--out", out]
    command = [sys.executable, "-m", "pretextlm.cli.main", *arguments]
    process = subprocess.Popen(command, cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    wait_for(place / out / "metrics.jsonl")
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert "--resume" in errors
    saved = list((place / out / "checkpoints").glob("step-*"))
    assert len(saved) == 1
    resumed = subprocess.Popen([*command, "--resume"], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    time.sleep(0.1)
    wait_for_line(resumed, f"resumed at step {int(saved[0].name.removeprefix('step-')):,}")
    resumed.kill()
    resumed.communicate()


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path.name} never appeared")


def wait_for_line(process: subprocess.Popen, text: str) -> None:
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"never said: {text}")
