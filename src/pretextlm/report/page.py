"""One self-contained HTML page: no script, no network request, everything from a run is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretextlm.files import write_text
from pretextlm.metric import arrow
from pretextlm.report import facts, figures, glossary, samples
from pretextlm.report import format as form
from pretextlm.report.finding import finding, spoken, titled
from pretextlm.report.measures import (
    MANY,
    Measure,
    Measured,
    blankless,
    blind,
    choices,
    common_measures,
    measures,
    paired,
    same_blanks,
)
from pretextlm.report.read import Study, read
from pretextlm.report.records import records

_HERE = Path(__file__).parent


def write_report(paths: Iterable[Path], out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Read run or study directories and write their report.

    Args:
        paths: one study directory, or one or several run directories.
        out: the file to write; by default `report.html` in the (first) directory.

    Returns:
        (the file, the summary printed by `--json`; see :func:`summary`).

    Raises:
        UserError: a path is neither a run nor a study, or the page cannot be written.
    """
    paths = list(paths)
    study = read(paths)
    target = out or paths[0] / "report.html"
    write_text(target, render(study))
    return target, summary(study)


def render(study: Study) -> str:
    """Returns the page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "arrow": arrow,
        "direction": form.direction,
        "metric": form.metric,
        "points": form.points,
        "spread": form.spread,
        "spoken": spoken,
        "titled": titled,
        "listing": form.listing,
    }
    css = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return environment.get_template("page.html").render(css=css, **_content(study))


def summary(study: Study) -> dict[str, Any]:
    """Returns the finding and every measure of every condition, as plain values."""
    every = measures(study)
    common = common_measures(every)
    headline, qualification = finding(study, common)
    return {
        "title": study.title,
        "finding": headline,
        "qualification": qualification,
        **({"best": common[0].ranked()[0].condition.label} if study.of_a_grid and common else {}),
        "unfinished": {run.path.name: run.problem for run in study.runs if run.problem},
        "conditions": {condition.label: _measured(every, condition.label) for condition in study.conditions},
    }


def _measured(every: list[Measure], label: str) -> dict[str, Any]:
    return {
        measure.name: {
            "mean": one.summary.mean,
            "deviation": one.summary.deviation,
            "half_width": one.half_width,
            "seeds": one.summary.n,
            "unit": measure.unit,
            "better": measure.better,
            "common": measure.common,
        }
        for measure in every
        for one in measure.measured
        if one.condition.label == label
    }


def _own(every: list[Measure], label: str) -> list[tuple[Measure, Measured]]:
    """Returns a condition's own measures, without the common ones."""
    return [
        (measure, one)
        for measure in every
        if not measure.common
        for one in measure.measured
        if one.condition.label == label
    ]


def _chance(study: Study, measure: Measure, offered: int | None) -> float | None:
    """Returns the value of random guessing; for a task, of one class at random, all equally likely."""
    if not study.of_a_task:
        return blind(measure.name, offered)
    labels = study.runs[0].options.get("labels")
    return 1 / len(labels) if measure.name == "accuracy" and isinstance(labels, list) and labels else None


def _content(study: Study) -> dict[str, Any]:
    every = measures(study)
    common = common_measures(every)
    offered = choices(study)
    headline, qualification = finding(study, common)
    contenders = facts.contenders(study)
    many = len(study.conditions) > MANY
    order = [one.index for one in common[0].ranked()] if many and common else None
    return {
        "study": study,
        "headline": headline,
        "qualification": qualification,
        "problems": [(run.path.name, run.problem) for run in study.runs if run.problem],
        "contenders": contenders,
        "setting": facts.setting(study),
        "sources": facts.sources(study),
        "of_a_task": study.of_a_task,
        "units": "records" if study.of_a_task else "blanks",
        "curves": figures.task_curves(study) if study.of_a_task else figures.learning_curves(study),
        "forgetting": figures.forgetting_curves(study),
        "charts": [figures.dot_chart(m, _chance(study, m, offered), order) for m in common],
        "many": many,
        "ranked": [contenders[i] for i in order or []],
        "own": [(c, _own(every, c.label)) for c in contenders] if many else [],
        "common": common,
        "blankless": [condition.label for condition in blankless(study)],
        "offered": offered,
        "same_blanks": same_blanks(study),
        "size": figures,
        "blank_count": max(
            (m.n or 0 for measure in common for one in measure.measured for m in one.metrics), default=0
        ),
        "several_seeds": any(one.summary.n > 1 for measure in every for one in measure.measured),
        "paired": paired(study),
        "measures": every,
        "blanks": samples.blanks(study),
        "records": records(study) if study.of_a_task else [],
        "prompts": samples.prompts(study),
        "silent": samples.silent(study),
        "sample_seeds": samples.seeds(study),
        "cost_columns": facts.COST_COLUMNS,
        "costs": facts.costs(study),
        "commands": facts.commands(study),
        "recipes": facts.recipes(study),
        "environment": facts.environment(study),
        "objective_of": {c.label: glossary.objective(c.objective).title for c in study.conditions},
    }
