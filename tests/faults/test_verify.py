"""`pretextlm verify` names what is broken in a run, store, study, import, export or adapter; and no command gives
another result of a broken file without a word.

PRETEXTLM_FAULTS=full makes some 1,300 changes, as `make faults` does; otherwise a sample of them.
"""

import json
import random
import shutil

import pytest
from tests.builders import make_run, make_store, sentences
from tests.faults.harness import FULL
from tests.foreign import bert_directory

from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.peft_adapter import export_adapter
from pretextlm.study.verification import verify
from pretextlm.training.initial_weights import with_start
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

pytestmark = pytest.mark.slow

CHANGES = 1300 if FULL else 40
ANSWER = ["generate", "run", "A ship", "--max-new-tokens", "4", "--json"]
COMMANDS = {
    "run": [ANSWER, ["evaluate", "run", "--json"], ["export", "run", "out", "--no-check", "--json"]],
    "imported": [["export", "imported", "out", "--no-check", "--json"], ["fill", "imported", "a [MASK]", "--json"]],
    "store": [["data", "inspect", "store", "--json"], ["evaluate", "run", "--json"]],
    "hf": [["import", "hf", "--out", "out", "--json"]],
}
"""Commands that read each directory."""
VERIFIED = (*COMMANDS, "tuned", "adapter", "study")
STUDY = """
name = "study"
store = "{store}"
objectives = ["causal"]
seeds = [1]
length = 32
model = {{ hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 2 }}
budget = {{ tokens = 512 }}
training = {{ batch_tokens = 256, validations = 1, dtype = "fp32", compile = "off" }}
evaluation = {{ blanks = 4, prompts = 1 }}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, command_line):
    """A working directory with a run, its store, an import, an export, an adapter with its run, and a study."""
    place = tmp_path_factory.mktemp("whole")
    run = make_run(make_store(place / "store"), place / "run")
    evaluate(run, documents=4)
    import_model(bert_directory(place / "foreign"), place / "imported")
    export_model(run, place / "hf", check=False)
    records = [json.dumps({"text": text, "label": row % 2}) + "\n" for row, text in enumerate(sentences(12))]
    (place / "records.jsonl").write_text("".join(records))
    values = {
        "start": str(run),
        "data": {"train": str(place / "records.jsonl"), "validation": str(place / "records.jsonl"), "length": 48},
        "task": {"name": "text_classification"},
        "tuning": {"lora": {"rank": 4, "targets": ["q_proj"]}},
        "training": {"budget_steps": 2, "batch_rows": 4, "dtype": "fp32", "compile": "off"},
    }
    export_adapter(pretrain(Recipe.load(with_start(values)), place / "tuned").directory, place / "adapter")
    (place / "study.toml").write_text(STUDY.format(store=place / "store"))
    done = command_line.run("compare", "study.toml", "--out", "study", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "run.lock")


def removed(path, rng):
    path.unlink()


def emptied(path, rng):
    path.write_bytes(b"")


def cut(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))] if data else b"x")


def flipped(path, rng):
    data = bytearray(path.read_bytes() or b"x")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def longer(path, rng):
    path.write_bytes(path.read_bytes() + b" x")


def replaced(path, rng):
    other = rng.choice([one for one in files(path.parent) if one != path] or [path])
    path.write_bytes(other.read_bytes() + b"\n")


def digit(path, rng):
    """Another number in a text file."""
    data = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(data) if 0x30 <= byte <= 0x38]
    if places and path.suffix in (".json", ".toml", ".jsonl", ".txt", ".md"):
        data[rng.choice(places)] += 1
    else:
        data += b"0"
    path.write_bytes(data)


WAYS = (removed, emptied, cut, flipped, longer, replaced, digit)
HARMLESS = (
    *("environment.json", "metrics.jsonl", "cost.json", "evaluation.json", "samples.jsonl", "optimizer.safetensors"),
    *("README.md", "pretextlm.json", "special_tokens_map.json", "generation_config.json", "tokenizer_config.json"),
)
"""Files on which these commands do not depend, or whose changes they show as they are."""
SHOWN = ("predictions.jsonl", "report.html", "study.toml", "command.json", "corpus.json")
"""Files of runs and studies for people."""


def result(done):
    """What a command says, apart from times and paths; None where it refuses."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 2), (done.returncode, done.stderr)
    if done.returncode == 2:
        assert "error" in done.stderr.lower()
        return None
    return done.stdout


def test_no_change_of_a_file_changes_a_result_without_a_word(command_line, place, tmp_path):
    rng = random.Random(0)
    every = [(name, path.relative_to(place), way) for name in COMMANDS for path in files(place / name) for way in WAYS]
    chosen = [every[number % len(every)] for number in range(0, CHANGES)] if FULL else rng.sample(every, CHANGES)
    work = tmp_path / "work"
    whole = {}
    found = {"refused": 0, "said": 0, "same": 0}
    silent = []
    for name, path, way in chosen:
        command = rng.choice(COMMANDS[name])
        key = json.dumps(command)
        for spoil in (False, True):
            if not spoil and key in whole:
                continue
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(place, work)
            recipe = work / "run" / "config.toml"
            assert recipe.exists()
            if spoil:
                before = (work / path).read_bytes()
                way(work / path, rng)
                if (work / path).exists() and (work / path).read_bytes() == before:
                    continue
            done = command_line.run(*command, cwd=work)
            said = result(done)
            if not spoil:
                assert said is not None, done.stderr
                whole[key] = said
            elif said is None:
                found["refused"] += 1
            elif said == whole[key]:
                found["same"] += 1
            elif path.name.split(".")[0] in done.stderr or path.name in said:
                found["said"] += 1
            elif path.name not in HARMLESS and name != "hf":
                silent.append([way.__name__, str(path), command])
    print(found)
    assert silent == []


@pytest.mark.parametrize("way", WAYS)
def test_verify_names_every_changed_file_that_decides_a_result(place, tmp_path, way):
    rng = random.Random(1)
    for name in VERIFIED:
        assert [part for part in verify(place / name) if part.fault] == []
        paths = files(place / name)
        for path in paths if FULL else rng.sample(paths, 4):
            work = tmp_path / name
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(place / name, work)
            changed = work / path.relative_to(place / name)
            before = changed.read_bytes()
            way(changed, rng)
            if (changed.exists() and changed.read_bytes() == before) or changed.name in (*HARMLESS, *SHOWN):
                continue
            if changed.name == "manifest.json" and changed.parent == work and not changed.exists():
                with pytest.raises(UserError, match="is no run, store, study"):
                    verify(work)
                continue
            broken = [part for part in verify(work) if part.fault]
            assert broken, (way.__name__, changed)
            shown = [part.path + part.fault for part in broken]
            assert any(changed.name in one or str(changed.parent) in one for one in shown), (changed, shown)


def test_the_command_says_what_is_broken_and_what_repairs_it(command_line, place, tmp_path):
    shutil.copytree(place, tmp_path / "work")
    done = command_line.run("verify", "run", "store", "imported", "hf", cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    (tmp_path / "work" / "store" / "train" / "tokens.bin").write_bytes(b"x")
    (tmp_path / "work" / "run" / "evaluation.json").write_text("")
    done = command_line.run("verify", "run", "store", cwd=tmp_path / "work")
    assert done.returncode == 2
    told = " ".join(done.stdout.split())
    assert "store/train/tokens.bin: is not what was written. pretextlm data prepare" in told
    assert "run/evaluation.json: is no JSON object with results. pretextlm evaluate run writes it again." in told
    values = json.loads(command_line.run("verify", "run", "--json", cwd=tmp_path / "work").stdout)
    assert {part["decides"] for part in values["places"]["run"] if part["fault"]} == {False}


def test_a_broken_evaluation_is_not_finished(place, tmp_path):
    from pretextlm.study.run_executor import finished

    shutil.copytree(place / "run", tmp_path / "run")
    assert finished(tmp_path / "run")
    for text in ("", "{", "{}", "[]", "5", "[1]"):
        (tmp_path / "run" / "evaluation.json").write_text(text)
        assert not finished(tmp_path / "run")
