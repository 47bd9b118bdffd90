"""Definitions of benchmarks: small TOML files with the place of the rows, the templates of prompts, and the metrics.

title = "ARC-easy: science questions of grade school"
folder = "arc-easy"                               directory of a local copy: DATA/arc-easy/test.jsonl
hub = { path = "allenai/ai2_arc", name = "ARC-Easy" }
prompt = "Question: {{ question }}\\nAnswer:"      a template (Jinja) over the form's values

[[forms]]                                         layouts of rows: the first form that fits the first row
question = "question"
choices = "choices.text"                          an expression over the row's columns
answer = "choices.label.index(answerKey)"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pretextlm.config import Config, apply_overrides, read_toml
from pretextlm.errors import UserError, did_you_mean
from pretextlm.file_names import suffix_of

DEFINITIONS = Path(__file__).parent / "definitions"
Kind = Literal["choice", "last_word", "bias", "truths"]


class Hub(Config):
    """The place of the rows on the Hugging Face hub.

    Attributes:
        path, name: of the data set and its configuration; "*" for all configurations.
        split, shots: names of the split that is scored, and of the one that few-shot examples come from.
    """

    path: str
    name: str | None = None
    split: str = "test"
    shots: str = "train"


class HarnessTask(Config):
    """The same benchmark in lm-eval, and the layout of its rows there.

    Attributes:
        task: its name; {group} is replaced by the name of a group of rows that is a task of its own.
        split, shots: names of these splits there.
        columns: expressions over the values of our forms.
    """

    task: str
    split: str = "test"
    shots: str = "train"
    columns: dict[str, str]


class Benchmark(Config):
    """One benchmark.

    Attributes:
        name: on the command line; of a user's own file, the file's name.
        title, paper: for readers.
        kind: "choice": one of several continuations is right; "last_word": the last word of a text is right; "bias":
            of two sentences, the first is the stereotyped one; "truths": several continuations are true, and measured
            is their share of the probability of all.
        folder: of a local copy, below the directory of data.
        splits: possible names of the scored split's file; the first that exists is taken.
        shots_from: possible names of the file that few-shot examples come from.
        whole_folder: all files of the folder are scored.
        description: template of the text before everything else.
        prompt, choice: templates of the context and of the continuation that is scored, the latter filled once for
            each of `choices`, as `choice`. The prompt may hold `choice`, too.
        delimiter, separator: text between prompt and choice, and after each few-shot example.
        shots: default number of few-shot examples.
        first_shots: the examples are the first ones of the question's group; otherwise random for each question.
        by_length: also measure the accuracy by log-likelihood per character.
        macro_f1: also measure the F1 score averaged over the numbers of the choices.
        forms: for each layout of rows, expressions for `choices`, `answer` (its index), `group` where rows are of
            several, and all other names in the templates; of kind "last_word", `text`; of kind "truths", in place of
            `answer`, `labels`: 1 for each choice that is true, else 0.
        harness: the same benchmark in lm-eval.
    """

    name: str = ""
    title: str
    paper: str = ""
    kind: Kind = "choice"
    folder: str = ""
    splits: tuple[str, ...] = ("test", "validation", "valid", "val", "dev")
    shots_from: tuple[str, ...] = ("train",)
    whole_folder: bool = False
    hub: Hub | None = None
    description: str = ""
    prompt: str = ""
    choice: str = "{{ choice }}"
    delimiter: str = " "
    separator: str = "\n\n"
    shots: int = Field(0, ge=0)
    first_shots: bool = False
    by_length: bool = True
    macro_f1: bool = False
    forms: tuple[dict[str, str], ...]
    harness: HarnessTask | None = None

    @model_validator(mode="after")
    def _forms_are_whole(self) -> Self:
        needed = {"last_word": {"text"}, "truths": {"choices", "labels"}}.get(self.kind, {"choices", "answer"})
        if not self.forms:
            raise ValueError("it has no form, which names the columns of the rows")
        for form in self.forms:
            if missing := sorted(needed - form.keys()):
                raise ValueError(f"a form lacks {' and '.join(missing)}")
        return self


def names() -> list[str]:
    """Returns the names of the built-in benchmarks."""
    return sorted(path.stem for path in DEFINITIONS.glob("*.toml"))


def find(name: str) -> Benchmark:
    """Returns a benchmark by its name, or from a user's own TOML file.

    Keys of the definition may follow a question mark: `blimp?delimiter=` for sentences without a space before them.
    They are then part of the benchmark's name.

    Raises:
        UserError: there is none.
    """
    name, mark, options = name.partition("?")
    is_file = suffix_of(Path(name)) == ".toml"
    path = Path(name) if is_file else DEFINITIONS / f"{name}.toml"
    if not is_file and name not in names():
        raise UserError(f"There is no benchmark named {name!r}.", did_you_mean(name, names()))
    values = apply_overrides(_plain(read_toml(path)), options.split("&") if mark else ())
    return Benchmark.parse({**values, "name": f"{path.stem}{mark}{options}"}, f"the benchmark {path.stem}")


def find_all(spec: str) -> list[Benchmark]:
    """Returns benchmarks by comma-separated names; a name that ends with * matches all that begin with it.

    Raises:
        UserError: a name matches none.
    """
    found: dict[str, Benchmark] = {}
    for name in filter(None, (part.strip() for part in spec.split(","))):
        many = [known for known in names() if known.startswith(name[:-1])] if name.endswith("*") else [name]
        if not many:
            raise UserError(f"No benchmark begins with {name[:-1]!r}.", f"Known: {', '.join(names())}.")
        for benchmark in map(find, many):
            found[benchmark.name] = benchmark
    if not found:
        raise UserError("No benchmark is named.", f"Known: {', '.join(names())}.")
    return list(found.values())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    if "name" in values:
        raise UserError("A benchmark's file gives its own name.", "Leave out `name`: the file's name is it.")
    return values
