"""Blanks and prompts with the answers of all models side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pretextlm.report.measures import MANY, chose_right
from pretextlm.report.read import Condition, Study

BLANKS, AGREED, PROMPTS = 12, 4, 6
FEWER_BLANKS, FEWER_AGREED, FEWER_PROMPTS = 6, 2, 3
"""The same limits if there are many models."""
BEFORE, AFTER, MAX_TEXT = 180, 110, 600
"""Characters shown: before a blank, after it, of other texts."""


@dataclass(frozen=True)
class Answer:
    """Answer of one model.

    Attributes:
        text: the text it wrote.
        correct: whether that is the expected word; None for a number or a text, which are more or less right.
        chosen, chose_right: its choice among the offered words; None if none were offered.
    """

    index: int
    label: str
    text: str
    correct: bool | None = False
    chosen: str | None = None
    chose_right: bool = False


@dataclass(frozen=True)
class Sample:
    """One blank or prompt with all answers.

    Attributes:
        parts: the text around the blank, or the prompt as one part.
        expected: the right word, "" for a prompt.
    """

    parts: list[str]
    expected: str
    answers: list[Answer]


def blanks(study: Study) -> list[Sample]:
    """Returns blanks that all models answered: first some with different answers, then some with equal ones."""
    samples = _asked(study, "blank", _blank)
    most, agreed = (FEWER_BLANKS, FEWER_AGREED) if _many(samples) else (BLANKS, AGREED)
    samples = [sample for sample in samples if len(sample.answers) == max(len(s.answers) for s in samples)]
    differ = [sample for sample in samples if len({answer.chose_right for answer in sample.answers}) > 1]
    agree = [sample for sample in samples if sample not in differ]
    shown = max(most - len(agree), most - agreed)
    return [*differ[:shown], *agree[: most - min(shown, len(differ))]]


def prompts(study: Study) -> list[Sample]:
    """Returns prompts with the continuation of each finished condition that writes one."""
    samples = _asked(study, "prompt", _prompt)
    return samples[: FEWER_PROMPTS if _many(samples) else PROMPTS]


def _many(samples: list[Sample]) -> bool:
    return max((len(sample.answers) for sample in samples), default=0) > MANY


def silent(study: Study) -> list[str]:
    """Returns the labels of finished conditions that continue no text, if others do."""
    speaking = {c.label for _, c in _answering(study) if any(s.get("kind") == "prompt" for s in c.example.samples)}
    return [c.label for _, c in _answering(study) if c.label not in speaking] if speaking else []


def seeds(study: Study) -> list[int]:
    """Returns the seeds of the runs whose answers are shown."""
    shown = [condition.example.seed for _, condition in _answering(study)]
    return sorted({seed for seed in shown if seed is not None})


def _answering(study: Study) -> list[tuple[int, Condition]]:
    return [(i, condition) for i, condition in enumerate(study.conditions) if condition.finished]


def _asked(study: Study, kind: str, answer: Callable[[int, str, Mapping[str, Any]], Answer]) -> list[Sample]:
    """Returns every question of a kind, in order of appearance, with the answer of each finished condition."""
    answering = _answering(study)
    tables = [{_key(s): s for s in c.example.samples if s.get("kind") == kind} for _, c in answering]
    return [
        Sample(
            _parts(text),
            expected,
            [
                answer(i, c.label, table[text, expected])
                for (i, c), table in zip(answering, tables, strict=True)
                if (text, expected) in table
            ],
        )
        for text, expected in dict.fromkeys(key for table in tables for key in table)
    ]


def _key(sample: Mapping[str, Any]) -> tuple[str, str]:
    return _word(sample, "text"), _word(sample, "expected")


def _blank(index: int, label: str, sample: Mapping[str, Any]) -> Answer:
    chosen = sample.get("chosen")
    return Answer(
        index,
        label,
        short(_word(sample, "answer")),
        sample.get("correct") is True,
        short(chosen) if isinstance(chosen, str) else None,
        chose_right(sample),
    )


def _prompt(index: int, label: str, sample: Mapping[str, Any]) -> Answer:
    return Answer(index, label, short(_word(sample, "answer").removeprefix(_word(sample, "text")).strip()))


def _word(sample: Mapping[str, Any], key: str) -> str:
    value = sample.get(key)
    return value if isinstance(value, str) else ""


def _parts(text: str) -> list[str]:
    """Returns the text on either side of the blank, shortened for reading."""
    before, blank, after = text.partition("____")
    if not blank:
        return [short(text)]
    begins = len(before) <= BEFORE
    left = before if begins else before[-BEFORE:].partition(" ")[2]
    right = after if len(after) <= AFTER else after[:AFTER].rpartition(" ")[0]
    whole = begins and before[:1].isupper()
    return [left if whole else f"… {left}", right if right.endswith((".", "!", "?")) else f"{right} …"]


def short(text: str) -> str:
    """Returns a text up to the number of characters that is shown."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT].rstrip() + " …"
