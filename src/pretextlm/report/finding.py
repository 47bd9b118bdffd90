"""The study's main finding in words, with no more certainty than the data supports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pretextlm.report import format as form
from pretextlm.report.measures import (
    MANY,
    Measure,
    Measured,
    Paired,
    blind,
    choices,
    measures,
    paired,
    same_blanks,
    told_apart,
)
from pretextlm.report.read import Run, Study, number, table
from pretextlm.report.records import most_frequent

_VERBS = {
    "blank_choice_accuracy": "chooses the right word for",
    "blank_exact_match": "writes the exact word into",
}
_DIFFERENT = "These runs were not all asked the same blanks, so their scores cannot be held against each other."
_UNKNOWN = (
    "Not every {} has more than one seed, so how much another seed would change this is unknown: take it as a hint."
)


def finding(study: Study, common: list[Measure]) -> tuple[str, str]:
    """Returns (headline, qualification): the result, and its certainty."""
    if not common and (lost := [m for m in measures(study) if m.name.startswith("forgotten:")]):
        return _forgot(lost), "Nothing else is measured yet: pretextlm evaluate RUN."
    if not common and (own := _without_common(study)):
        return own
    if not common:
        asked = "held-out records" if study.of_a_task else "common blanks"
        remedy = "Run the same command again to finish the study." if study.plan else "Run: pretextlm evaluate RUN"
        return f"No run is evaluated on the {asked} yet.", remedy
    measure = common[0]
    ranked = measure.ranked()
    after = _after(study)
    if len(ranked) == 1:
        return f"{after}{_scored(ranked[0], measure)}.", _certainty_of_one(ranked[0], measure, study)
    alone = any(measured.summary.n < 2 for measured in ranked)
    pairs = paired(study)
    tied = _level_with_the_first(ranked, pairs)
    guesses = _no_better_than_chance(study, measure)
    if len(guesses) == len(ranked):
        headline = _chance(study, ranked, measure)
    else:
        headline = _tie(ranked, tied, measure) if tied else _lead(ranked, measure)
    certainty = _UNKNOWN.format(_compared(study)) if alone else _certainty(ranked, tied)
    different = "" if same_blanks(study) else _DIFFERENT
    chance = _above_chance(study, measure, guesses)
    sentences = [different, certainty, _pairwise(study, ranked, pairs), chance, _chosen(study, ranked)]
    return f"{after}{headline}.", " ".join(filter(None, sentences))


def _forgot(lost: list[Measure]) -> str:
    """Returns a sentence on the loss increase of continued models on each monitored store."""
    said = []
    for measure in lost:
        each = [f"{name(one)} {_value(one, measure)}" for one in measure.ranked()]
        said.append(f"of {measure.name.partition(':')[2]}, {form.listing(each)} nats a target")
    return f"What was forgotten: {'; '.join(said)}."


def _level_with_the_first(ranked: list[Measured], pairs: Sequence[Paired]) -> list[Measured]:
    """Returns those that the seeds or the common blanks do not separate from the best, and all ranked between them."""
    close = [place for place, other in enumerate(ranked) if place and not _apart(ranked[0], other, pairs)]
    return ranked[1 : close[-1] + 1] if close else []


def _apart(first: Measured, other: Measured, pairs: Sequence[Paired]) -> bool:
    """Returns whether neither the seeds, if there are several, nor the common blanks leave the difference open."""
    several = min(first.summary.n, other.summary.n) > 1
    pair = _pair_of(first, other, pairs)
    interval = pair.difference.interval if pair else None
    by_blanks = interval is None or not interval.low <= 0 <= interval.high
    return by_blanks and (told_apart(first, other) if several else True)


def _pair_of(first: Measured, other: Measured, pairs: Sequence[Paired]) -> Paired | None:
    wanted = {first.condition.label, other.condition.label}
    return next((pair for pair in pairs if {pair.first.label, pair.second.label} == wanted), None)


def _lead(ranked: list[Measured], measure: Measure) -> str:
    if len(ranked) > MANY:
        second, last = ranked[1], ranked[-1]
        behind = f"{_value(second, measure)} for {name(second)}, the next of {len(ranked) - 1} others"
        end = f"{_value(last, measure)} for {name(last)}, the last"
        return f"{_scored(ranked[0], measure)}, against {behind}, and {end}"
    behind = form.listing([f"{_value(other, measure)} for {name(other)}" for other in ranked[1:]])
    return f"{_scored(ranked[0], measure)}, against {behind}"


def _tie(ranked: list[Measured], tied: list[Measured], measure: Measure) -> str:
    def named(group: list[Measured]) -> str:
        return form.listing([f"{name(m)} ({_value(m, measure)})" for m in group])

    rest = [other for other in ranked[1:] if other not in tied]
    ahead = f", ahead of {named(rest)}" if rest else ""
    if len(ranked) > MANY and len(rest) > 1:
        ahead = f", ahead of {len(rest)} others, from {named(rest[:1])} to {named(rest[-1:])}"
    return f"{named([ranked[0], *tied])} are too close to call on {_what(measure)}{ahead}"


def _chance(study: Study, ranked: list[Measured], measure: Measure) -> str:
    """Returns a headline for conditions of which none is better than guessing, without an order of them."""
    chance = form.metric(blind(measure.name, choices(study)) or 0.0, "share")
    low, high = _value(ranked[-1], measure), _value(ranked[0], measure)
    scores = f"scores are from {low} to {high}" if low != high else f"all score {high}"
    return (
        f"no {_compared(study)} can be told from a blind choice, which is right for {chance} of the held-out blanks; "
        f"{scores}"
    )


def name(measured: Measured) -> str:
    """Returns the condition's name for running text."""
    return spoken(measured.condition.label)


def spoken(label: str) -> str:
    """Returns a label as words."""
    return label.replace("_", " ")


def titled(label: str) -> str:
    """Returns a label as words for a row or panel title."""
    return spoken(label)[:1].upper() + spoken(label)[1:]


def budget(study: Study) -> str:
    """Returns the budget of each run; "" if it is unknown or not the same for all."""
    stated = table(study.plan, "budget")
    spent = {_spent(stated)} if stated else {_spent(_budget_of(run)) for run in study.runs}
    return spent.pop() if len(spent) == 1 else ""


def _budget_of(run: Run) -> dict[str, Any]:
    training = table(run.config, "training")
    return {key.removeprefix("budget_"): value for key, value in training.items() if key.startswith("budget_")}


def _spent(amounts: Mapping[str, Any]) -> str:
    for kind, say in _SPENT.items():
        amount = number(amounts.get(kind))
        if amount:
            return say(amount)
    return ""


_SPENT: dict[str, Callable[[float], str]] = {
    "seconds": lambda amount: f"{form.duration_in_words(amount)} of training",
    "tokens": lambda amount: f"{form.words(amount)} tokens",
    "flops": lambda amount: form.si(amount, "FLOPs"),
    "epochs": lambda amount: form.count(round(amount), "epoch") if amount == round(amount) else f"{amount:g} epochs",
    "steps": lambda amount: f"{amount:,.0f} steps",
}


def _after(study: Study) -> str:
    spent = budget(study)
    each = " each" if len(study.conditions) > 1 else ""
    return f"After {spent}{each}, " if spent else ""


def _scored(measured: Measured, measure: Measure) -> str:
    verb = _VERBS.get(measure.name)
    value = _value(measured, measure)
    if verb:
        return f"{name(measured)} {verb} {value} of the held-out blanks"
    if measure.unit in form.FRACTIONS:
        return f"{name(measured)} reaches {value} {_what(measure)}"
    unit = f" {measure.unit}" if measure.unit else ""
    return f"{name(measured)} reaches {value}{unit} on {_what(measure)}"


def _what(measure: Measure) -> str:
    return measure.entry.title.lower() if measure.name not in _VERBS else "the held-out blanks"


def _value(measured: Measured, measure: Measure) -> str:
    return form.metric(measured.summary.mean, measure.unit)


def _without_common(study: Study) -> tuple[str, str] | None:
    """Returns the finding of evaluated runs without a common measure; None if no run is evaluated."""
    every = measures(study)
    if not every:
        return None
    if len(study.conditions) > 1:
        return "These runs have no measure in common.", "Each has its own below."
    (one,) = every[0].measured
    return f"{_after(study)}{_scored(one, every[0])}.", _certainty_of_one(one, every[0], study)


def _certainty_of_one(measured: Measured, measure: Measure, study: Study) -> str:
    n = measured.summary.n
    if not study.of_a_task:
        return f"Measured over {form.count(n, 'seed')}; there is nothing to compare with."
    records, interval = measured.metrics[0].n, measured.interval
    said = f"Scored on {form.count(records, 'record')}" if records else "Scored"
    if interval:
        edges = interval.low, interval.high
        if measure.unit in form.FRACTIONS:
            edges = max(0.0, edges[0]), min(1.0, edges[1])
        low, high = (form.metric(edge, measure.unit) for edge in edges)
        said += f"; 95% interval {low} to {high}"
    common = most_frequent(measured.condition.example.predictions) if measure.name == "accuracy" else None
    always = f" Always answering {common[0]} is right {form.metric(common[1], 'share')} of the time." if common else ""
    return f"{said}, over {form.count(n, 'seed')}.{always}"


def _certainty(ranked: list[Measured], tied: list[Measured]) -> str:
    seeds = sorted({measured.summary.n for measured in ranked})
    over = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    if tied and all(told_apart(ranked[0], m) for m in tied):
        return f"The difference is one of the blanks: over {over} it holds, on other blanks it may not."
    if tied:
        names = form.listing([name(ranked[0]), *(name(m) for m in tied)])
        return f"The 95% intervals over {over} do not tell {names} apart; more seeds or more training may."
    best, others = ranked[0], ranked[1:]
    near = [name(m) for m in others if best.interval and m.interval and best.interval.overlaps(m.interval)]
    if not near:
        return f"The 95% intervals of {name(best)} and {_others(others)} over {over} do not overlap."
    return (
        f"The 95% intervals of {name(best)} and {form.listing(near)} over {over} overlap in part, but the "
        "interval of their difference does not include zero (Welch)."
    )


def _others(others: list[Measured]) -> str:
    return name(others[0]) if len(others) == 1 else "the others"


def _pairwise(study: Study, ranked: list[Measured], pairs: Sequence[Paired]) -> str:
    """Returns a sentence on the paired comparison of the first two on the same blanks."""
    pair = _pair_of(ranked[0], ranked[1], pairs)
    if pair is None or pair.difference.interval is None:
        return ""
    sign = 1 if pair.first.label == ranked[0].condition.label else -1
    low, high = sorted((sign * pair.difference.interval.low, sign * pair.difference.interval.high))
    return (
        f"{_one_by_one(study, pair.n)}, these seeds), {name(ranked[0])} less {name(ranked[1])} is "
        f"{form.points(sign * pair.difference.value)} points (95% interval {form.points(low)} to {form.points(high)})."
    )


def _one_by_one(study: Study, count: int) -> str:
    if study.of_a_task:
        return f"Record by record ({form.count(count, 'record')}"
    return f"Blank by blank ({form.count(count, 'blank')}"


def _compared(study: Study) -> str:
    """Returns the noun for one of the compared conditions."""
    return "point of the grid" if study.of_a_grid else "model" if study.of_a_task else "objective"


def _chosen(study: Study, ranked: list[Measured]) -> str:
    """Returns, for a grid, its best point and how reliable its score is, given that it was selected."""
    if not study.of_a_grid:
        return ""
    return (
        f"The best point by its mean is {name(ranked[0])}. It was chosen on the records that it is scored on, so its "
        "score promises too much: take its settings, and score them on other records."
    )


def _no_better_than_chance(study: Study, measure: Measure) -> list[Measured]:
    """Returns the conditions whose interval includes, or is below, the score of a blind choice."""
    chance = blind(measure.name, choices(study))
    if chance is None or measure.name != "blank_choice_accuracy":
        return []
    return [m for m in measure.ranked() if m.interval and m.interval.low <= chance]


def _above_chance(study: Study, measure: Measure, guesses: Sequence[Measured]) -> str:
    chance = blind(measure.name, choices(study))
    if chance is None or measure.name != "blank_choice_accuracy":
        return ""
    near = [name(m) for m in guesses]
    guess = f"A blind choice is right {form.metric(chance, 'share')} of the time"
    return f"{guess}; {form.listing(near)} cannot be told from that." if near else f"{guess}."
