"""From a row to contexts and continuations: a benchmark's forms and templates, and the few-shot examples.

row        {"question": "Which is a metal?", "choices": ["iron", "water"], "answer": 0}
context    Question: Which is a metal?⏎Answer:          continuations   " iron"   " water"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import StrictUndefined, TemplateError, Undefined, meta
from jinja2.sandbox import SandboxedEnvironment

from pretextlm.counter_rng import permute
from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import Benchmark
from pretextlm.evaluation.benchmarks.rows import Record

Values = dict[str, Any]
"""The values of a form for one row, by name."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        contexts, continuations: one of each for every choice.
        sizes: characters of each choice, without the delimiter before it.
        answer: index of the right one, or of the first that is true.
        group: its group of questions; "" where there is one group.
        labels: of each choice whether it is true, if several may be.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    sizes: tuple[int, ...]
    answer: int
    group: str
    labels: tuple[bool, ...] = ()


class Wording:
    """A benchmark's forms and templates, compiled.

    Raises:
        UserError: one of them is not a template.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self._environment = _environment()
        compiled = self._compiled
        self._forms = [
            (self._columns_of(form), {key: compiled(text, self._expression) for key, text in form.items()})
            for form in benchmark.forms
        ]
        self._description = compiled(benchmark.description, self._environment.from_string)
        self._prompt = compiled(benchmark.prompt, self._environment.from_string)
        self._choice = compiled(benchmark.choice, self._environment.from_string)
        columns = benchmark.harness.columns if benchmark.harness else {}
        self._harness = {name: compiled(text, self._expression) for name, text in columns.items()}

    def values(self, records: Sequence[Record]) -> list[Values]:
        """Returns the values of every row; the form that fits the first row is used for all.

        Raises:
            UserError: a row is bad; the message names it.
        """
        if not records:
            return []
        there = records[0].values.keys()
        form = next((form for columns, form in self._forms if columns <= there), None)
        if form is None:
            kinds = " or ".join(", ".join(sorted(columns)) for columns, _ in self._forms)
            raise UserError(
                f"{records[0].where}: the columns {', '.join(map(str, records[0].values))} are not those of "
                f"{self.benchmark.name}.",
                f"It reads {kinds}.",
            )
        return [self._checked(form, record) for record in records]

    def question(self, values: Values, shown: Sequence[Values] = ()) -> Question:
        """Returns a question after some examples."""
        group = str(values.get("group", ""))
        before = "".join(self._shown(example) for example in shown)
        before = self._fill(self._description, values) + before
        if self.benchmark.kind == "last_word":
            context, word = self._last_word(values)
            return Question((before + context,), (word,), (len(word),), 0, group)
        contexts, choices = zip(*(self._worded(values, choice) for choice in values["choices"]), strict=True)
        continuations = tuple(self.benchmark.delimiter + choice for choice in choices)
        sizes = tuple(len(choice) for choice in choices)
        texts, labels = tuple(before + text for text in contexts), tuple(values.get("labels", ()))
        return Question(texts, continuations, sizes, values["answer"], group, labels)

    def harness_row(self, values: Values) -> Values:
        """Returns the same row in the layout of lm-eval's task."""
        return {name: expression(values) for name, expression in self._harness.items()}

    def _shown(self, values: Values) -> str:
        if self.benchmark.kind == "last_word":
            return str(values["text"]) + self.benchmark.separator
        context, choice = self._worded(values, values["choices"][values["answer"]])
        return context + self.benchmark.delimiter + choice + self.benchmark.separator

    def _worded(self, values: Values, choice: str) -> tuple[str, str]:
        filled = {**values, "choice": choice}
        return self._fill(self._prompt, filled), self._fill(self._choice, filled)

    def _fill(self, template: Any, values: Values) -> str:
        try:
            return str(template.render(values))
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise UserError(
                f"{values['where']}: the row does not fit the wording of {self.benchmark.name}: {error}.",
                "Mend the row, or take it out.",
            ) from None

    def _last_word(self, values: Values) -> tuple[str, str]:
        context, _, word = values["text"].rpartition(" ")
        return context, " " + word

    def _columns_of(self, form: Mapping[str, str]) -> set[str]:
        """Returns the columns that a form reads."""
        found: set[str] = set()
        for expression in form.values():
            names = meta.find_undeclared_variables(self._environment.parse("{{ " + expression + " }}"))
            found |= (names - {"row"}) | set(re.findall(r"row\['(.*?)'\]", expression))
        return found

    def _expression(self, text: str) -> Callable[..., Any]:
        return self._environment.compile_expression(text, undefined_to_none=False)

    def _checked(self, form: Mapping[str, Callable[..., Any]], record: Record) -> Values:
        found: Values = {"where": record.where}
        for key, expression in form.items():
            try:
                value = expression({**{str(k): v for k, v in record.values.items()}, "row": record.values})
            except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
                raise self._bad(record, f"{key} cannot be read: {error}") from None
            if isinstance(value, Undefined) or value is None:
                raise self._bad(record, f"there is no {key}")
            found[key] = value
        if self.benchmark.kind == "last_word":
            text = found["text"]
            if not isinstance(text, str) or " " not in text.strip() or text.endswith(" "):
                raise self._bad(record, "the text has no last word behind a space")
            return found
        choices = found["choices"]
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise self._bad(record, "there are not at least two choices")
        if not all(isinstance(choice, str) and choice.strip() for choice in choices):
            raise self._bad(record, "a choice is empty or no text")
        if self.benchmark.kind == "truths":
            labels = [_number(label) for label in found["labels"]]
            if len(labels) != len(choices) or not set(labels) == {0, 1}:
                raise self._bad(record, f"the labels {labels!r} are not a 0 or 1 for each choice, of both at least one")
            found |= {"labels": [label == 1 for label in labels], "answer": labels.index(1)}
        number = _number(answer := found["answer"])
        if number is None or not 0 <= number < len(choices):
            raise self._bad(record, f"the answer {answer!r} is none of the {len(choices)} choices")
        return {**found, "choices": list(choices), "answer": number}

    def _bad(self, record: Record, problem: str) -> UserError:
        return UserError(f"{record.where}: {problem}.", f"{self.benchmark.name}: mend the row, or take it out.")

    def _compiled(self, text: str, how: Callable[..., Any]) -> Any:
        try:
            return how(text)
        except TemplateError as error:
            raise UserError(
                f"{self.benchmark.name}: {text!r} is no template: {error}.", "See Jinja's syntax."
            ) from None


def shots_of(
    benchmark: Benchmark, pool: Sequence[Values], number: int, question: Values, count: int, seed: int, same: bool
) -> list[Values]:
    """Returns the few-shot examples before question `number`.

    Args:
        benchmark: definition.
        pool: rows to choose from.
        number: of the question.
        question: its values.
        count: of examples.
        seed: of the random choice; with `benchmark.first_shots` they are the first rows of the question's group.
        same: the pool is the questions themselves, and the question is left out.

    Raises:
        UserError: there are fewer examples.
    """
    if not count:
        return []
    if benchmark.first_shots:
        own = [values for values in pool if values.get("group") == question.get("group") and values is not question]
        found = own[:count]
    else:
        chosen = permute(np.arange(min(count + 1, len(pool))), len(pool), seed, number).tolist()
        found = [pool[place] for place in chosen if not (same and place == number)][:count]
    if len(found) < count:
        raise UserError(
            f"{benchmark.name}: {count} examples are to be shown, and there are {len(found)}.", "Show fewer: --shots N."
        )
    return found


def _number(value: Any) -> int | None:
    if isinstance(value, bool | int):
        return int(value)
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else None


def _strict_number(value: Any) -> int:
    number = _number(value)
    if number is None:
        raise ValueError(f"{value!r} is not an integer")
    return number


def _wikihow(text: str) -> str:
    """Returns a text of HellaSwag without the markup of wikiHow's pages."""
    without = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return without.replace("  ", " ")


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"number": _strict_number, "wikihow": _wikihow}
    return environment
