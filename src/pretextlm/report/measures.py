"""Measurements of a study: one summary per condition and measure, over the seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pretextlm.evaluation.statistics import (
    Difference,
    Interval,
    Summary,
    paired_bootstrap,
    standard_error_interval,
    summarise,
    welch,
)
from pretextlm.metric import Better, distance_from_best
from pretextlm.objectives.shared.measures import Measure as Described
from pretextlm.report import glossary
from pretextlm.report.read import Condition, Metric, Run, Study

MIN_PAIRED_BLANKS = 30

MANY = 4
"""With more conditions than this, the page shows less of each, ordered by score."""


@dataclass(frozen=True)
class Measured:
    """One measure of one condition.

    Attributes:
        index: index of the condition in the study, which decides its colour and marker.
        metrics: one entry per finished run that has the measure, never empty.
    """

    index: int
    condition: Condition
    metrics: tuple[Metric, ...]

    @cached_property
    def values(self) -> list[float]:
        return [metric.value for metric in self.metrics]

    @cached_property
    def summary(self) -> Summary:
        return summarise(self.values)

    @cached_property
    def interval(self) -> Interval | None:
        """Returns the interval over seeds if several differ, else over examples if their standard error is known.

        Two seeds that happen to agree on a coarse measure do not make it certain, and neither do blanks that are all
        wrong.
        """
        if self.summary.deviation:
            return self.summary.interval
        stderr = self.metrics[0].stderr
        return None if not stderr else standard_error_interval(self.summary.mean, stderr)

    @property
    def half_width(self) -> float | None:
        return None if self.interval is None else (self.interval.high - self.interval.low) / 2


@dataclass(frozen=True)
class Measure:
    """One measure of all conditions that have it, in the order of the study.

    Attributes:
        common: whether all conditions were measured on the same examples, so that they are comparable.
    """

    name: str
    unit: str
    better: Better | None
    measured: tuple[Measured, ...]
    common: bool = False

    @property
    def entry(self) -> Described:
        return glossary.measure(self.name)

    def of(self, condition: Condition) -> Measured | None:
        """Returns this measure of one condition."""
        return next((m for m in self.measured if m.condition.label == condition.label), None)

    def ranked(self) -> list[Measured]:
        """Returns the conditions best first; in the study's order if the measure has no direction."""
        return sorted(self.measured, key=lambda m: distance_from_best(m.summary.mean, self.better))


@dataclass(frozen=True)
class Paired:
    """Two conditions on the blanks, or the records of a task, that both answered."""

    first: Condition
    second: Condition
    n: int
    difference: Difference


def measures(study: Study) -> list[Measure]:
    """Returns every measure of every finished run: the common ones first, then in order of appearance."""
    names = dict.fromkeys(name for run in study.runs for name in run.metrics)
    ordered = [*(n for n in glossary.HEADLINES if n in names), *(n for n in names if n not in glossary.HEADLINES)]
    return [_measure(name, study) for name in ordered]


def _measure(name: str, study: Study) -> Measure:
    measured = []
    for index, condition in enumerate(study.conditions):
        metrics = tuple(run.metrics[name] for run in condition.finished if name in run.metrics)
        if metrics:
            measured.append(Measured(index, condition, metrics))
    example = measured[0].metrics[0]
    common = name in glossary.HEADLINES or study.of_a_task
    return Measure(name, example.unit, example.better, tuple(measured), common)


def common_measures(every: Iterable[Measure]) -> list[Measure]:
    """Returns the measures that were taken on the same blanks or records for all conditions."""
    return [measure for measure in every if measure.common]


def told_apart(first: Measured, second: Measured) -> bool:
    """Returns whether Welch's 95 % interval of the difference over seeds excludes zero.

    False if either condition has one seed, or if nothing varies.
    """
    interval = welch(first.values, second.values).interval
    return interval is not None and not interval.low <= 0 <= interval.high


def choices(study: Study) -> int | None:
    """Returns the number of words offered per blank: the mean over the blanks of one run, rounded."""
    for run in study.runs:
        offered = [words for blank in blanks(run) if isinstance(words := blank.get("choices"), list) and words]
        if offered:
            return round(sum(map(len, offered)) / len(offered))
    return None


def blanks(run: Run) -> list[Mapping[str, Any]]:
    """Returns the blanks among a run's samples."""
    return [sample for sample in run.samples if sample.get("kind") == "blank"]


def chose_right(blank: Mapping[str, Any]) -> bool:
    """Returns whether the model chose the right word or, if none were offered, wrote it."""
    return blank["chosen"] == blank.get("expected") if "chosen" in blank else blank.get("correct") is True


def same_blanks(study: Study) -> bool:
    """Returns whether all finished runs answered the same blanks: always within a study, not always across run
    directories.
    """
    asked = {
        tuple(str(run.settings.get(key)) for key in ("store", "blanks", "seed"))
        for run in study.runs
        if run.state == "finished" and any(name in run.metrics for name in glossary.HEADLINES)
    }
    return len(asked) < 2


def blankless(study: Study) -> list[Condition]:
    """Returns the finished conditions without blanks, whose objective does not fill any."""
    if study.of_a_task:
        return []
    asked = [c for c in study.conditions if c.finished and "blanks" in c.example.settings]
    return [c for c in asked if not any(h in c.example.metrics for h in glossary.HEADLINES)]


def blind(name: str, choices: int | None) -> float | None:
    """Returns the value of random guessing in a measure, if it is known."""
    if not choices:
        return None
    return {"blank_choice_accuracy": 1 / choices, "blank_log_likelihood": -math.log(choices)}.get(name)


def paired(study: Study) -> list[Paired]:
    """Returns pairs of conditions on their common blanks or records, scores averaged over the seeds.

    With many conditions, only neighbours in the ranking. Empty if they share too few blanks.
    """
    conditions = [condition for condition in study.conditions if condition.finished]
    chosen = list(itertools.combinations(conditions, 2))
    if len(conditions) > MANY:
        chosen = list(itertools.pairwise(m.condition for m in _ranked(study)))
    right = _right_by_record if study.of_a_task else _right_by_blank
    scores = {condition.label: right(condition.finished) for condition in conditions}
    pairs = []
    for first, second in chosen:
        a, b = scores[first.label], scores[second.label]
        common = [key for key in a if key in b]
        if len(common) >= MIN_PAIRED_BLANKS:
            difference = paired_bootstrap([a[k] for k in common], [b[k] for k in common], resamples=2000)
            pairs.append(Paired(first, second, len(common), difference))
    return pairs


def _ranked(study: Study) -> list[Measured]:
    """Returns the conditions by the first common measure, best first."""
    return next((measure.ranked() for measure in common_measures(measures(study))), [])


def _right_by_record(runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    """Returns the mean correctness by record, for tasks whose answers are right or wrong, as accuracy counts them."""
    collected: dict[tuple[str, str], list[float]] = {}
    for run in runs if all("accuracy" in run.metrics for run in runs) else ():
        for line in run.predictions:
            collected.setdefault((str(line.get("row")), ""), []).append(float(line.get("answer") == line.get("wanted")))
    return {key: math.fsum(values) / len(values) for key, values in collected.items()}


def _right_by_blank(runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    collected: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for blank in blanks(run):
            key = (str(blank.get("text")), str(blank.get("expected")))
            collected.setdefault(key, []).append(float(chose_right(blank)))
    return {key: math.fsum(values) / len(values) for key, values in collected.items()}
