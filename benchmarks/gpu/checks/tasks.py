"""A task of every kind, fine-tuned by the command line: losses in fp32 are the CPU's, in bf16 near."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from benchmarks.gpu.checks.common import assert_near, environment, place
from benchmarks.gpu.isolation import item
from tests.stand_ins import StandIns

SECTION = "6 tasks"
RECIPES = {
    "text classification": "sst2",
    "regression": "stsb",
    "multiple choice": "copa",
    "token classification": "conll2003",
    "question answering": "squad",
    "several labels": "go_emotions",
    "sentence embedding": "nli_embeddings",
    "instruction": "alpaca",
}


def command(*words: str) -> None:
    """Runs a command of the library."""
    done = subprocess.run(
        [sys.executable, "-m", "pretextlm", *words], capture_output=True, text=True, env=absolute(), timeout=200
    )
    assert done.returncode == 0, f"pretextlm {' '.join(words)}\n{done.stderr[-800:]}"


def absolute() -> dict[str, str]:
    """The environment of a command in another directory."""
    root = Path(__file__).parents[3]
    given = environment()
    paths = [str(root / path) for path in given["PYTHONPATH"].split(":")]
    return {**given, "PYTHONPATH": ":".join(paths)}


@item(SECTION, seconds=280, cases=RECIPES)
def losses_are_the_cpu_s(device: str, case: str) -> str:
    recipe = f"recipes/tasks/{RECIPES[case]}.toml"
    made = StandIns(place(), command)
    start = made.get(made.start_of(recipe))
    train, validation = made.records(recipe)
    found: dict[str, torch.Tensor] = {}
    for where, dtype in (("cpu", "fp32"), (device, "fp32"), (device, "bf16")):
        out = place() / "run"
        words = [f"start={start}", f"data.train={train}", f"data.validation={validation}", "data.length=64"]
        words += ["training.budget_steps=3", "training.batch_rows=8", "training.validations=0", "training.log_every=1"]
        words += [f"training.device={where}", f"training.dtype={dtype}", "training.compile=off"]
        command("finetune", recipe, *words, "--out", str(out))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found[f"{where} {dtype}"] = torch.tensor([line["loss"] for line in lines if "loss" in line])
    wanted = found["cpu fp32"]
    errors = [
        assert_near(found[f"{device} fp32"], wanted, 2e-3, "losses in fp32"),
        assert_near(found[f"{device} bf16"], wanted, 1e-1, "losses in bf16"),
    ]
    return "relative errors " + ", ".join(f"{error:.1e}" for error in errors)
