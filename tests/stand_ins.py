"""What a reader of the documentation has at hand: texts, records, a published model, and runs trained before.

Each is known by the name that the documentation gives it, is made small, and only when a command asks for it.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import shutil
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks import same_numbers
from benchmarks.same_numbers import Records, write_lines

from pretextlm.config import apply_overrides
from pretextlm.shipped_recipes import find_shipped
from tests import builders, foreign
from tests.builders import documents, sentences

Run = Callable[..., None]
"""Runs a command of pretextlm, given by its words, in the current directory."""

FAST = ["training.validations=0", "training.device=cpu", "training.dtype=fp32", "training.compile=off"]
SMALL = [*FAST, "training.batch_tokens=512", "training.budget_steps=1"]
SMALL += ["data.length=48", "evaluation.blanks=4", "evaluation.prompts=1"]
SHAPE = ["model.hidden_size=32", "model.num_hidden_layers=2", "model.num_attention_heads=2"]
TUNED = [*FAST, "training.batch_rows=4", "data.length=64"]


class StandIns:
    """Makes what is asked for by name in one directory, and copies it to where a command looks for it.

    Args:
        place: directory of the originals.
        run: runs a command.
    """

    def __init__(self, place: Path, run: Run) -> None:
        self.place, self.run = place, run

    def provide(self, name: str, target: Path) -> None:
        """Puts what is called `name` at `target` if it is something that a reader has and is not there yet."""
        name = name.rstrip("/")
        if target.exists() or name not in MADE:
            return
        source = self.get(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    def get(self, name: str) -> Path:
        """Returns the path of the original."""
        path = self.place / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            before = os.getcwd()
            os.chdir(self.place)
            try:
                MADE[name](self, path)
            finally:
                os.chdir(before)
        return path

    def records(self, recipe: str, changes: Sequence[str] = ()) -> list[Path]:
        """Returns files of training and validation records for a recipe of a task with overrides of its columns."""
        shipped = find_shipped(recipe)
        assert shipped is not None, f"{recipe} is a recipe of the package"
        values = apply_overrides(tomllib.loads(shipped.path.read_text(encoding="utf-8")), changes)
        place = self.place / "records" / shipped.path.stem / str(len(changes))
        if not place.exists():
            task = values.get("recipe", values)["task"]
            written, rng = Records(task, recipe), random.Random(recipe)
            for split, count in (("train", max(16, len(task.get("labels", [])))), ("validation", 6)):
                write_lines(place / f"{split}.jsonl", [written.one(rng, number, split) for number in range(count)])
        return [place / "train.jsonl", place / "validation.jsonl"]

    def start_of(self, recipe: str) -> str:
        """Returns the name of a run that a task's recipe can start from."""
        shipped = find_shipped(recipe)
        assert shipped is not None, f"{recipe} is a recipe of the package"
        values = tomllib.loads(shipped.path.read_text(encoding="utf-8"))
        task = values.get("recipe", values)["task"]["name"]
        return {"instruction": "runs/a_causal_run", "text_to_text": "runs/t5"}.get(task, "runs/encoder")


Make = Callable[[StandIns, Path], None]


def _text(count: int = 60, seed: int = 0) -> Make:
    def make(_: StandIns, path: Path) -> None:
        texts = documents(count, seed)
        if not path.suffix:
            path.mkdir()
            for number, text in enumerate(texts):
                (path / f"{number:03}.txt").write_text(text, encoding="utf-8")
        elif ".jsonl" in path.suffixes:
            _write(path, [json.dumps({"text": text}) for text in texts])
        else:
            _write(path, texts)

    return make


def _write(path: Path, lines: Iterable[str]) -> None:
    write_file(path, "".join(f"{line}\n" for line in lines).encode())


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _columns(**columns: Callable[[int, str], Any]) -> Make:
    """A file of records: the value of each column by the record's number and a sentence."""

    def make(_: StandIns, path: Path) -> None:
        records = [{k: of(n, text) for k, of in columns.items()} for n, text in enumerate(sentences(32, seed=3))]
        if path.suffix == ".jsonl":
            write_lines(path, records)
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(columns), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(records)

    return make


def _text_of(number: int, text: str) -> str:
    return text


def _sentiment(number: int, text: str) -> str:
    return ("negative", "positive")[number % 2]


def _store(*options: str) -> Make:
    def make(stand_ins: StandIns, path: Path) -> None:
        stand_ins.run("data", "prepare", str(stand_ins.get("corpus")), "--out", str(path), *options)

    return make


def _pretrained(recipe: str, store: str, *options: str) -> Make:
    def make(stand_ins: StandIns, path: Path) -> None:
        words = [f"data.store={stand_ins.get(store)}", *SMALL, *SHAPE, *options]
        stand_ins.run("pretrain", recipe, *words, "--out", str(path))

    return make


def _fine_tuned(recipe: str, *options: str) -> Make:
    def make(stand_ins: StandIns, path: Path) -> None:
        train, validation = stand_ins.records(recipe)
        start = stand_ins.get(stand_ins.start_of(recipe))
        data = [f"data.train={train}", f"data.validation={validation}", "training.budget_steps=1"]
        words = [f"start={start}", *data, *TUNED, *options]
        stand_ins.run("finetune", recipe, *words, "--out", str(path))

    return make


def _bert(layers: int) -> Make:
    """A published encoder of this depth, whose tokenizer knows the words of our texts."""

    def make(_: StandIns, path: Path) -> None:
        lists = (*vars(builders).values(), *vars(same_numbers).values())
        phrases = [phrase for one in lists if isinstance(one, list) for phrase in one if isinstance(phrase, str)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(foreign, "WORDS", [*foreign.WORDS, *sorted(set(" ".join(phrases).lower().split()))])
            size = foreign.word_pieces().get_vocab_size()
            for key, value in (("num_hidden_layers", layers), ("max_position_embeddings", 512), ("vocab_size", size)):
                patch.setitem(foreign.BERT, key, value)
            foreign.bert_directory(path)

    return make


def _imported(name: str) -> Make:
    def make(stand_ins: StandIns, path: Path) -> None:
        stand_ins.run("import", str(stand_ins.get(name)), "--out", str(path))

    return make


def _published(made: StandIns, run: Path, path: Path) -> None:
    """A run that was exported and imported again, so that it does not know the columns that it was trained on."""
    made.run("export", str(run), f"{path}-exported")
    made.run("import", f"{path}-exported", "--out", str(path))


def _copied(recipe: str, split: int) -> Make:
    return lambda stand_ins, path: write_file(path, stand_ins.records(recipe)[split].read_bytes())


def _articles(_: StandIns, path: Path) -> None:
    asked = [
        {"id": str(n), "question": "What?", "answers": [{"text": text[:5].strip(), "answer_start": 0}]}
        for n, text in enumerate(sentences(8))
    ]
    paragraphs = [{"context": text, "qas": [one]} for text, one in zip(sentences(8), asked, strict=True)]
    write_file(path, json.dumps({"data": [{"title": "Of all", "paragraphs": paragraphs}]}).encode())


def _ratings(_: StandIns, path: Path) -> None:
    rows = [f"{number}\t{text}\t{number % 2}" for number, text in enumerate(sentences(8))]
    _write(path, ["id\tdocument\tlabel", *rows, "9\t\t0"])


def _questions(_: StandIns, path: Path) -> None:
    four = [{"question": text, "choices": ["warm bread", "a letter", "no", "yes"]} for text in sentences(8)]
    numbered = [{**one, "answer": number % 4} for number, one in enumerate(four)]
    write_lines(path / "arc-easy" / "test.jsonl", numbered)
    for split in ("dev", "test"):
        write_lines(path / "mmlu" / f"{split}.jsonl", [{**one, "subject": "anatomy"} for one in numbered])


_words = ("--vocab-size", "512")
MADE: dict[str, Make] = {
    **dict.fromkeys(("corpus", "말뭉치", "my_text", "내_글", "books"), _text(240)),
    **dict.fromkeys(
        ("more.jsonl.gz", "더.jsonl.gz", "reviews.jsonl", "imdb.jsonl.gz", "kowiki.jsonl.gz"), _text(40, 2)
    ),
    **dict.fromkeys(
        ("reviews.txt.gz", "reviews.txt", "speeches.txt", "input.txt", "wiki.valid.txt", "CAPTIONS.jsonl"), _text(40, 4)
    ),
    "notes.md": _text(20, 6),
    "news.jsonl": _columns(article=_text_of, summary=_text_of),
    "other.jsonl": _copied("sst2", 1),
    "다른_파일.jsonl": _copied("nsmc", 1),
    "dev.jsonl": _columns(
        sentence=_text_of,
        document=_text_of,
        label=_sentiment,
        ctx=_text_of,
        a=_text_of,
        b=_text_of,
        gold=lambda n, _: 1 + n % 2,
    ),
    "diagnostic-full.tsv": _columns(
        Premise=_text_of, Hypothesis=_text_of, Label=lambda n, _: ("entailment", "neutral", "contradiction")[n % 3]
    ),
    **dict.fromkeys(("KorQuAD_v1.0_train.json", "KorQuAD_v1.0_dev.json"), _articles),
    **dict.fromkeys(("ratings_train.txt", "ratings_test.txt"), _ratings),
    "reviews.csv": _columns(review=_text_of),
    "sst2/train.jsonl": _columns(sentence=_text_of, label=_sentiment),
    "stores/mine": _store(*_words),
    "stores/sotu": _store(*_words),
    "stores/speeches": _store(*_words),
    "stores/other": lambda made, path: _store("--tokenizer", str(made.get("stores/mine")))(made, path),
    "stores/web": _store(*_words),
    "stores/wikipedia": _store(*_words),
    "stores/multi30k": _store(*_words),
    "stores/shakespeare": _store("--tokenizer", "character", "--sentinels", "0"),
    "stores/bert": lambda made, path: _store("--tokenizer", str(made.get("runs/bert")))(made, path),
    "path/to/bert": _bert(6),
    "path/to/bert-base": _bert(12),
    "runs/bert": _imported("path/to/bert"),
    "runs/bert-base": _imported("path/to/bert-base"),
    "runs/encoder": _imported("path/to/bert"),
    "runs/minilm": _imported("path/to/bert"),
    "runs/mine": _pretrained("masked", "stores/mine"),
    "runs/masked": _pretrained("masked", "stores/sotu"),
    "runs/speeches": _pretrained("causal", "stores/speeches"),
    "runs/a_causal_run": _pretrained("causal", "stores/mine"),
    "runs/인과_모델": _pretrained("causal", "stores/mine"),
    "runs/t5": _pretrained("span_corruption", "stores/mine"),
    "runs/ko": _pretrained("masked", "stores/mine"),
    "runs/sst2": _fine_tuned("sst2"),
    "runs/nsmc": _fine_tuned("nsmc"),
    "runs/mnli": _fine_tuned("mnli"),
    "runs/rte": _fine_tuned("rte"),
    "runs/swag-trained": _fine_tuned("swag"),
    "runs/swag": lambda made, path: _published(made, made.get("runs/swag-trained"), path),
    "runs/wnut17": _fine_tuned("wnut17"),
    "runs/sst2-lora": _fine_tuned("sst2", "tuning.lora={rank=4}"),
    "runs/sst2-half": lambda made, path: made.run(
        "prune", str(made.get("runs/sst2")), "--layers", "0,2,4", "--out", str(path)
    ),
    "questions": _questions,
}
"""Name in the documentation → how it is made."""
