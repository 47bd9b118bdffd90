"""Settings that no command can use: each is refused with a remedy before anything is computed or written."""

from __future__ import annotations

import pytest
from tests.builders import make_run, make_store

from pretextlm.cli.main import app, check_arguments
from pretextlm.cli.shared.failures import as_user_error
from pretextlm.errors import UserError

DIGITS, DEEP, LONG = "9" * 5000, "[" * 3000, "n" * 5000
RECIPE = """
[data]
store = "store"
length = 16
[objective]
name = "causal"
[model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
[training]
budget_steps = 1
batch_tokens = 64
compile = "off"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a recipe, a store, a run and a text."""
    folder = tmp_path_factory.mktemp("settings")
    make_run(make_store(folder / "store"), folder / "run")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "text.txt").write_text("A river.\n")
    return folder


def refusal(*arguments: str) -> UserError:
    """What the command line would print: the fault of the input that the command ended with."""
    with pytest.raises(Exception) as raised:
        app(list(arguments), standalone_mode=False)
    found = as_user_error(raised.value)
    assert found is not None, raised.getrepr()
    return found


SETTINGS = [
    f"seed={DIGITS}",
    f"objective.rate={DEEP}",
    f"objective.rate={'{a=' * 3000}",
    f"model={'.'.join('a' * 3000)}",
    f"{'.'.join('a' * 3000)}=1",
    "model=abc",
    "model=5",
    "objective.name=5",
    "objective.name=[1]",
    "objective.name={a=1}",
    "objective=5",
    "objective.options.name=1",
    "model.hidden_size={}",
    "model.hidden_size='wide'",
    "model.hidden_size=1e400",
    "model.hidden_size=true",
    "model.num_attention_heads=[]",
    "model.vocab_size=-1",
    "model.preset=5",
    "training=5",
    "training.batch_rows=99999999999999",
    "training.batch_tokens=99999999999999999",
    "training.learning_rate=nan",
    "training.trackers='all'",
    "data=5",
    'data.store="a\\u0000b"',
    f"data.store={LONG}",
    f"start={LONG}",
    "data.store=[]",
    'name="../evil"',
    "evaluation=[]",
    "tuning.freeze=5",
]
COMMANDS = [
    ["pretrain", LONG],
    ["generate", "a/" * 3000],
    ["generate", "run", "A", "--temperature", "inf"],
    ["data", "prepare", "package:__main__", "--out", "new"],
    ["data", "prepare", "package:..", "--out", "new"],
    ["data", "prepare", "text.txt", "--max-document-mb", "1e13", "--out", "new"],
    ["data", "prepare", "text.txt", "--max-document-mb", "10000000000000", "--out", "new"],
    ["data", "prepare", "text.txt", "--sample-mb", "10000000000000", "--out", "new"],
    ["data", "prepare", "text.txt", "--vocab-size", "0", "--out", "new"],
    ["data", "prepare", "text.txt", "--workers", "100000", "--out", "new"],
    ["data", "prepare", "text.txt", "--out", LONG],
    ["data", "prepare", LONG, "--out", "new"],
    ["show", "masked", "A river.", "rate={}"],
    ["show", "masked", "A river.", f"rate={DIGITS}"],
    ["show", "denoisers", "A river.", "table=[5]"],
    ["params", "bert-base-uncased", "hidden_size={}"],
    ["params", "bert-base-uncased", f"hidden_size={DEEP}"],
    ["export", "run", "new", "--max-shard-size", "1e400"],
    ["prune", "run", "--layers", DIGITS, "--out", "new"],
    ["compare", "three_objectives", "store=store", f"seeds={DEEP}"],
    ["compare", "three_objectives", "store=store", "seeds=[9999999999999999999999]"],
    ["compare", "three_objectives", "store=store", "objectives=[{name=5}]"],
    ["finetune", "recipe.toml", "--vary", f"training.learning_rate={DEEP}"],
    ["finetune", "recipe.toml", "--seeds", DIGITS],
    ["report", LONG],
    ["quickstart", "--budget", "nan"],
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting[:40])
def test_a_wrong_setting_is_refused(setting, place, monkeypatch):
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    found = refusal("pretrain", "recipe.toml", setting, "--out", "new")
    assert found.message
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments)[:60])
def test_a_wrong_argument_is_refused(arguments, place, monkeypatch):
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert refusal(*arguments).message
    assert sorted(place.iterdir()) == before


def test_arguments_that_are_not_utf_8_are_named():
    check_arguments(["generate", "run", "한국어 👩"])
    with pytest.raises(UserError, match=r"'run\\udcff' is not UTF-8"):
        check_arguments(["generate", "run\udcff"])
