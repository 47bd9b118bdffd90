"""Two source trees give the same numbers on a CPU: losses, weights, scores and exported files, bit for bit.

    git worktree add ../before COMMIT
    python -m benchmarks.same_numbers --against ../before                    this tree beside that commit
    python -m benchmarks.same_numbers --against ../before --cache build/numbers       … whose numbers are kept
    python -m benchmarks.same_numbers --against ../before --only 'recipe|export/'     some cases, and those they need
    python -m benchmarks.same_numbers --against ../before --list             the names of the cases

A refactoring must not change a number. In each tree, every recipe under recipes/ is trained for twenty steps (the runs
of studies too), shrunk to a small model, a short row and a small batch, in fp32, uncompiled, on one thread; so is every
objective with its options, every published family, and a set of models and trainings with other settings. Runs are
evaluated, fill blanks, write, are exported and imported. All of it goes through the command line, each tree in a
process of its own with that tree on PYTHONPATH; text and records are written by this script.

The results are compared as follows:

    steps     loss, parts of the loss and gradient norm of every step, and validation losses: equal as floating-point
              numbers; keys of metrics.jsonl may be renamed
    weights   tensors of the last checkpoint, byte for byte; their names may change
    scores    numbers of evaluation.json and benchmarks.json, answers of predictions.jsonl, of `fill` and `generate`:
              each that the other tree gives is there; further ones may be added
    files     exported directories, and stores: the same files with the same bytes. README.md (the model card, with the
              cost in seconds) and manifest.json of a store (with its day) must be there, and are not compared

It exits with 1 where anything differs or fails. A setting or an option that was renamed between the trees is listed in
RENAMED or OPTIONS under its newest name; recipes are each tree's own. With --cache, the results of --against are read
from there where the same commit was run before on the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import platform
import random
import re
import runpy
import shutil
import signal
import string
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
"""Of the cached results, and of the text and records; a new number makes old results worthless."""
STEPS, LENGTH, BATCH = 20, 64, 512
WIDTH, HEADS, LAYERS = 64, 4, 4
TRAIN, VALIDATION = 400, 16
"""Records of a task."""
COMMAND_SECONDS = 600

RENAMED = {
    "training.max_grad_norm": ("training.clip",),
    "model.share_layers": ("model.shared_layers",),
    "model.attention.qk_norm": ("model.attention.normalise_heads",),
    "model.attention.sliding_windows": ("model.attention.windows",),
    "model.attention.num_random_blocks": ("model.attention.random_blocks",),
    "model.positions.partial_rotary_factor": ("model.positions.fraction",),
    "model.positions.max_position_embeddings": ("model.positions.max_positions",),
    "model.positions.rope_scaling.rope_type": ("model.positions.scaling.kind",),
    "model.positions.rope_scaling.factor": ("model.positions.scaling.factor",),
    "model.positions.rope_scaling.original_max_position_embeddings": ("model.positions.scaling.original_positions",),
    "model.embedding.separate_decoder": ("model.embedding.apart",),
}
"""Settings by their newest name → older ones, one of which a tree may have."""
OPTIONS: dict[str, tuple[str, ...]] = {}
"""Options of commands likewise: the newest → older ones. Which a tree has is seen from its sources."""
NORMS = ("gradient_norm", "grad_norm")
"""Names of the gradient's norm in metrics.jsonl."""
UNTIMED = ("README.md", "manifest.json")
"""Files that hold times; they must be there, and are not compared."""

COMMON = [
    f"training.budget_steps={STEPS}",
    "training.dtype=fp32",
    "training.device=cpu",
    "training.compile=off",
    "training.threads=1",
    "training.log_every=1",
    "training.validations=2",
    "training.validation_rows=16",
]
QUICK_EVALUATION = ["evaluation.documents=8", "evaluation.blanks=6", "evaluation.prompts=1"]
SMALL = [f"model.hidden_size={WIDTH}", f"model.num_attention_heads={HEADS}"]
TEXT = [f"data.length={LENGTH}", f"training.batch_tokens={BATCH}"]

OBJECTIVES: list[tuple[str, list[str]]] = [
    ("causal", []),
    ("causal", ["isolate=false"]),
    ("masked", []),
    ("masked", ["unit=word", "rate=0.3", "final_rate=0.15"]),
    ("masked", ["unit=span", "replace=unit"]),
    ("masked", ["predict=next"]),
    ("masked", ["static_masks=3"]),
    ("prefix", []),
    ("prefix", ["layout=encoder_decoder"]),
    ("span_corruption", []),
    ("span_corruption", ["layout=prefix", "edges=free", "final_sentinel=true"]),
    ("denoisers", ["table=ul2"]),
    ("denoisers", ["table=teaching", "layout=prefix"]),
    ("next_sentence", []),
    ("next_sentence", ["classes=3"]),
    ("sentence_order", []),
    ("word_structure", []),
    ("span_boundary", []),
    ("replaced_token", []),
    ("replaced_token", ["sharing=gradient_disentangled"]),
    ("denoising", []),
    ("denoising", ["noise=deletion", "rotate=0.5", "unit=word"]),
    ("masked_sequence", []),
    ("mixed_visibility", []),
    ("mixed_visibility", ["predict=here", "prefix=1", "right_to_left=1"]),
    ("permutation", []),
    ("fill_in_middle", []),
    ("bimodal_code", []),
    ("text_to_text", ["unsupervised=0.5"]),
]
"""Options of a case are joined by spaces in its name."""
STORES = {"bimodal_code": "stores/code", "text_to_text": "stores/pairs"}

YARN = ("rope_type=yarn", "factor=4.0", "original_max_position_embeddings=32")
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "adamw": ("causal", ["training.optimizer=adamw", "training.weight_decay=0.1", "training.schedule=cosine"]),
    "no-clipping": ("causal", ["training.max_grad_norm=0", "training.schedule=linear"]),
    "accumulation": ("masked", ["training.micro_batch_tokens=128"]),
    "recomputed": ("masked", ["training.micro_batch_tokens=256", "training.gradient_checkpointing=blocks"]),
    "dropout": ("masked", ["training.dropout=0.1"]),
    "embedding-rate": ("causal", ["training.embedding_learning_rate=0.002"]),
    "keep-best": ("causal", ["training.validations=5", "training.keep_best=true"]),
    "epochs": ("causal", ["data.workers=3", "seed=7"]),
    "no-qk-norm": ("causal", ["model.attention.qk_norm=false", "model.tie_word_embeddings=false"]),
    "grouped-queries": ("causal", ["model.num_key_value_heads=2", "model.logit_softcap=30.0"]),
    "partial-rotary": ("masked", ["model.positions.partial_rotary_factor=0.5", "model.attention.softcap=20.0"]),
    "windows": ("masked", ["model.attention.sliding_windows=[16, 0]", "model.attention.global_tokens=1"]),
    "causal-windows": ("causal", ["model.attention.sliding_windows=[16, 0]", "data.length=256"]),
    "blocks": ("masked", ["model.attention.block_size=8", "model.attention.num_random_blocks=1", "data.length=256"]),
    "alibi": ("causal", ["model.positions.kind=alibi"]),
    "relative": ("masked", ["model.positions.kind=relative"]),
    "sinusoidal": ("causal", ["model.positions.kind=sinusoidal", "model.positions.max_position_embeddings=64"]),
    "disentangled": ("masked", ["model.positions.kind=disentangled"]),
    "shared-layers": ("masked", ["model.share_layers=true", "model.embedding_size=32"]),
    "yarn": ("causal", [f"model.positions.rope_scaling.{one}" for one in YARN]),
    "gated": ("span_corruption", ["model.feed_forward={activation='silu', gated=true}", "model.norm.kind=layer"]),
    "parts": ("span_corruption", ["model.num_decoder_layers=1", "model.embedding.separate_decoder=true"]),
}
"""One objective under other settings of the model or the training."""

FAMILIES: dict[str, str] = {
    "bert-base-uncased": "masked",
    "roberta-base": "masked",
    "albert-base-v2": "sentence_order",
    "distilbert-base-uncased": "masked",
    "electra-small": "replaced_token",
    "deberta-v3-small": "replaced_token",
    "modernbert-base": "masked",
    "longformer-base-4096": "masked",
    "bigbird-roberta-base": "masked",
    "openai-gpt": "causal",
    "gpt2": "causal",
    "llama-2-7b": "causal",
    "llama-3.2-1b": "causal",
    "mistral-7b": "causal",
    "qwen2.5-0.5b": "causal",
    "qwen3-0.6b": "causal",
    "gemma-2b": "causal",
    "gemma-2-2b": "causal",
    "t5-small": "span_corruption",
    "t5-v1_1-base": "span_corruption",
    "bart-base": "denoising",
    "mbart-large-cc25": "denoising",
}
"""Presets, and the objective that each learns by before it is exported."""
SHAPES: dict[str, dict[str, float]] = {
    "electra-small": {"embedding_size": WIDTH // 2},
    "albert-base-v2": {"embedding_size": WIDTH // 2},
    "openai-gpt": {"intermediate_size": 4 * WIDTH},
    "longformer-base-4096": {"positions.offset": 1},
    "deberta-v3-small": {"attention.scale": 0.14433756729740646},
}
"""Further values with which the small model of a family can be exported as that family."""

ENCODER, DECODER, SEQUENCE = "family/bert-base-uncased", "family/llama-2-7b", "family/t5-small"
"""Runs that tasks start from, and that are pruned, quantised, evaluated and written with."""


# ---------------------------------------------------------------------------------------------------------------------
# Text and records


def listed(text: str) -> list[str]:
    return text.split("|")


SUBJECTS = listed(
    "the river|a teacher|my neighbour|every child|the old captain|nobody|the law|her brother|the council|Maria|"
    "the baker|Dr. Lund|an engineer|the second witness|our committee|the smallest boat|Peter|the orchestra|he|she|they"
)
VERBS = listed(
    "carries|remembers|follows|forgets|brings|opens|needs|leaves|describes|repairs|counts|defends|measures|buys|"
    "translates|answers|hides|paints|reads|changes"
)
OBJECTS = listed(
    "the letters|a quiet harbour|the morning train|warm bread|some answers|a broken clock|seven apples|the café|"
    "the northern road|a long speech|its own shadow|the year 1848|three per cent of the harvest|blue paper|"
    "a naïve plan|the whole library|what was lost|the budget|an empty house|the first question"
)
PLACES = listed(
    "in the village|before dawn|at the bridge|without a word|after the storm|near the coast|on Monday|for two years|"
    "in spite of the rain|when the bells ring|as it was agreed|between two rivers|with great care|under the table"
)
JOINTS = (", and ", ", but ", "; ", " because ", " while ", ", although ")
KOREAN = listed(
    "강물은 마을을 지나 바다로 흐른다.|선생님이 아침에 편지를 읽는다.|비가 와도 기차는 늦지 않았다.|"
    "그는 오래된 시계를 고쳤다.|우리는 다리 옆에서 기다렸다.|빵이 아직 따뜻하다."
)


def clause(rng: random.Random) -> str:
    return " ".join(rng.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, PLACES))


def sentence(rng: random.Random) -> str:
    if rng.random() < 0.05:
        return rng.choice(KOREAN)
    text = clause(rng)
    if rng.random() < 0.3:
        text += rng.choice(JOINTS) + clause(rng)
    if rng.random() < 0.1:
        text = f'"{text}", said {rng.choice(SUBJECTS)}'
    return text[0].upper() + text[1:] + rng.choice("...?!")


def document(rng: random.Random) -> str:
    paragraphs = (" ".join(sentence(rng) for _ in range(rng.randint(1, 6))) for _ in range(rng.randint(1, 4)))
    return "\n\n".join(paragraphs)


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")


def write_texts(place: Path) -> None:
    """Write the text of the stores and the questions of the benchmarks."""
    rng = random.Random("texts")
    write_lines(place / "text.jsonl", [{"text": document(rng)} for _ in range(900)])
    pairs = [(sentence(rng), sentence(rng)) for _ in range(600)]
    write_lines(place / "pairs.jsonl", [{"en": a, "de": b.upper() + " " + a[:20]} for a, b in pairs])
    code = [(rng.choice(VERBS), rng.choice(OBJECTS).split()[-1]) for _ in range(600)]
    functions = [
        f"def {verb}(a, {name}):\n    if a > {n}:\n        return {name}" for n, (verb, name) in enumerate(code)
    ]
    docs = [f"{clause(rng)}: {verb} {name}" for verb, name in code]
    write_lines(place / "code.jsonl", [{"doc": a, "code": b} for a, b in zip(docs, functions, strict=True)])
    (place / "characters.txt").write_text("\n\n".join(document(rng) for _ in range(60)), encoding="utf-8")
    asked = place / "asked"
    four = [{"question": sentence(rng), "choices": [clause(rng) for _ in range(4)], "answer": n % 4} for n in range(12)]
    write_lines(asked / "arc-easy" / "test.jsonl", four)
    minimal = [{"sentence_good": sentence(rng), "sentence_bad": sentence(rng), "UID": "order"} for _ in range(12)]
    write_lines(asked / "blimp" / "order.jsonl", minimal)
    write_lines(asked / "lambada-openai" / "test.jsonl", [{"text": f"{sentence(rng)} {clause(rng)}"} for _ in range(8)])
    kinds = ("cause", "effect")
    two = [{"premise": sentence(rng), "choices": [sentence(rng), sentence(rng)]} for _ in range(12)]
    asked_for = [{**one, "asks_for": kinds[n % 2], "answer": n // 2 % 2} for n, one in enumerate(two)]
    write_lines(asked / "copa-dev-balanced" / "dev.jsonl", asked_for)


def put(record: dict[str, Any], column: str, value: Any) -> None:
    """Set the value of a column; A.B is the field B of the column A."""
    *outer, last = column.split(".")
    for name in outer:
        record = record.setdefault(name, {})
    record[last] = value


def columns_of(template: str) -> list[str]:
    """Returns the columns of a text: the names in braces, or the one column."""
    if "{" not in template:
        return [template]
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


class Records:
    """Records for a recipe's [task], the same for the same table.

    Args:
        task: the table.
        name: of the recipe; seeds the random words.
    """

    def __init__(self, task: Mapping[str, Any], name: str) -> None:
        self.task, self.name = task, name

    def write(self, place: Path) -> list[str]:
        """Overrides that name the files."""
        for split, count in (("train", TRAIN), ("validation", VALIDATION)):
            rng = random.Random(f"{self.name} {split}")
            write_lines(place / f"{split}.jsonl", [self.one(rng, n, split) for n in range(count)])
        return [str(place / f"{split}.jsonl") for split in ("train", "validation")]

    def one(self, rng: random.Random, number: int, split: str) -> dict[str, Any]:
        record: dict[str, Any] = {}
        getattr(self, str(self.task["name"]))(record, rng, number, split)
        return record

    def texts(self, record: dict[str, Any], rng: random.Random) -> None:
        """The columns of text and text_pair with their marks."""
        marks = self.task.get("marks", [])
        for role in ("text", "text_pair"):
            for column in columns_of(self.task.get(role, "text" if role == "text" else "")):
                if column in ("", "choice"):
                    continue
                said = self.task.get("wording", {}).get(column)
                put(record, column, rng.choice(sorted(said)) if said else clause(rng) + ".")
            for number, mark in enumerate(one for one in marks if one.get("of", "text") == role):
                self.mark(record, mark, record[self.task.get(role, "text")], 3 * number)

    @staticmethod
    def mark(record: dict[str, Any], mark: Mapping[str, str], text: str, word: int) -> None:
        spans = [match.span() for match in re.finditer(r"\S+", text)]
        (begin, _), (_, end) = spans[word], spans[word + 1]
        if "words" in mark:
            put(record, mark["start"], word)
            put(record, mark["words"], text[begin:end])
            return
        put(record, mark["start"], begin)
        put(record, mark.get("end") or mark["last"], end if "end" in mark else end - 1)

    def text_classification(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        self.texts(record, rng)
        put(record, self.task.get("label", "label"), self.task["labels"][number % len(self.task["labels"])])
        for column in self.task.get("group", []):
            put(record, column, number // 4)

    def multi_label_classification(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        self.texts(record, rng)
        labels = self.task["labels"]
        put(record, self.task.get("label", "label"), [labels[number % len(labels)], rng.choice(labels)])

    def text_regression(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        self.texts(record, rng)
        put(record, self.task.get("label", "label"), round(rng.uniform(0, 5), 2))

    def multiple_choice(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        self.texts(record, rng)
        choices, names = self.task.get("choices", "choices"), self.task.get("label_names", [])
        count = 4 if isinstance(choices, str) else len(choices)
        if isinstance(choices, str):
            put(record, choices, [clause(rng) for _ in range(count)])
        else:
            for column in choices:
                put(record, column, clause(rng))
        if isinstance(names, str):
            put(record, names, list("ABCD"))
            names = "ABCD"
        put(record, self.task.get("label", "label"), names[number % count] if names else number % count)

    def token_classification(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        text = rng.choice(KOREAN) if self.task.get("units") == "characters" else clause(rng)
        tokens = list(text) if self.task.get("units") == "characters" else text.split()
        kinds = sorted({label[2:] for label in self.task.get("labels", ["B-PER", "B-LOC"]) if label != "O"})
        tags: list[str] = []
        for _ in tokens:
            inside = f"I-{tags[-1][2:]}" if tags and tags[-1] != "O" else "O"
            tags.append(rng.choice(["O", inside, f"B-{rng.choice(kinds)}"]))
        put(record, self.task.get("tokens", "tokens"), tokens)
        put(record, self.task.get("tags", "tags"), tags)

    def question_answering(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        text = " ".join(sentence(rng) for _ in range(4))
        words = [match.span() for match in re.finditer(r"\S+", text)]
        first = rng.randrange(len(words) - 2)
        begin, end = words[first][0], words[first + rng.randint(0, 2)][1]
        none = self.task.get("no_answer", False) and number % 4 == 3
        put(record, self.task.get("question", "question"), f"Who {rng.choice(VERBS)} {rng.choice(OBJECTS)}?")
        put(record, self.task.get("context", "context"), text)
        put(record, self.task.get("answer", "answers.text"), [] if none else [text[begin:end]])
        put(record, self.task.get("start", "answers.answer_start"), [] if none else [begin])
        if self.task.get("impossible"):
            put(record, self.task["impossible"], none)

    def sentence_embedding(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        columns = ("anchor", "positive", "negative") if split == "train" else ("first", "second")
        usual = {"anchor": "anchor", "positive": "positive", "first": "sentence1", "second": "sentence2"}
        for column in columns:
            if name := self.task.get(column, usual.get(column)):
                put(record, name, clause(rng))
        if split == "validation" and self.task.get("score"):
            put(record, self.task["score"], round(rng.uniform(0, 5), 2))

    def instruction(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        for column in columns_of(self.task.get("prompt", "{instruction} {input}")):
            put(record, column, "" if column == "input" and number % 3 == 0 else clause(rng))
        put(record, self.task.get("answer", "output"), clause(rng))

    def text_to_text(self, record: dict[str, Any], rng: random.Random, number: int, split: str) -> None:
        put(record, self.task.get("source", "source"), clause(rng))
        put(record, self.task.get("target", "target"), clause(rng).upper())


# ---------------------------------------------------------------------------------------------------------------------
# Cases


@dataclass(frozen=True)
class Case:
    """Commands that run one after another, and the outputs that are compared.

    Attributes:
        commands: command-line arguments of each.
        needs: names of the cases that have to be done before.
        runs: run directories whose steps, weights and scores are compared.
        directories: directories whose files are compared.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether its commands measure its runs."""
        return any(command[0] in ("evaluate", "finetune", "compare") for command in self.commands)

    @functools.cached_property
    def log(self) -> str:
        """Stem of the files with the output of its commands."""
        return "logs/" + re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)


def run_of(case: str) -> str:
    """Returns the run directory of a case."""
    return "runs/" + re.sub(r"[^A-Za-z0-9._-]+", "-", case)


class Cases:
    """All cases of a tree.

    Args:
        place: working directory; it has a copy of the tree's recipes, and gets text and records.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.found: dict[str, Case] = {}
        write_texts(place)
        write_minimal(place)
        self.stores()
        self.families()
        self.objectives()
        self.variants()
        self.recipes()
        self.studies()
        self.tasks()
        self.exports()
        self.use()

    def add(self, name: str, *commands: Sequence[str], **values: Any) -> None:
        self.found[name] = Case(name, tuple(map(tuple, commands)), **values)

    def train(
        self, name: str, recipe: str, overrides: Sequence[str], *then: Sequence[str], needs: Sequence[str] = ()
    ) -> None:
        """A case that trains a run by a recipe."""
        run = run_of(name)
        kind = "finetune" if "/tasks/" in f"/{recipe}" else "pretrain"
        given = [kind, recipe, *COMMON, *QUICK_EVALUATION, *overrides, "--out", run]
        self.add(name, given, *then, needs=tuple(needs), runs=(run,))

    def stores(self) -> None:
        """Of every tokenizer but unigram, whose training depends on the order of a hash table."""
        made = {
            "text": ["text.jsonl", "--vocab-size", "512"],
            "wordpiece": ["text.jsonl", "--vocab-size", "1024", "--tokenizer", "wordpiece"],
            "code": ["code.jsonl?source=doc&target=code", "--vocab-size", "512"],
            "pairs": ["text.jsonl", "pairs.jsonl?source=en&target=de&prefix=translate: ", "--vocab-size", "512"],
            "characters": ["characters.txt", "--tokenizer", "character", "--sentinels", "0", "--split-long", "0"],
        }
        made["characters"] += ["--validation-tail", "0.1"]
        for name, options in made.items():
            out = f"stores/{name}"
            self.add(f"store/{name}", ["data", "prepare", *options, "--out", out], directories=(out,))

    def families(self) -> None:
        for preset, objective in FAMILIES.items():
            name, layers = f"family/{preset}", 6 if f"family/{preset}" == ENCODER else 2
            shape: dict[str, float] = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": layers}
            shape |= dict.fromkeys(("head_dim", "num_key_value_heads", "num_decoder_layers", "embedding_size"), 0)
            shape |= {"intermediate_size": 2 * WIDTH, **SHAPES.get(preset, {})}
            overrides = [f"model.preset={json.dumps(preset)}", f"objective.name={objective}", *TEXT]
            overrides += [f"model.{key}={value}" for key, value in shape.items()]
            self.train(name, "minimal/masked.toml", overrides, needs=["store/text"])

    def objectives(self) -> None:
        for objective, options in OBJECTIVES:
            name = " ".join([f"objective/{objective}", *options])
            store = STORES.get(objective, "stores/text")
            overrides = [f"objective.name={objective}", *(f"objective.{option}" for option in options)]
            overrides += [*SMALL, *TEXT, "model.num_hidden_layers=2", f"data.store={store}"]
            evaluate = ["evaluate", run_of(name)]
            self.train(name, "minimal/masked.toml", overrides, evaluate, needs=[store.replace("stores", "store")])

    def variants(self) -> None:
        for variant, (objective, changes) in VARIANTS.items():
            overrides = [f"objective.name={objective}", *SMALL, *TEXT, "model.num_hidden_layers=2", *changes]
            self.train(f"variant/{variant}", "minimal/masked.toml", overrides, needs=["store/text"])

    def recipes(self) -> None:
        for path in sorted((self.place / "recipes").glob("*.toml")):
            recipe = tomllib.loads(path.read_text(encoding="utf-8"))
            if "entries" in recipe:
                continue
            store = "characters" if "shakespeare" in path.stem else "text"
            layers = min(LAYERS, recipe["model"]["num_hidden_layers"])
            overrides = [*SMALL, *TEXT, f"model.num_hidden_layers={layers}", f"data.store=stores/{store}"]
            needs = [f"store/{store}"]
            if "micro_batch_tokens" in recipe["training"]:
                overrides.append(f"training.micro_batch_tokens={BATCH // 2}")
            if recipe["objective"].get("teacher"):
                overrides.append(f"objective.teacher={run_of('recipe/masked')}")
                needs.append("recipe/masked")
            self.train(f"recipe/{path.stem}", f"recipes/{path.name}", overrides, needs=needs)

    def studies(self) -> None:
        settings = [one for one in COMMON if "budget" not in one]
        for path in sorted((self.place / "recipes" / "studies").glob("*.toml")):
            study = tomllib.loads(path.read_text(encoding="utf-8"))
            labels = [one if isinstance(one, str) else one.get("label", one["name"]) for one in study["objectives"]]
            budget = f"budget={{tokens={STEPS * BATCH}}}"
            given = ["store=stores/text", "seeds=[1]", f"length={LENGTH}", budget, *settings, *QUICK_EVALUATION, *SMALL]
            given += ["model.num_hidden_layers=2", f"training.batch_tokens={BATCH}"]
            out = run_of(f"study/{path.stem}")
            runs = tuple(f"{out}/runs/{label}-seed1" for label in labels)
            command = ["compare", f"recipes/studies/{path.name}", *given, "--out", out]
            self.add(f"study/{path.stem}", command, needs=("store/text",), runs=runs)
        for path in sorted((self.place / "recipes").glob("*.toml")):
            study = tomllib.loads(path.read_text(encoding="utf-8"))
            if "entries" not in study:
                continue
            name = f"study/{path.stem}"
            train, validation = Records(study["recipe"]["task"], path.stem).write(self.place / "records" / path.stem)
            given = [f"recipe.{one}" for one in (*settings, f"start={run_of(ENCODER)}", f"data.train={train}")]
            given += [f"recipe.data.validation={validation}", f"recipe.data.length={LENGTH}", "seeds=[1]"]
            given += ["recipe.data.train_records=80", "recipe.training.batch_rows=8"]  # two epochs: twenty steps
            runs = tuple(f"{run_of(name)}/runs/{entry['label']}-seed1" for entry in study["entries"])
            command = ["compare", f"recipes/{path.name}", *given, "--out", run_of(name)]
            self.add(name, command, needs=(ENCODER,), runs=runs)

    def tasks(self) -> None:
        for path in sorted((self.place / "recipes" / "tasks").glob("*.toml")):
            recipe = tomllib.loads(path.read_text(encoding="utf-8"))
            task, kind = recipe["task"], recipe["task"]["name"]
            train, validation = Records(task, path.stem).write(self.place / "records" / path.stem)
            overrides = [f"data.train={train}", f"data.validation={validation}", "training.batch_rows=8"]
            overrides.append(f"data.length={min(recipe['data']['length'], 96)}")
            start = {"instruction": DECODER, "text_to_text": SEQUENCE}.get(kind, ENCODER)
            needs = [start]
            if "tokenizer" in recipe["data"]:
                overrides += ["data.tokenizer=stores/text", *SMALL, "model.num_hidden_layers=2"]
            else:
                overrides.append(f"start={run_of(start)}")
            if "teacher" in task:
                half = run_of("half")
                prune = ["prune", run_of("task/sst2"), "--layers", "0,2,4", "--out", half]
                self.add("half", prune, needs=("task/sst2",), runs=(half,))
                overrides += [f"start={half}", f"task.teacher={run_of('task/sst2')}"]
                needs = ["half"]
            self.train(f"task/{path.stem}", f"recipes/tasks/{path.name}", overrides, needs=needs)
        self.tunings()

    def tunings(self) -> None:
        """Tasks from other runs, and other ways to train them."""
        ways: dict[str, tuple[str, list[str]]] = {
            "frozen": (ENCODER, ["tuning.freeze=['trunk']"]),
            "layer-decay": (ENCODER, ["tuning.layer_decay=0.8", "tuning.thaw=0.5"]),
            "lora": (ENCODER, ["tuning.lora.rank=4"]),
            "dropout": (ENCODER, ["training.dropout=0.1", "task.class_weights=balanced"]),
            "decoder": (DECODER, []),
        }
        data = [f"data.{split}=records/sst2/{split}.jsonl" for split in ("train", "validation")]
        for way, (start, changes) in ways.items():
            overrides = [*data, "training.batch_rows=8", "data.length=64", f"start={run_of(start)}", *changes]
            self.train(f"tuning/{way}", "recipes/tasks/sst2.toml", overrides, needs=[start])

    def exports(self) -> None:
        for preset in FAMILIES:
            self.export(f"family/{preset}")
        for task in ("sst2", "stsb", "conll2003", "squad", "copa", "multi30k", "alpaca"):
            if f"task/{task}" in self.found and task != "multi30k":
                self.export(f"task/{task}")
        self.export("tuning/lora")
        self.export("tuning/lora", "--adapter")
        self.export("family/electra-small", "--part", "generator")
        self.export(DECODER, "--dtype", "bf16", "--max-shard-size", "0.001")
        self.export(DECODER, "--quantize", "int8", "--store", "stores/text")
        for source in (ENCODER, DECODER, SEQUENCE, "task/sst2"):
            name, of = f"import/{source}", f"export/{source}"
            command = ["import", f"exports/{of.replace('/', '-')}", "--out", run_of(name)]
            self.add(name, command, needs=(of,), runs=(run_of(name),))

    def export(self, source: str, *options: str) -> None:
        name = " ".join([f"export/{source}", *options])
        out = "exports/" + re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        self.add(name, ["export", run_of(source), out, *options], needs=(source,), directories=(out,))

    def use(self) -> None:
        """Evaluation, blanks, generation, pruning and prediction."""
        benchmarks = ["--benchmark", "arc_easy,blimp,lambada,copa", "--data", "asked", "--limit", "8"]
        probe = ["--probe", "records/cola/train.jsonl?text=sentence&label=label"]
        fill = "The river ____ the letters, and Maria [MASK] warm bread."
        for source in (ENCODER, DECODER, SEQUENCE, "family/electra-small", "family/bart-base"):
            run = run_of(source)
            commands = [["evaluate", run], ["fill", run, fill, "--json"], ["evaluate", run, *benchmarks]]
            commands += [["evaluate", run, *probe]] if source == ENCODER else []
            self.add(f"use/{source}", *commands, needs=(source,), runs=(run,))
        for source in (DECODER, SEQUENCE, "family/gemma-2-2b", "family/gpt2"):
            ask = ["generate", run_of(source), "The river", "--json", "--max-new-tokens", "24"]
            ways: tuple[list[str], ...] = (
                [],
                ["--temperature", "0"],
                ["--beams", "3"],
                ["--samples", "3", "--top-k", "5", "--seed", "4"],
            )
            self.add(f"write/{source}", *([*ask, *way] for way in ways), needs=(source,))
        cuts = (["--sparsity", "0.5"], ["--pattern", "2:4"], ["--heads", "0.5", "--channels", "0.25"])
        for cut in cuts:
            name = f"prune/{' '.join(cut)}"
            command = ["prune", run_of(DECODER), *cut, "--store", "stores/text", "--out", run_of(name), "--json"]
            self.add(name, command, needs=(DECODER,), runs=(run_of(name),))
        records = "records/sst2/validation.jsonl"
        self.add("predict/sst2", ["predict", run_of("task/sst2"), records, "--json"], needs=("task/sst2",))


def write_minimal(place: Path) -> None:
    """Write the recipe that objectives and families override."""
    (place / "minimal").mkdir(exist_ok=True)
    text = f'[data]\nstore = "stores/text"\n[objective]\nname = "masked"\n[training]\nbudget_steps = {STEPS}\n'
    (place / "minimal" / "masked.toml").write_text(text + "learning_rate = 0.01\n", encoding="utf-8")


def in_this_tree(command: Sequence[str], known: set[str], sources: str) -> list[str]:
    """Returns a command with settings and options under the names that a tree has."""
    found = []
    for argument in command:
        setting, equals, value = argument.partition("=")
        prefix, _, bare = setting.partition("recipe.") if setting.startswith("recipe.") else ("", "", setting)
        if equals and bare in RENAMED and bare not in known:
            older = next((name for name in RENAMED[bare] if name in known), bare)
            argument = f"{'recipe.' if setting != bare else prefix}{older}={value}"
        if argument in OPTIONS and argument not in sources:
            argument = next((name for name in OPTIONS[argument] if name in sources), argument)
        found.append(argument)
    return found


def settings_of(text: str) -> set[str]:
    """Returns the dotted names of all settings of a config.toml."""

    def names(table: Mapping[str, Any], before: str) -> Iterator[str]:
        for key, value in table.items():
            yield before + key
            if isinstance(value, Mapping):
                yield from names(value, f"{before}{key}.")

    return set(names(tomllib.loads(text), ""))


# ---------------------------------------------------------------------------------------------------------------------
# The process of a tree


def work() -> None:
    """Run cases in child processes: reads a plan from stdin, prints one JSON line per finished case.

    torch and the package are loaded once; each command begins from there, as a process of its own.
    """
    preload()
    running: dict[int, str] = {}
    plan = json.loads(sys.stdin.readline())
    waiting = {case["name"]: case for case in plan["cases"]}
    done: set[str] = set()
    failed: set[str] = set()
    started: dict[str, float] = {}
    while waiting or running:
        for name, case in list(waiting.items()):
            if failed & set(case["needs"]):
                del waiting[name]
                failed.add(name)
                report(name, "a case that it needs failed", 0.0)
            elif len(running) < plan["jobs"] and done >= set(case["needs"]):
                del waiting[name]
                started[name] = time.monotonic()
                running[in_child(lambda case=case: all_commands(case))] = name
        if running:
            process, status = os.wait()
            name = running.pop(process)
            code = os.waitstatus_to_exitcode(status)
            (failed if code else done).add(name)
            report(name, f"exit code {code}" if code else "", time.monotonic() - started[name])


def report(name: str, fault: str, seconds: float) -> None:
    print(json.dumps({"name": name, "fault": fault, "seconds": seconds}), flush=True)


def preload() -> None:
    """Import torch and all modules of the package that can be imported here."""
    import importlib
    import pkgutil

    import pretextlm

    for module in pkgutil.walk_packages(pretextlm.__path__, "pretextlm.", onerror=lambda _: None):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)


def in_child(act: Any) -> int:
    """Returns the id of a forked process that calls `act` and exits with its result."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        code = act()
    finally:
        os._exit(code)


def all_commands(case: Mapping[str, Any]) -> int:
    for number, command in enumerate(case["commands"]):
        process = in_child(lambda: one_command(command, f"{case['log']}.{number}"))  # noqa: B023
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code:
            return code if code > 0 else 1
    return 0


def one_command(command: Sequence[str], log: str) -> int:
    for stream, ending in ((1, "out"), (2, "err")):
        file = os.open(f"{log}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, stream)
    signal.alarm(COMMAND_SECONDS)
    sys.argv = ["pretextlm", *command]
    try:
        runpy.run_module("pretextlm", run_name="__main__")
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    else:
        code = 0
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            output.flush()
    return code


class Tree:
    """A source tree and the working directory of its commands.

    Args:
        path: the tree.
        place: the working directory, which must not exist.
        jobs: cases at a time.
    """

    def __init__(self, path: Path, place: Path, jobs: int) -> None:
        self.path, self.place, self.jobs = path.resolve(), place.resolve(), jobs
        self.place.mkdir(parents=True)
        shutil.copytree(self.path / "recipes", self.place / "recipes")
        (self.place / "logs").mkdir()
        self.cases = Cases(self.place).found
        self.sources = "".join(file.read_text("utf-8") for file in (self.path / "src").rglob("cli/*.py"))

    def run(self, names: set[str]) -> dict[str, dict[str, Any]]:
        """Returns the results of these cases and of those that they need, by name."""
        wanted: set[str] = set()
        queue = list(names)
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                queue += self.cases[name].needs
        first = {name for name in ("store/text", ENCODER) if self.closes(wanted)}
        self._give(first)
        known = self.known()
        self._give(wanted - first, known)
        return {name: self.result(name) for name in sorted(wanted)}

    def closes(self, wanted: set[str]) -> bool:
        """Whether a run has to be trained first, from whose config.toml names of settings are known."""
        return bool(wanted - {name for name in self.cases if name.startswith("store/")})

    def known(self) -> set[str]:
        config = self.place / run_of(ENCODER) / "config.toml"
        return settings_of(config.read_text(encoding="utf-8")) if config.exists() else set()

    def _give(self, names: set[str], known: set[str] | None = None) -> None:
        cases = [case for case in self.cases.values() if case.name in names]
        plan = [
            {
                "name": case.name,
                "log": case.log,
                "needs": [need for need in case.needs if need in names],
                "commands": [in_this_tree(one, known or set(), self.sources) for one in case.commands],
            }
            for case in cases
        ]
        if not plan:
            return
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PRETEXTLM")}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment |= {"PYTHONPATH": str(self.path / "src"), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONHASHSEED"] = "0"  # peft writes the names of adapted modules in the order of a set
        command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
        with subprocess.Popen(
            command, cwd=self.place, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(json.dumps({"cases": plan, "jobs": self.jobs}) + "\n")
            worker.stdin.flush()
            for number, line in enumerate(worker.stdout, 1):
                outcome = json.loads(line)
                fault = f"  FAILED: {outcome['fault']}" if outcome["fault"] else ""
                say(f"  {number:3}/{len(plan)}  {outcome['name']}  {outcome['seconds']:.1f} s{fault}")
                if outcome["fault"]:
                    (self.place / f"{self.cases[outcome['name']].log}.fault").write_text(outcome["fault"])

    def result(self, name: str) -> dict[str, Any]:
        """Returns the values of a case that are compared, or its fault."""
        case = self.cases[name]
        fault = self.place / f"{case.log}.fault"
        if fault.exists():
            errors = sorted((self.place / "logs").glob(f"{Path(case.log).name}.*.err"))
            last = errors[-1].read_text(encoding="utf-8", errors="replace") if errors else ""
            return {"fault": fault.read_text(), "error": last[-2000:]}
        found: dict[str, Any] = {"key": self.key(name), "runs": {}, "files": {}}
        for run in case.runs:
            found["runs"][run] = run_numbers(self.place / run, case.scored)
        for directory in case.directories:
            found["files"][directory] = files_of(self.place / directory)
        found["said"] = sorted(leaf for path in self.outputs(case) for leaf in leaves(path.read_text("utf-8")))
        return found

    def outputs(self, case: Case) -> list[Path]:
        return [self.place / f"{case.log}.{number}.out" for number, one in enumerate(case.commands) if "--json" in one]

    def key(self, name: str) -> str:
        """Returns a digest of a case's commands and recipe, and of the cases that it needs: all but the sources."""
        case = self.cases[name]
        text = repr((FORMAT, case.commands, [self.key(need) for need in case.needs]))
        files = sorted({part for one in case.commands for part in one if part.endswith(".toml")})
        text += "".join((self.place / file).read_text("utf-8") for file in files)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @functools.cached_property
    def signature(self) -> str:
        """Of sources and machine; "" where the sources are those of no commit."""
        git = ["git", "-C", str(self.path)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "src", "recipes"], capture_output=True, text=True, check=False
        )
        if not commit or changed.returncode or changed.stdout.strip():
            return ""
        from importlib.metadata import version

        packages = [f"{name} {version(name)}" for name in ("torch", "numpy", "tokenizers", "safetensors")]
        flags = [os.environ.get(name, "") for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")]
        return " | ".join([commit, processor(), platform.python_version(), *packages, *flags])


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


# ---------------------------------------------------------------------------------------------------------------------
# Results of a case


def run_numbers(run: Path, scored: bool) -> dict[str, Any]:
    """Returns the numbers of each step of a run, digests of its weights, and scores where its case measures them."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text("utf-8").splitlines() if metrics.exists() else []
    found: dict[str, Any] = {"steps": [step_numbers(json.loads(line)) for line in lines]}
    checkpoints = sorted(run.glob("checkpoints/*/model.safetensors"), key=lambda path: path.parent.name)
    if checkpoints:
        tensors = tensors_of(checkpoints[-1])
        found["weights"] = digest(sorted(tensors.values()))
        found["names"] = digest(sorted(tensors))
    scores = []
    if scored and (run / "evaluation.json").exists():
        scores += leaves(json.dumps(json.loads((run / "evaluation.json").read_text("utf-8"))["metrics"]), NUMBER)
    for name, pattern in (("benchmarks.json", NUMBER), ("predictions.jsonl", ANY)):
        if scored and (run / name).exists():
            scores += leaves((run / name).read_text("utf-8"), pattern)
    found["scores"] = sorted(scores)
    return found


def step_numbers(line: Mapping[str, Any]) -> list[str]:
    """Returns kind and step of a line of metrics.jsonl, loss, gradient norm, and the parts of the loss by value."""
    norm = next((line[name] for name in NORMS if name in line), None)
    parts = sorted(float(v).hex() for k, v in line.items() if k.endswith(("_loss", "_accuracy")) and v is not None)
    return [str(line["kind"]), str(line["step"]), *map(in_hex, (line.get("loss"), norm)), *parts]


def in_hex(value: float | None) -> str:
    return "none" if value is None else float(value).hex()


def tensors_of(path: Path) -> dict[str, str]:
    """Returns a digest of dtype, shape and bytes of each tensor of a safetensors file, by name."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {
        name: digest([one["dtype"], str(one["shape"])], data[8 + size :][slice(*one["data_offsets"])])
        for name, one in header.items()
    }


def files_of(directory: Path) -> dict[str, str]:
    """Returns a digest of each file by name; "exists" for those that are not compared."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): "exists" if path.name in UNTIMED else digest([], path.read_bytes())
        for path in paths
    }


ANY, NUMBER = re.compile(""), re.compile(r"[-0-9]")
"""Values of JSON: all, or numbers alone, where the strings are words for people and hashes of files with times."""


def leaves(text: str, pattern: re.Pattern[str] = ANY) -> list[str]:
    """Returns the values of JSON or JSON lines, without their keys, that match a pattern."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from walk(one)
        else:
            yield value.hex() if isinstance(value, float) else json.dumps(value, ensure_ascii=False)

    try:
        values = [json.loads(text)]
    except ValueError:
        values = [json.loads(line) for line in text.splitlines()]
    return [leaf for value in values for leaf in walk(value) if pattern.match(leaf)]


def digest(texts: Iterable[str], data: bytes = b"") -> str:
    found = hashlib.sha256("\n".join(texts).encode())
    found.update(data)
    return found.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------------
# Comparison


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns the differences between the results of one case, as lines of text."""
    if "fault" in ours or "fault" in theirs:
        return [f"{side}: {one['fault']}" for side, one in (("tree", ours), ("against", theirs)) if "fault" in one]
    found = []
    for run in sorted({*ours["runs"], *theirs["runs"]}):
        own, other = ours["runs"].get(run), theirs["runs"].get(run)
        if own is None or other is None:
            found.append(f"{run}: only in {'against' if own is None else 'tree'}")
            continue
        found += [f"{run}: {difference}" for difference in run_differences(own, other)]
    for place in theirs["files"]:
        own, other = ours["files"].get(place, {}), theirs["files"][place]
        names = sorted(name for name in {*own, *other} if own.get(name) != other.get(name))
        found += [f"{place}/{name} {'differs' if name in own and name in other else 'is missing'}" for name in names]
    if gone := missing(ours["said"], theirs["said"]):
        found.append(f"answers differ: {gone}")
    return found


def run_differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    if own["steps"] != other["steps"]:
        pairs = zip(own["steps"], other["steps"], strict=False)
        first = next(((a, b) for a, b in pairs if a != b), (["fewer lines"], ["more lines"]))
        yield f"steps differ, first {' '.join(first[0])} against {' '.join(first[1])}"
    if own.get("weights") != other.get("weights"):
        yield "weights differ"
    if gone := missing(own["scores"], other["scores"]):
        yield f"scores differ: {gone}"


def missing(own: Sequence[str], other: Sequence[str]) -> str:
    """Returns how many of the other tree's values are missing, with the first few; "" for none."""
    gone = Counter(other) - Counter(own)
    shown = ", ".join(list(gone)[:3])
    return f"{gone.total()} of {len(other)} values ({shown})" if gone else ""


def digests(result: Mapping[str, Any]) -> str:
    """Returns short digests of a result, for the table."""
    if "fault" in result:
        return "failed"
    runs = result["runs"].values()
    parts = {
        "steps": [" ".join(line) for run in runs for line in run["steps"]],
        "weights": [run["weights"] for run in runs if "weights" in run],
        "scores": [leaf for run in runs for leaf in run["scores"]] + result["said"],
        "files": [f"{name} {value}" for files in result["files"].values() for name, value in files.items()],
    }
    return "  ".join(f"{name} {digest(values)[:10]}" for name, values in parts.items() if values)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Print both sides of every case; returns whether all are equal."""
    different = 0
    for name in sorted({*ours, *theirs}):
        own, other = ours.get(name), theirs.get(name)
        if own is None or other is None:
            print(f"ONLY IN {'AGAINST' if own is None else 'TREE'}  {name}")
            different += own is None
            continue
        found = differences(own, other)
        different += bool(found)
        print(f"{'DIFFERENT' if found else 'equal':9}  {name}")
        print(f"           tree     {digests(own)}")
        print(f"           against  {digests(other)}")
        for difference in found:
            print(f"           ! {difference}")
        for one in (own, other):
            if "error" in one:
                print("".join(f"           | {line}\n" for line in one["error"].splitlines()[-8:]), end="")
        runs = [run for run in own.get("runs", {}) if run in other.get("runs", {})]
        if not found and any(own["runs"][run].get("names") != other["runs"][run].get("names") for run in runs):
            print("           (weights have other names)")
    total = len({*ours, *theirs})
    print(f"{total - different} of {total} cases equal" + (f", {different} DIFFERENT" if different else ""))
    print("not compared: README.md of exports (cost, in seconds) and manifest.json of stores (their day)")
    return not different


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def kept(tree: Tree, names: set[str], cache: Path | None) -> dict[str, dict[str, Any]]:
    """Returns the results of a tree, from the cache where it has them."""
    if cache is None or not tree.signature:
        return {name: one for name, one in tree.run(names).items() if name in names}
    path = cache / f"{hashlib.sha256(tree.signature.encode()).hexdigest()[:12]}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"results": {}}
    results = {n: r for n, r in stored["results"].items() if n in tree.cases and r["key"] == tree.key(n)}
    if lacking := names - results.keys():
        say(f"{len(names) - len(lacking)} of {len(names)} cases are in {path}; the others are run")
        results |= tree.run(lacking)
        cache.mkdir(parents=True, exist_ok=True)
        sound = {name: one for name, one in results.items() if "fault" not in one}
        path.write_text(json.dumps({"signature": tree.signature, "results": sound}), encoding="utf-8")
    return {name: one for name, one in results.items() if name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="source tree; by default this one")
    parser.add_argument("--against", type=Path, help="source tree whose numbers are right")
    parser.add_argument("--cache", type=Path, help="directory that keeps the results of --against")
    parser.add_argument("--only", default="", help="regular expression of cases' names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time, each on one thread")
    parser.add_argument("--work", type=Path, help="directory that keeps runs and logs of both trees; must not exist")
    parser.add_argument("--list", action="store_true", help="print the cases' names and end")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = given.work or Path(temporary) / "work"
        ours = Tree(given.tree, place / "tree", given.jobs)
        names = {name for name in ours.cases if re.search(given.only, name)}
        if given.list:
            print("\n".join(sorted(names)))
            return
        if given.against is None:
            parser.error("give --against PATH")
        theirs = Tree(given.against, place / "against", given.jobs)
        say(f"against {theirs.path}")
        right = kept(theirs, {name for name in theirs.cases if re.search(given.only, name)}, given.cache)
        say(f"tree {ours.path}")
        own = {name: result for name, result in ours.run(names).items() if name in names}
        sys.exit(0 if compare(own, right) else 1)


if __name__ == "__main__":
    main()
