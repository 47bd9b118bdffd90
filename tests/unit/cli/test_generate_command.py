"""`generate` as a user runs it: prompts from files, examples, searches, stop strings."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from pretextlm.cli import generate as command
from pretextlm.errors import UserError
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from pretextlm.cli import data

    place = tmp_path_factory.mktemp("place")
    text = "\n".join(f"The {n * 7 % 31}th boat went to the {n * 5 % 23}th island." for n in range(200))
    (place / "boats.txt").write_text(text)
    app = typer.Typer()
    app.command()(data.prepare)
    options = [
        "--text-mode",
        "lines",
        "--vocab-size",
        "448",
        "--validation",
        "0.1",
        "--licence",
        "CC0-1.0",
        "--out",
        str(place / "store"),
    ]
    made = CliRunner().invoke(app, [str(place / "boats.txt"), *options], catch_exceptions=False)
    assert made.exit_code == 0
    recipe = {
        "data": {"store": str(place / "store"), "length": 32},
        "objective": {"name": "causal"},
        "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "training": {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "compile": "off", "validations": 0},
    }
    pretrain(Recipe.load(recipe), place / "run")
    return place / "run"


@pytest.fixture
def run(trained):
    app = typer.Typer()
    app.command()(command.generate)

    def invoke(*arguments):
        options = [str(argument) for argument in (trained, *arguments, "--max-new-tokens", 6)]
        done = CliRunner().invoke(app, options, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    return invoke


def texts(run, *arguments) -> list[str]:
    return json.loads(run(*arguments, "--json"))["texts"]


def test_the_same_seed_writes_the_same_texts_and_each_sample_is_another(run):
    options = ["The boat", "--samples", 4, "--temperature", 3]
    first = texts(run, *options)
    assert texts(run, *options) == first
    assert texts(run, *options, "--seed", 1) != first
    assert len(set(first)) == 4


def test_every_prompt_of_a_file_is_continued(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("The boat\n\nThe 3th island went\n")
    (tmp_path / "prompts.jsonl").write_text('"The boat"\n{"prompt": "The 3th island went"}\n')
    plain, lines = (
        json.loads(run("--prompts", tmp_path / name, "--temperature", 0, "--json"))["results"]
        for name in ("prompts.txt", "prompts.jsonl")
    )
    assert plain == lines
    assert [one["prompt"] for one in plain] == ["The boat", "The 3th island went"]
    assert plain[0]["texts"] == texts(run, "The boat", "--temperature", 0)


def test_examples_stand_before_the_prompt(run, tmp_path):
    (tmp_path / "examples.tsv").write_text("boat\tisland\nriver\tbridge\n")
    asked = ["--temperature", 0]
    whole = "boat=island;\nriver=bridge;\nsea="
    template = ["--examples", tmp_path / "examples.tsv", "--template", r"{input}={target};\n"]
    (answer,) = texts(run, "sea", *template, *asked)
    (expected,) = texts(run, whole, *asked, "--stop", r";\n")
    assert answer == expected.strip()
    assert run("sea", *template, *asked) == f"sea\n{answer}\n"


def test_a_text_ends_before_a_stop_string(run):
    (free,) = texts(run, "The boat", "--temperature", 0)
    middle = free[2:4]
    (cut,) = texts(run, "The boat", "--temperature", 0, "--stop", middle)
    assert cut == free[: free.index(middle)]


def test_beams_penalties_and_bf16_are_taken(run):
    searched = texts(run, "The boat", "--beams", 3, "--samples", 2, "--early-stopping", "--length-penalty", 0.5)
    assert len(set(searched)) == 2
    (free,) = texts(run, "The boat", "--temperature", 0)
    word = free.split()[0]
    assert word not in texts(run, "The boat", "--temperature", 0, "--suppress", f" {word}")[0]
    assert texts(run, "The boat", "--temperature", 0, "--repetition-penalty", 5) != [free]
    assert texts(run, "The boat", "--temperature", 0, "--bf16", "--min-new-tokens", 6, "--min-p", 0.1)


def test_a_file_or_template_that_is_none_is_refused(run, tmp_path):
    (tmp_path / "examples.tsv").write_text("boat island\n")
    with pytest.raises(UserError, match="line 1"):
        run("sea", "--examples", tmp_path / "examples.tsv")
    (tmp_path / "examples.tsv").write_text("boat\tisland\n")
    with pytest.raises(UserError, match="template"):
        run("sea", "--examples", tmp_path / "examples.tsv", "--template", "{target} {input}")
    with pytest.raises(UserError, match="cannot be read"):
        run("--prompts", tmp_path / "none.txt")
    with pytest.raises(UserError, match="beams"):
        run("sea", "--beams", 2, "--samples", 3)
