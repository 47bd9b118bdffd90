"""Fine-tuning beside transformers' Trainer: same model, records and hyper-parameters, one thread each.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.finetuning --model DIR --data DIR --json build/finetuning.json

SST-2 (binary sentences of 13 tokens on average) on a published BERT encoder: batch 32, one epoch of some thousand
records, AdamW (0.9, 0.999), decay 0.01, linear rate with a tenth of warm-up, gradients clipped at 1. Each side and seed
is a process of its own with one thread; sides take turns, seed by seed. The clock is CPU seconds of training alone:
without start-up, tokenising and scoring, but with batching, and with compiling, which is also told apart.

The Trainer pads each batch to its longest record (its default), or groups records by length; its model has no dropout,
as ours has none, but for one side that keeps the checkpoint's. Ours is the command line's trainer at its defaults (bf16
where the CPU has AMX), and in fp32. Goal: scores within noise, half the CPU seconds of the Trainer's best.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RATE, BATCH, LENGTH, WARMUP, DECAY, BETA2 = 5e-5, 32, 128, 0.1, 0.01, 0.999
GOAL = 2.0
LABELS = ("negative", "positive")
THEIRS: dict[str, dict[str, Any]] = {
    "Trainer, its defaults": {},
    "Trainer, its defaults, with dropout": {"dropout": True},
    "Trainer, bf16": {"bf16": True},
    "Trainer, bf16, by length": {"bf16": True, "train_sampling_strategy": "group_by_length"},
    "Trainer, bf16, by length, compiled": {
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        "torch_compile": True,
    },
}
OURS: dict[str, dict[str, Any]] = {
    "pretextlm, its defaults": {},
    "pretextlm, fp32": {"dtype": "fp32"},
    "pretextlm, compiled": {"compile": "on"},
}


@dataclass(frozen=True)
class Job:
    """One side with one seed. Attributes: records: to train on; run: an import of the model."""

    name: str
    options: dict[str, Any]
    seed: int
    records: int
    model: str
    run: str
    train: str
    dev: str


def ours(job: Job) -> dict[str, Any]:
    """Our trainer; the score is that of `pretextlm evaluate`."""
    from pretextlm.evaluation.task_evaluation import evaluate_task
    from pretextlm.training.initial_weights import with_start
    from pretextlm.training.pretrain import pretrain
    from pretextlm.training.progress import Silent
    from pretextlm.training.recipe import Recipe
    from pretextlm.training.runtime import tune_process
    from pretextlm.training.trainer import Trainer

    tune_process()
    clock = Clock()
    whole = Trainer.train

    def timed(trainer: Trainer, *args: Any) -> None:
        clock.start()
        whole(trainer, *args)
        clock.stop()
        clock.compiling = trainer.compile_seconds

    Trainer.train = timed  # type: ignore[method-assign]
    values = {
        "seed": job.seed,
        "start": job.run,
        "data": {"train": job.train, "validation": job.dev, "length": LENGTH},
        "task": {"name": "text_classification", "text": "sentence", "labels": list(LABELS)},
        "training": {
            "budget_epochs": 1.0,
            "batch_rows": BATCH,
            "learning_rate": RATE,
            "weight_decay": DECAY,
            "beta2": BETA2,
            "warmup": WARMUP,
            "threads": 1,
            "validations": 0,
            **job.options,
        },
    }
    with tempfile.TemporaryDirectory() as place:
        run = pretrain(Recipe.load(with_start(values)), Path(place) / "run", progress=Silent())
        score = evaluate_task(run)["metrics"]["accuracy"]["value"]
        dtype = json.loads((run.directory / "environment.json").read_text())["dtype"]
    return {"score": score, "dtype": dtype, **clock.plain()}


def theirs(job: Job) -> dict[str, Any]:
    """transformers' Trainer; the score is that of its `predict`, in fp32."""
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    set_seed(job.seed)
    options = dict(job.options)
    dropout = {} if options.pop("dropout", False) else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    names = dict(enumerate(LABELS))
    config = AutoConfig.from_pretrained(job.model, num_labels=2, id2label=names, **dropout)
    model = AutoModelForSequenceClassification.from_pretrained(job.model, config=config)
    tokenizer = AutoTokenizer.from_pretrained(job.model)

    def tokenised(path: str) -> Dataset:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        encoded = tokenizer([row["sentence"] for row in rows], truncation=True, max_length=LENGTH)
        return Dataset.from_dict({**encoded, "labels": [row["label"] for row in rows]})

    train, dev = tokenised(job.train), tokenised(job.dev)
    clock = Clock()

    class Timer(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.start()

        def on_step_end(self, arguments: Any, state: Any, *args: Any, **kwargs: Any) -> None:
            if options.get("torch_compile") and state.global_step == COMPILED_BY:
                clock.compiling = clock.so_far()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            clock.stop()

    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=RATE,
            weight_decay=DECAY,
            adam_beta2=BETA2,
            warmup_steps=WARMUP,
            lr_scheduler_type="linear",
            seed=job.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **options,
        )
        trainer = Trainer(model, arguments, train_dataset=train, processing_class=tokenizer, callbacks=[Timer()])
        trainer.train()
        arguments = TrainingArguments(output_dir=place, per_device_eval_batch_size=64, use_cpu=True, report_to="none")
        model = getattr(trainer.model, "_orig_mod", trainer.model)
        found = Trainer(model, arguments, processing_class=tokenizer).predict(dev)
    score = float((np.argmax(found.predictions, 1) == found.label_ids).mean())
    return {"score": score, "dtype": "bf16" if options.get("bf16") else "fp32", **clock.plain()}


COMPILED_BY = 10
"""Steps by which the rival has compiled its graphs; what they take beyond the steps after them is compiling."""


class Clock:
    """CPU seconds of training. Attributes: compiling: seconds of them until the graphs were made."""

    def __init__(self) -> None:
        self.begun = self.ended = self.compiling = 0.0

    def start(self) -> None:
        self.begun = time.process_time()

    def so_far(self) -> float:
        return time.process_time() - self.begun

    def stop(self) -> None:
        self.ended = time.process_time()

    def plain(self) -> dict[str, float]:
        return {"seconds": self.ended - self.begun, "compiling": self.compiling}


def measured(job: Job) -> dict[str, Any]:
    """One side with one seed, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.finetuning", "--job", json.dumps(asdict(job))]
    limits = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job.name}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def records(source: Path, out: Path, count: int, seed: int = 0) -> None:
    """Some records of a file, drawn by a seed, as plain .jsonl; 0: all."""
    import numpy as np

    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    if count:
        lines = [lines[i] for i in np.random.default_rng(seed).permutation(len(lines))[:count]]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """A row a side: type, score with its spread over seeds, CPU seconds, and how many times ours at its defaults."""
    base = statistics.median(one["seconds"] for one in found[next(iter(OURS))]) if next(iter(OURS)) in found else 0.0
    rows = []
    for name, results in found.items():
        scores = [one["score"] for one in results]
        seconds = statistics.median(one["seconds"] for one in results)
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        compiling = statistics.median(one["compiling"] for one in results)
        rows.append(
            [
                name,
                results[0]["dtype"],
                f"{statistics.mean(scores):.4f} ± {spread:.4f}",
                f"{seconds:.1f}",
                f"{compiling:.1f}" if compiling else "",
                f"{seconds / base:.2f}" if base else "",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help="a BERT in Hugging Face's format")
    parser.add_argument("--data", type=Path, required=True, help="a directory with the train and dev files of SST-2")
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=[*OURS, *THEIRS], choices=[*OURS, *THEIRS])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.job:
        job = Job(**json.loads(options.job))
        print(json.dumps(ours(job) if job.name in OURS else theirs(job)))
        return

    from benchmarks.training import output

    from pretextlm.hf.import_model import import_model

    if options.model is None:
        parser.error("--model is missing: the directory of a published BERT")
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        train, dev, run = (Path(place) / name for name in ("train.jsonl", "dev.jsonl", "start"))
        records(options.data / "train.jsonl.gz", train, options.records)
        records(options.data / "dev.jsonl.gz", dev, 0)
        import_model(str(options.model), run)
        places = {"model": str(options.model), "run": str(run), "train": str(train), "dev": str(dev)}
        for seed in range(options.seeds):
            for name in options.sides:
                job = Job(name, {**OURS, **THEIRS}[name], seed, options.records, **places)
                found.setdefault(name, []).append(measured(job))
                print(f"{name}, seed {seed}: {found[name][-1]}", file=sys.stderr, flush=True)
                output.write(options.json, "finetuning", {"records": options.records, "sides": found})
    columns = ["side", "type", "accuracy ± spread over seeds", "CPU s of training", "of these compiling", "× ours"]
    output.show(f"SST-2, {options.records:,} records, one epoch; goal {GOAL}×", columns, summary(found))


if __name__ == "__main__":
    main()
