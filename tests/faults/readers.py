"""Experiments with commands that read a run while it trains."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness import Child, training, values


def load(run: Path, out: Path) -> None:
    from pretextlm.training.checkpoint import verify
    from pretextlm.training.run_directory import Run

    found = Run.open(run)
    found.load_model()
    fault = verify(found.checkpoint.directory)
    assert fault is None, f"removed or changed while it was read: {fault}"


def evaluate(run: Path, out: Path) -> None:
    from pretextlm.evaluation.evaluate import evaluate

    evaluate(run, documents=2)


def generate(run: Path, out: Path) -> None:
    from pretextlm.evaluation.generate import generate

    generate(run, ["A ship"], max_new_tokens=2)


def export(run: Path, out: Path) -> None:
    from pretextlm.hf.export_model import export_model

    export_model(run, out, check=False)


def report(run: Path, out: Path) -> None:
    from pretextlm.report.page import write_report

    write_report([run], out.with_suffix(".html"))


def start(run: Path, out: Path) -> None:
    from pretextlm.training.pretrain import pretrain
    from pretextlm.training.recipe import Recipe

    recipe = json.loads((run.parent / "recipe.json").read_text())
    recipe["training"]["budget_steps"] = 1
    pretrain(Recipe.load({**recipe, "start": str(run)}), out)


def verify(run: Path, out: Path) -> None:
    from pretextlm.study.verification import verify

    wrong = [f"{one.path}: {one.fault}" for one in verify(run) if one.fault]
    assert not wrong, wrong


READERS = (load, evaluate, generate, export, report, start, verify)


def while_training(store: str, place: str, reads: int) -> dict:
    """Read a run again and again while it saves a checkpoint at every step and keeps one."""
    root, found = Path(place), {"reads": 0, "wrong": [], "steps": 0}
    recipe = values(store, steps=1_000_000, hidden_size=32, keep_checkpoints=1, validations=0)
    (root / "recipe.json").write_text(json.dumps(recipe))
    writer = Child(training(recipe, root / "run"), root / "writer.log")
    assert writer.wait_for("training"), writer.log.read_text()
    while not list((root / "run" / "checkpoints").glob("step-*")):
        assert writer.poll() is None, writer.log.read_text()
    for number in range(reads):
        read, out = READERS[number % len(READERS)], root / f"out-{number}"
        child = Child(_reading(read, root / "run", out), root / "reader.log")
        if child.wait() != 0 and len(found["wrong"]) < 5:
            found["wrong"].append([read.__name__, child.log.read_text()[-2000:]])
        found["reads"] += 1
        shutil.rmtree(out, ignore_errors=True)
    writer.send(signal.SIGTERM)
    assert writer.wait() == 128 + signal.SIGTERM, writer.log.read_text()
    (last,) = (root / "run" / "checkpoints").glob("step-*")
    return found | {"steps": int(last.name.removeprefix("step-"))}


def _reading(read: Callable[[Path, Path], None], run: Path, out: Path) -> Callable[[Callable[[str], None]], None]:
    return lambda say: read(run, out)
