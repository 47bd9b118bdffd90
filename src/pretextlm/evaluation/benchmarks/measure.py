"""From scores to metrics: which choice a model prefers, and how often that is the right one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretextlm.evaluation.benchmarks.definition import Benchmark
from pretextlm.evaluation.benchmarks.request_scorer import Score
from pretextlm.evaluation.benchmarks.wording import Question
from pretextlm.metric import Metric, mean

RESAMPLES = 1000


@dataclass(frozen=True)
class Outcome:
    """The answer to one question, judged.

    Attributes:
        chosen, chosen_by_length: index of the choice with the highest log-likelihood, and per character.
        right, right_by_length: whether that is the answer; of a last word, whether the model would have written it.
        answer: index of the right choice.
        nats: of the right choice, its negative log-likelihood.
        group: of the question.
    """

    chosen: int
    chosen_by_length: int
    right: bool
    right_by_length: bool
    answer: int
    nats: float
    group: str


def outcome(benchmark: Benchmark, question: Question, scores: Sequence[Score]) -> Outcome:
    """Returns the outcome; of equal choices, the first counts as chosen."""
    logs = np.array([score.log_likelihood for score in scores])
    chosen, by_length = int(logs.argmax()), int((logs / np.array(question.sizes)).argmax())
    right = scores[0].is_greedy if benchmark.kind == "last_word" else chosen == question.answer
    return Outcome(
        chosen,
        by_length,
        right,
        by_length == question.answer,
        question.answer,
        -float(logs[question.answer]),
        question.group,
    )


def measure(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    """Returns the metrics of some questions, at least one."""
    right = [one.right for one in outcomes]
    if benchmark.kind == "bias":
        return {"stereotyped": mean(right, "share", "lower")}
    found = {"accuracy": mean(right, "share", "higher")}
    if benchmark.kind == "last_word":
        return found | {"perplexity": _perplexity([one.nats for one in outcomes])}
    if benchmark.by_length:
        found["accuracy_by_length"] = mean([one.right_by_length for one in outcomes], "share", "higher")
    if benchmark.macro_f1:
        found["macro_f1"] = _macro_f1([one.answer for one in outcomes], [one.chosen for one in outcomes])
    return found


def by_group(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, dict[str, Metric]]:
    """Returns the same for each group, where there are several."""
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(one.group, []).append(one)
    return {name: measure(benchmark, some) for name, some in groups.items()} if len(groups) > 1 else {}


def _perplexity(nats: Sequence[float]) -> Metric:
    """exp of the mean over words; its standard error is that of the mean, times the perplexity (delta method)."""
    average = mean(nats, "nats", "lower")
    value = math.exp(min(average.value, 700.0))
    return Metric(value, average.n, None if average.stderr is None else value * average.stderr, "", "lower")


def _macro_f1(answers: Sequence[int], chosen: Sequence[int]) -> Metric:
    """F1 of each choice's number, averaged over those that are right or chosen at least once; error by bootstrap."""
    truth, said = np.array(answers), np.array(chosen)
    labels = np.union1d(truth, said)
    kinds = np.searchsorted(labels, truth) * len(labels) + np.searchsorted(labels, said)
    value = float(_f1(np.bincount(kinds, minlength=len(labels) ** 2)[None], len(labels))[0])
    stderr = None
    if len(truth) > 1:
        rng = np.random.default_rng(0)
        shares = np.bincount(kinds, minlength=len(labels) ** 2) / len(truth)
        drawn = rng.multinomial(len(truth), shares, size=RESAMPLES)
        stderr = float(_f1(drawn, len(labels)).std(ddof=1))
    return Metric(value, len(truth), stderr, "share", "higher")


def _f1(confusion_RKK: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """(R,) macro F1 of R tables of (truth, said), each flat."""
    table = confusion_RKK.reshape(-1, labels, labels)
    hits = table.diagonal(axis1=1, axis2=2)
    either = table.sum(axis=1) + table.sum(axis=2)
    there = either > 0
    scores = np.where(there, 2 * hits / np.maximum(either, 1), 0.0)
    found: NDArray[np.float64] = scores.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return found
