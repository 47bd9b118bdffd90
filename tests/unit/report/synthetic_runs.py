"""Run and study directories that look like real ones, without training anything."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretextlm.config import write_toml

PARAMETERS = {"causal": 4_982_016, "masked": 4_982_016, "span_corruption": 5_049_600}
ARCHITECTURES = {
    "causal": "decoder",
    "masked": "encoder",
    "span_corruption": "encoder_decoder",
    "prefix": "decoder",
    "fill_in_middle": "decoder",
    "replaced_token": "encoder",
    "permutation": "encoder",
    "denoising": "encoder_decoder",
    "sentence_order": "encoder",
}
EIGHT = (
    "causal",
    "masked",
    "span_corruption",
    "prefix",
    "replaced_token",
    "denoising",
    "permutation",
    "fill_in_middle",
)
NO_BLANKS = "sentence_order"
"""An objective whose runs here fill no blanks, as one that reads nothing but the order of sentences."""
SKILL = {
    "causal": 0.52,
    "masked": 0.66,
    "span_corruption": 0.44,
    "prefix": 0.53,
    "replaced_token": 0.61,
    "denoising": 0.4,
    "permutation": 0.63,
    "fill_in_middle": 0.55,
}
OWN = {
    "causal": {"loss": ("nats", 3.61), "perplexity": ("", 36.9), "bits_per_byte": ("bits", 1.46)},
    "masked": {"loss": ("nats", 3.12), "pseudo_perplexity": ("", 22.6), "fill_accuracy": ("share", 0.412)},
    "span_corruption": {"loss": ("nats", 3.35), "span_exact_match": ("share", 0.083)},
    "prefix": {"loss": ("nats", 3.58), "perplexity": ("", 35.9)},
    "fill_in_middle": {"loss": ("nats", 3.81), "perplexity": ("", 45.1)},
    "replaced_token": {
        "loss": ("nats", 13.1), "lm_loss": ("nats", 3.6), "replaced_loss": ("nats", 0.19),
        "replaced_accuracy": ("share", 0.931), "replaced_auc": ("share", 0.874), "generator_accuracy": ("share", 0.36),
    },
    "permutation": {"loss": ("nats", 3.2), "token_accuracy": ("share", 0.39), "pseudo_perplexity": ("", 24.2)},
    "denoising": {"loss": ("nats", 1.21), "token_accuracy": ("share", 0.74)},
    "sentence_order": {"loss": ("nats", 0.62), "pair_accuracy": ("share", 0.66)},
}  # fmt: skip
SENTENCES = (
    ("My fellow Americans, the ____ of our Union is strong because our people are strong.", "state"),
    ("We must give every ____ the chance to learn, whatever the place they were born.", "child"),
    ("Tonight I ask the ____ to pass this bill before the winter comes.", "Congress"),
    ("The war has cost us much, yet ____ is within our reach.", "peace"),
    ("The revenue of the ____ has exceeded the expenditure by a small sum.", "Government"),
    ("It is the ____ of this administration to reduce the public debt.", "purpose"),
)
WRONG = ("people", "world", "time", "year", "country")


def write_run(
    path: Path, objective: str, seed: int, *, skill: float | None = None, finished: bool = True, **names: str
) -> Path:
    """One run directory; `names` replaces texts that a test wants to see escaped."""
    rng = random.Random(f"{path.name}{seed}")
    path.mkdir(parents=True)
    architecture = ARCHITECTURES.get(objective, "decoder")
    config: dict[str, Any] = {
        "name": names.get("name", objective),
        "seed": seed,
        "data": {"store": names.get("store", "store"), "length": 256},
        "objective": {"name": objective, "rate": 0.15},
        "model": {
            "architecture": architecture, "vocab_size": 8192, "hidden_size": 256, "num_hidden_layers": 6,
            "num_attention_heads": 4, "intermediate_size": 1024,
        },
        "training": {"budget_seconds": 120.0, "learning_rate": 0.004},
    }  # fmt: skip
    environment = {
        "pretextlm": "0.1.0", "python": "3.11.9", "torch": "2.13.0+cpu",
        "device": names.get("device", "cpu"), "threads": 2,
        "dtype": "float32", "command": ["pretextlm", "pretrain", "recipe.toml"], "started": "2026-08-20T09:00:00+00:00",
    }  # fmt: skip
    (path / "config.toml").write_text(write_toml(config), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    _write_metrics(path / "metrics.jsonl", objective, rng, 24 if finished else 9)
    if finished:
        cost = {
            "parameters": PARAMETERS.get(objective, 5_000_000), "steps": 950, "tokens": 3_900_000 + seed * 1000,
            "seconds": 120.2, "flops": 1.16e14, "device": "cpu", "energy_joules": None,
        }  # fmt: skip
        (path / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
        level = (SKILL.get(objective, 0.5) if skill is None else skill) + rng.gauss(0, 0.012)
        _write_evaluation(path, objective, level, rng, names.get("answer"))
    return path


def _write_metrics(path: Path, objective: str, rng: random.Random, points: int) -> None:
    floor = OWN.get(objective, {"loss": ("", 3.4)})["loss"][1]
    lines = []
    for k in range(points):
        seconds = 120.0 * k / 23
        loss = floor + max(9.01 - floor, 3.0) * math.exp(-3.8 * (seconds / 120) ** 0.55) + rng.gauss(0, 0.015) * (k > 0)
        shared = {"step": 40 * k, "tokens": int(seconds * 32_500), "seconds": seconds, "flops": seconds * 9.7e11}
        lines.append({"kind": "train", **shared, "loss": loss + 0.05, "learning_rate": 4e-3, "gradient_norm": 0.6})
        lines.append({"kind": "validation", **shared, "loss": loss})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write_evaluation(path: Path, objective: str, level: float, rng: random.Random, answer: str | None) -> None:
    def entry(value: float, n: int, unit: str, better: str, stderr: float | None = None) -> dict[str, Any]:
        return {"value": value, "n": n, "stderr": stderr, "unit": unit, "better": better}

    own = {
        name: entry(value * (1 + rng.gauss(0, 0.01)), 52_000, unit, "higher" if unit == "share" else "lower")
        for name, (unit, value) in OWN.get(objective, {}).items()
    }
    exact = level * 0.3
    blanks = 0 if objective == NO_BLANKS else 200
    common = {
        "blank_choice_accuracy": entry(level, 200, "share", "higher", math.sqrt(level * (1 - level) / 200)),
        "blank_exact_match": entry(exact, 200, "share", "higher", math.sqrt(exact * (1 - exact) / 200)),
        "blank_log_likelihood": entry(-6.4 + 3 * level, 200, "nats", "higher", 0.15),
    }
    evaluation = {
        "metrics": own | common if blanks else own, "settings": {"blanks": blanks, "seed": 1234},
        "notes": [] if blanks else [f"no blanks: {objective} with these options does not fill any"],
    }  # fmt: skip
    (path / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    samples = [_blank(k, level, rng, answer) for k in range(40)] if blanks else []
    prompts = [
        {
            "kind": "prompt",
            "text": "We must",
            "answer": answer or " not be afraid of the work before us, and the people",
        },
        {
            "kind": "prompt",
            "text": "The Congress has",
            "answer": " been asked to give\nthe same to every State of the Union.",
        },
    ]
    samples += prompts if ARCHITECTURES.get(objective) != "encoder" else []
    lines = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples)
    (path / "samples.jsonl").write_text(lines, encoding="utf-8")


def _blank(k: int, level: float, rng: random.Random, answer: str | None) -> dict[str, Any]:
    text, expected = SENTENCES[k % len(SENTENCES)]
    correct = rng.random() < level
    said = expected if correct else rng.choice(WRONG)
    return {
        "kind": "blank", "text": f"{text} This was said in {1800 + 5 * k}.", "expected": expected, "correct": correct,
        "answer": answer or said, "chosen": said, "choices": [expected, *WRONG[:3]], "scores": [-2.0, -3.0, -4.0, -5.0],
    }  # fmt: skip


def write_study(
    path: Path,
    objectives: tuple[str, ...] = ("causal", "masked", "span_corruption"),
    seeds: tuple[int, ...] = (1, 2, 3),
    skills: Mapping[str, float] | None = None,
    **names: str,
) -> Path:
    """A finished study directory."""
    path.mkdir(parents=True)
    plan = {
        "name": names.get("name", "Three objectives, one Transformer"), "store": "store", "seeds": list(seeds),
        "objectives": [{"name": objective, "label": objective} for objective in objectives],
        "budget": {"seconds": 120.0}, "model": {"hidden_size": 256},
    }  # fmt: skip
    command = {
        "command": [
            "pretextlm", "compare", names.get("argument", "recipes/studies/three_objectives.toml"), "store=my store"
        ],
        "started": "2026-08-20T09:00:00+00:00", "finished": "2026-08-20T09:21:00+00:00",
        "machine": {"system": "Linux 6.1", "processor": "AMD EPYC 7B13", "cpus": 2, "memory_bytes": 8_000_000_000},
    }  # fmt: skip
    corpus = {
        "tokens": {"train": 5_120_331, "validation": 104_220}, "documents": {"train": 1_904, "validation": 39},
        "vocabulary_size": 8192, "tokenizer": "byte-level BPE", "hash": "sha256:6f1c…",
        "sources": [{"name": names.get("source", "State of the Union addresses"), "licence": "public domain"}],
    }  # fmt: skip
    (path / "study.toml").write_text(write_toml(plan), encoding="utf-8")
    (path / "command.json").write_text(json.dumps(command), encoding="utf-8")
    (path / "corpus.json").write_text(json.dumps(corpus), encoding="utf-8")
    for seed in seeds:
        for objective in objectives:
            skill = (skills or {}).get(objective)
            write_run(path / "runs" / f"{objective}-seed{seed}", objective, seed, skill=skill, **names)
    return path
