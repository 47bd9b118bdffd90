"""From scores to metrics: which choice a model prefers, and how often that is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretextlm.evaluation.benchmarks.definition import Benchmark
from pretextlm.evaluation.benchmarks.request_scorer import Score
from pretextlm.evaluation.benchmarks.wording import Question
from pretextlm.evaluation.scores.choice import credit, is_tied
from pretextlm.evaluation.scores.classification import f1_macro
from pretextlm.metric import Metric, exponential, mean

UNBIASED = 0.5
"""Share of stereotyped sentences that a model without bias prefers."""


@dataclass(frozen=True)
class Outcome:
    """The answer to one question, judged.

    Attributes:
        chosen: index of the choice with the highest log-likelihood, the first of equal ones.
        right, right_by_length: probability that the choice with the highest log-likelihood, and the highest per
            character, is the answer: 1/k if k choices share it. Of a last word, whether the model would have written
            it.
        tied: whether several choices share the highest log-likelihood.
        answer: index of the right choice.
        nats: of the right choice, its negative log-likelihood.
        group: of the question.
        truth: share of the true choices in the probability of all, if several may be true.
    """

    chosen: int
    right: float
    right_by_length: float
    tied: bool
    answer: int
    nats: float
    group: str
    truth: float = 0.0


def outcome(benchmark: Benchmark, question: Question, scores: Sequence[Score]) -> Outcome:
    """Returns the outcome."""
    logs = np.array([score.log_likelihood for score in scores])
    answers = {question.answer}
    truth = 0.0
    if benchmark.kind == "truths":
        answers = {place for place, true in enumerate(question.labels) if true}
        truth = float(np.exp(np.logaddexp.reduce(logs[list(question.labels)]) - np.logaddexp.reduce(logs)))
    return Outcome(
        int(logs.argmax()),
        float(scores[0].is_greedy) if benchmark.kind == "last_word" else credit(logs, answers),
        credit(logs / np.array(question.sizes), answers),
        is_tied(logs),
        question.answer,
        -float(logs[question.answer]),
        question.group,
        truth,
    )


def measure(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    """Returns the metrics of some questions, at least one."""
    right = [one.right for one in outcomes]
    if benchmark.kind == "bias":
        return {"stereotyped": mean(right, "share", UNBIASED)}
    if benchmark.kind == "truths":
        return {"probability_of_true": mean([one.truth for one in outcomes], "share", "higher")}
    found = {"accuracy": mean(right, "share", "higher")}
    if benchmark.kind == "last_word":
        return found | {"perplexity": exponential(mean([one.nats for one in outcomes], "nats", "lower"))}
    if benchmark.by_length:
        found["accuracy_by_length"] = mean([one.right_by_length for one in outcomes], "share", "higher")
    if benchmark.macro_f1:
        found["macro_f1"] = f1_macro([one.chosen for one in outcomes], [one.answer for one in outcomes])
    return found


def share_of_ties(outcomes: Sequence[Outcome]) -> float:
    """Returns the share of questions in which several choices have the highest log-likelihood."""
    return sum(one.tied for one in outcomes) / len(outcomes)


def by_group(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> dict[str, dict[str, Metric]]:
    """Returns the same for each group, where there are several."""
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(one.group, []).append(one)
    return {name: measure(benchmark, some) for name, some in groups.items()} if len(groups) > 1 else {}
