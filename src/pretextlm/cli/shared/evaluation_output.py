"""What `pretextlm evaluate` prints: tables of measures and scores, and what was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretextlm.cli.shared.console import stdout


def show_scores(run: Path, kind: str, scores: Mapping[str, Any]) -> None:
    """Print the scores of benchmarks or probes."""
    from rich.table import Table

    from pretextlm.metric import arrow

    methods = {one["settings"]["scoring"] for one in scores.values()}
    by = f", scored by {methods.pop()}" if len(methods) == 1 else ""
    table = Table(title=f"{run}: {kind}{by}", title_justify="left")
    for heading in ("", "measure", "value ± error", "of", "chance"):
        table.add_column(heading, justify="left" if heading in ("", "measure") else "right")
    notes = ["↓ lower is better, ↑ higher is better, → the nearest to that value; errors are standard errors."]
    for name, one in scores.items():
        settings = one["settings"]
        for nth, (measure, metric) in enumerate(one["metrics"].items()):
            error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
            chance = settings.get("chance") if metric["unit"] == "share" and "f1" not in measure else None
            row = [f"{metric['value']:.4f}{error}", f"{metric['n']:,}", "" if chance is None else f"{chance:.3f}"]
            table.add_row(name if not nth else "", f"{measure} {arrow(metric['better'])}", *row)
        notes += _notes(name, one, several_methods=bool(methods))
    console = stdout()
    console.print(table)
    for note in notes:
        console.print(note)


def _notes(name: str, one: Mapping[str, Any], several_methods: bool) -> list[str]:
    """Returns remarks on a score."""
    settings, notes = one["settings"], []
    if settings.get("limit"):
        part = "file" if settings["scoring"] == "probe" else "group"
        which = "a sample of" if part == "file" else "the first"
        notes.append(f"{name}: only {which} {settings['limit']:,} of each {part}.")
    if settings.get("cropped"):
        notes.append(f"{name}: {settings['cropped']:,} texts were longer than the model reads, and lost their start.")
    if one.get("ties"):
        notes.append(
            f"{name}: in {one['ties']:.1%} of the questions the best choices have equal scores; one of k counts as 1/k."
        )
    if settings.get("shots_from"):
        notes.append(f"{name}: examples are shown from {settings['shots_from']}.")
    if groups := one.get("groups"):
        notes.append(f"{name}: {len(groups)} groups, whose scores are in the run's benchmarks.json.")
    if several_methods:
        notes.append(f"{name}: scored by {settings['scoring']}.")
    return notes


def show_evaluation(run: Path, result: Mapping[str, Any]) -> None:
    """Print the measures on held-out text or on labelled records, what was read, and where they are written."""
    from rich.table import Table

    table = Table(title=f"{run}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("± standard error", justify="right")
    table.add_column("unit")
    table.add_column("measured on", justify="right")
    for name, metric in result["metrics"].items():
        error = "" if metric["stderr"] is None else f"{metric['stderr']:.4f}"
        table.add_row(_labelled(name, metric), f"{metric['value']:.4f}", error, metric["unit"], f"{metric['n']:,}")
    console = stdout()
    console.print(table)
    if sources := result.get("sources"):
        console.print(_source_table(sources))
    for line in _read(run, result):
        console.print(line)
    chance = " A blind blank_choice is right 0.1 of the time." if result["settings"].get("blanks") else ""
    console.print(f"↓ lower is better, ↑ higher is better.{chance}")
    for note in result.get("notes", []):
        console.print(note)


def _read(run: Path, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on what was read, and where the results are."""
    settings = result["settings"]
    if "broken_checkpoints" in settings:
        yield f"Of the weights of step {settings['step']:,}: {'; '.join(settings['broken_checkpoints'])}."
    if "windows" in settings:
        yield (
            f"{settings['scored']:,} of {settings['tokens']:,} tokens scored in {settings['windows']:,} windows of "
            f"{settings['length']:,}, stride {settings['stride']:,}; {settings['words']:,} words, "
            f"{settings['bytes']:,} bytes."
        )
    if "documents_total" in settings:
        from pretextlm.metric import amount_read

        yield f"Read {amount_read(settings)}."
    if "loss" in result["metrics"] and result["metrics"]["loss"]["stderr"] is None and "documents" in settings:
        yield "No standard error of the loss: it is over documents, and fewer than ten were read. Try --tokens all."
    yield f"Written to {run / settings['file']}."


def _source_table(sources: Mapping[str, Any]) -> Any:
    """Return a table of the measures on each source."""
    from rich.table import Table

    found = {name: metric for source in sources.values() for name, metric in source["metrics"].items()}
    measures = {name: found[name] for name in ("loss", "perplexity", "bits_per_byte") if name in found}
    table = Table(title="by source", title_justify="left")
    table.add_column("source")
    for heading in ("documents", "tokens", *(_labelled(name, metric) for name, metric in measures.items())):
        table.add_column(heading, justify="right")
    for name, source in sources.items():
        read = [_part(source, "documents"), _part(source, "tokens")]
        table.add_row(name, *read, *(_value(source["metrics"].get(measure)) for measure in measures))
    return table


def _labelled(name: str, metric: Mapping[str, Any]) -> str:
    from pretextlm.metric import arrow

    return f"{name} {arrow(metric['better'])}"


def _value(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return ""
    return f"{metric['value']:.4f}" + ("" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}")


def _part(source: Mapping[str, Any], name: str) -> str:
    some, every = source.get(name), source.get(f"{name}_total")
    return "" if some is None else f"{some:,}" if every is None else f"{some:,} of {every:,}"
