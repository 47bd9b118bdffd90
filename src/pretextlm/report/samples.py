"""The same blanks and prompts, answered by every model, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pretextlm.report.read import Condition, Study

BLANKS, AGREED, PROMPTS = 12, 4, 6
MAX_TEXT = 600


@dataclass(frozen=True)
class Answer:
    """What one model said; `correct` is None where nothing is right or wrong."""

    index: int
    label: str
    text: str
    correct: bool | None = None


@dataclass(frozen=True)
class Sample:
    """One question with all answers.

    Attributes:
        parts: the text around the blank, or the prompt as one part.
        expected: the right word, "" for a prompt.
    """

    parts: list[str]
    expected: str
    answers: list[Answer]


def blanks(study: Study) -> list[Sample]:
    """Blanks that all finished conditions answered: some on which they differ, then some on which they do not."""
    samples = _common(study, "blank", lambda s: (_word(s, "text"), _word(s, "expected")), _blank)
    differ = [sample for sample in samples if len({answer.correct for answer in sample.answers}) > 1]
    agree = [sample for sample in samples if sample not in differ]
    shown = max(BLANKS - len(agree), BLANKS - AGREED)
    return [*differ[:shown], *agree[: BLANKS - min(shown, len(differ))]]


def prompts(study: Study) -> list[Sample]:
    """Prompts that all finished conditions continued."""
    return _common(study, "prompt", lambda s: (_word(s, "text"), ""), _prompt)[:PROMPTS]


def seeds(study: Study) -> list[int]:
    """The seeds of the runs whose answers are shown."""
    shown = [condition.example.seed for _, condition in _answering(study)]
    return sorted({seed for seed in shown if seed is not None})


def _answering(study: Study) -> list[tuple[int, Condition]]:
    return [(i, condition) for i, condition in enumerate(study.conditions) if condition.finished]


def _common(
    study: Study,
    kind: str,
    key: Callable[[Mapping[str, Any]], tuple[str, str]],
    answer: Callable[[int, Condition, Mapping[str, Any]], Answer],
) -> list[Sample]:
    answering = _answering(study)
    tables = [{key(s): s for s in c.example.samples if s.get("kind") == kind} for _, c in answering]
    if not tables:
        return []
    return [
        Sample(
            _parts(text),
            expected,
            [answer(i, c, t[text, expected]) for (i, c), t in zip(answering, tables, strict=True)],
        )
        for text, expected in tables[0]
        if all((text, expected) in t for t in tables)
    ]


def _blank(index: int, condition: Condition, sample: Mapping[str, Any]) -> Answer:
    return Answer(index, condition.label, _short(_word(sample, "answer")), sample.get("correct") is True)


def _prompt(index: int, condition: Condition, sample: Mapping[str, Any]) -> Answer:
    answer = _word(sample, "answer").removeprefix(_word(sample, "text"))
    return Answer(index, condition.label, _short(answer))


def _word(sample: Mapping[str, Any], key: str) -> str:
    value = sample.get(key)
    return value if isinstance(value, str) else ""


def _parts(text: str) -> list[str]:
    before, blank, after = text.partition("____")
    return [_tail(before), _short(after)] if blank else [_short(before)]


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT].rstrip() + " …"


def _tail(text: str) -> str:
    return text if len(text) <= MAX_TEXT else "… " + text[-MAX_TEXT:].lstrip()
