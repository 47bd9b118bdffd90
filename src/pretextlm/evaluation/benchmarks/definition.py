"""What a benchmark is: a small TOML file that says where its rows are, how they are worded, and what is counted.

title = "ARC-easy: science questions of grade school"
folder = "arc-easy"                               where a local copy stands: DATA/arc-easy/test.jsonl
hub = { path = "allenai/ai2_arc", name = "ARC-Easy" }
prompt = "Question: {{ question }}\\nAnswer:"      a template (Jinja) over what the rows give

[[forms]]                                         how rows may be written: the first form that fits the first row
question = "question"
choices = "choices.text"                          an expression over the row's columns
answer = "choices.label.index(answerKey)"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pretextlm.config import Config, read_toml
from pretextlm.errors import UserError, did_you_mean

DEFINITIONS = Path(__file__).parent / "definitions"
Kind = Literal["choice", "last_word", "bias"]


class Hub(Config):
    """Where the rows are on the Hugging Face hub.

    Attributes:
        path, name: of the data set and its configuration; "*" for all configurations.
        split, shots: which of its parts is asked, and which examples are shown from.
    """

    path: str
    name: str | None = None
    split: str = "test"
    shots: str = "train"


class HarnessTask(Config):
    """The same benchmark in lm-eval, and how its rows are written there.

    Attributes:
        task: its name; {group} stands for the name of a group of rows that is a task of its own.
        split, shots: what that task calls the part that is asked, and the one examples are shown from.
        columns: expressions over what our forms give.
    """

    task: str
    split: str = "test"
    shots: str = "train"
    columns: dict[str, str]


class Benchmark(Config):
    """One benchmark.

    Attributes:
        name: how it is asked for; of a file of the user's own, the file's name.
        title, paper: for people.
        kind: "choice": one of several continuations is right; "last_word": the model is to write the last word of a
            text; "bias": of two sentences, how often the first is preferred.
        folder: where a local copy stands below the directory of data.
        splits: names of the file that is asked, the first that is there.
        shots_from: names of the file that examples are shown from.
        whole_folder: every file of the folder belongs to it.
        description: template of what stands before everything.
        prompt, choice: templates of what is given and of what is weighed, the latter once for each of `choices`, as
            `choice`; the prompt may hold `choice` too, and what is weighed is then alike.
        delimiter, separator: between prompt and choice, and after each example that is shown.
        shots: how many examples are shown where the user does not say.
        first_shots: always the first ones of the question's group; else drawn anew for each question.
        by_length: accuracy by log-likelihood per character is worth knowing.
        macro_f1: the published measure is the F1 score, averaged over the choices' numbers.
        forms: for each way rows are written, expressions for `choices`, `answer` (its index), `group` where rows are of
            several, and whatever the templates use; of kind "last_word", `text`.
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
        needed = {"text"} if self.kind == "last_word" else {"choices", "answer"}
        if not self.forms:
            raise ValueError("it has no form, which says what the rows' columns are")
        for form in self.forms:
            if missing := sorted(needed - form.keys()):
                raise ValueError(f"a form lacks {' and '.join(missing)}")
        return self


def names() -> list[str]:
    """The benchmarks that are known by name."""
    return sorted(path.stem for path in DEFINITIONS.glob("*.toml"))


def find(name: str) -> Benchmark:
    """A benchmark by its name, or of a TOML file of the user's own. Raises UserError when there is none."""
    path = Path(name) if name.endswith(".toml") else DEFINITIONS / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise UserError(f"There is no benchmark named {name!r}.", did_you_mean(name, names()))
    return Benchmark.parse({**_plain(read_toml(path)), "name": path.stem}, str(path))


def find_all(spec: str) -> list[Benchmark]:
    """Benchmarks by names with commas between them; a name that ends with * stands for all that begin so."""
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
