"""What is fuzzed: one function per parser. It reads bytes as a file, and may raise nothing but a `UserError`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from pretextlm.config import apply_overrides, read_toml
from pretextlm.data.file_formats import DocumentReader, ReadOptions
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import read_records
from pretextlm.data.tokenizer import load_tokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.prompt_files import read_conversations, read_examples, read_prompts
from pretextlm.hf.hf_config import read_config
from pretextlm.hf.import_tokenizer import import_tokenizer
from pretextlm.hf.safetensors_files import read_tensor_infos
from pretextlm.report.page import render
from pretextlm.report.read import read
from pretextlm.study.task_plan import load_plan
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from tests.builders import make_run, make_store

CORPUS = Path(__file__).parent / "corpus"
"""A directory of seeds for each target. A file that once broke a parser is kept there under the name of its fault."""

Target = Callable[[bytes, Path], None]
"""Reads bytes as a file in a directory, which is empty."""


def attempt(*parsers: Callable[[], object]) -> None:
    """Calls each parser; what it refuses, the next may still read."""
    for parse in parsers:
        with suppress(UserError):
            parse()


def _file(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def recipe(data: bytes, directory: Path) -> None:
    path = _file(directory, "recipe.toml", data)
    attempt(lambda: Recipe.load(path), lambda: read_toml(path))


def overrides(data: bytes, directory: Path) -> None:
    lines = data.decode(errors="replace").split("\n")
    recipe = {"data": {"store": "s"}, "objective": "causal", "training": {"budget_steps": 1}}
    attempt(lambda: Recipe.load(recipe, overrides=lines), *(partial(apply_overrides, {}, [one]) for one in lines))


def study(data: bytes, directory: Path) -> None:
    path = _file(directory, "study.toml", data)
    attempt(lambda: load_plan(path))


def _records(name: str) -> Target:
    def parse(data: bytes, directory: Path) -> None:
        path = _file(directory, name, data)
        records = []
        attempt(lambda: records.append(read_records(str(path), {"text": "text", "label": "label"})))
        for one in records:
            attempt(partial(one.texts, "text"), partial(one.labels, "label"), partial(one.numbers, "label"))
        attempt(lambda: list(DocumentReader(ReadOptions()).read(path)))

    return parse


def tokenizer(data: bytes, directory: Path) -> None:
    path = _file(directory, "tokenizer.json", data)
    attempt(lambda: OffsetTokenizer(load_tokenizer(path)).encode(["The river."]))


def config(data: bytes, directory: Path) -> None:
    _file(directory, "config.json", data)
    attempt(lambda: read_config(directory))


def weights(data: bytes, directory: Path) -> None:
    _file(directory, "model.safetensors", data)
    attempt(lambda: read_tensor_infos(directory))


def weights_index(data: bytes, directory: Path) -> None:
    _file(directory, "model.safetensors.index.json", data)
    attempt(lambda: read_tensor_infos(directory))


def vocabulary(data: bytes, directory: Path) -> None:
    _file(directory, "vocab.txt", data)
    attempt(lambda: import_tokenizer(directory))


def prompts(data: bytes, directory: Path) -> None:
    for name in ("prompts.jsonl", "prompts.txt"):
        path = _file(directory, name, data)
        attempt(lambda: read_prompts(path), lambda: read_examples(path), lambda: read_conversations(path))


def run_files(data: bytes, directory: Path) -> None:
    """A run in which other files than its recipe and tokenizer hold anything."""
    run = directory / "run"
    shutil.copytree(_a_run(), run, ignore=shutil.ignore_patterns("checkpoints"))
    for name in ("cost.json", "evaluation.json", "environment.json", "metrics.jsonl", "samples.json"):
        _file(run, name, data)
    attempt(lambda: render(read([run])), lambda: Run.open(run).cost(), lambda: Run.open(run).metrics())


@cache
def _a_run() -> Path:
    place = Path(tempfile.mkdtemp(prefix="pretextlm-fuzz-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return make_run(make_store(place / "store"), place / "run")


TARGETS: dict[str, Target] = {
    "recipe": recipe,
    "overrides": overrides,
    "study": study,
    "jsonl": _records("rows.jsonl"),
    "json": _records("rows.json"),
    "csv": _records("rows.csv"),
    "tsv": _records("rows.tsv"),
    "conll": _records("rows.conll"),
    "parquet": _records("rows.parquet"),
    "tokenizer": tokenizer,
    "config": config,
    "weights": weights,
    "weights_index": weights_index,
    "vocabulary": vocabulary,
    "prompts": prompts,
    "run_files": run_files,
}
