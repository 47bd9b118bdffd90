"""Records of a task with the answers of all models side by side: some that a model gets wrong, and some right ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pretextlm.report.read import Study
from pretextlm.report.samples import Answer, Sample, short

WRONG, RIGHT = 6, 4
OUTSIDE = "O"
WRITTEN = ("text_to_text", "instruction")
"""Tasks whose answers are texts, which are rarely equal to the reference and not wrong for that."""


def records(study: Study) -> list[Sample]:
    """Returns records that all finished conditions answered: first some with a wrong answer, then some without.

    Of a task whose answers are numbers, those with the largest and the smallest error. Empty if no run has its
    predictions with the records' texts.
    """
    written = any(run.objective in WRITTEN for run in study.runs)
    answering = [(index, c) for index, c in enumerate(study.conditions) if c.finished]
    tables = [{str(line.get("row")): line for line in c.example.predictions if "input" in line} for _, c in answering]
    common = [row for row in (tables[0] if tables else {}) if all(row in table for table in tables)]
    errors = {row: max(_error(table[row]) for table in tables) for row in common}
    wrong = sorted((row for row in common if errors[row]), key=lambda row: -errors[row])
    right = sorted((row for row in common if row not in set(wrong)), key=lambda row: errors[row])
    if len(set(errors.values()) - {0.0, 1.0}):  # numbers: hardly any is exact
        wrong, right = wrong[:WRONG], (right + wrong[WRONG:][::-1])[:RIGHT]
    chosen = [*_spread(wrong, WRONG), *_spread(right, RIGHT)]
    return [
        Sample(
            [_text(tables[0][row]["input"])],
            _said(tables[0][row], "wanted"),
            [
                Answer(index, c.label, _said(table[row], "answer"), None if written else _correct(table[row]))
                for (index, c), table in zip(answering, tables, strict=True)
            ],
        )
        for row in chosen
    ]


def most_frequent(lines: Iterable[Mapping[str, Any]]) -> tuple[str, float] | None:
    """Returns the most frequent right answer with its share; None if the answers are not names of classes."""
    wanted = [line.get("wanted") for line in lines]
    if not wanted or not all(isinstance(one, str) for one in wanted):
        return None
    best = max(set(wanted), key=wanted.count)
    return str(best), wanted.count(best) / len(wanted)


def _correct(line: Mapping[str, Any]) -> bool | None:
    return None if isinstance(line.get("answer"), float) else not _error(line)


def _error(line: Mapping[str, Any]) -> float:
    """Returns 0 for a right answer, 1 for a wrong one, and of numbers the distance."""
    answer, wanted = line.get("answer"), line.get("wanted")
    if isinstance(answer, float) and isinstance(wanted, int | float):
        return abs(answer - wanted)
    if isinstance(answer, str) and isinstance(wanted, list):  # a question with several right answers, or none
        return float(answer not in wanted if wanted else answer != "")
    return float(answer != wanted)


def _spread(rows: Sequence[str], count: int) -> list[str]:
    """Returns `count` of the rows, from all over the list."""
    return [rows[place * len(rows) // count] for place in range(count)] if len(rows) > count else list(rows)


def _text(values: Mapping[str, Any]) -> str:
    """Returns a record's columns as lines; a single column without its name."""
    texts = {name: " ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in values.items()}
    lines = [f"{name}: {text}" for name, text in texts.items()] if len(texts) > 1 else list(texts.values())
    return short("\n".join(lines))


def _said(line: Mapping[str, Any], key: str) -> str:
    """Returns an answer in words: of tags, the units that have one other than O."""
    value = line.get(key)
    units = next((v for v in line["input"].values() if isinstance(v, list)), [])
    if isinstance(value, list) and len(units) == len(value) and OUTSIDE in value:
        return short(" ".join(f"{unit}/{tag}" for unit, tag in zip(units, value, strict=True) if tag != OUTSIDE))
    if isinstance(value, list):
        return short(" / ".join(map(str, value)))
    return f"{value:.3g}" if isinstance(value, float) else short(str(value))
