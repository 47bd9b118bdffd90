"""`pretextlm report DIR`: one self-contained page from a study or from runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def report(
    directories: Annotated[list[Path], typer.Argument(help="A study directory, or one or several run directories.")],
    out: Annotated[Path | None, typer.Option(help="The file. By default report.html in the first directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finding and every measure as JSON.")] = False,
) -> None:
    """Write what runs have to show as one HTML file: it needs no network, and opens from disk."""
    from pretextlm.cli.console import print_json
    from pretextlm.report.page import write_report

    page, summary = write_report(directories, out)
    if as_json:
        print_json({"report": str(page), **summary})
    else:
        print_summary(summary, page)


def print_summary(summary: Mapping[str, Any], page: Path) -> None:
    """The finding, the table of all measures and the page's path, on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pretextlm.report.glossary import measure

    console = Console()
    conditions = summary["conditions"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for label in conditions:
        table.add_column(Text(label), justify="right", no_wrap=True)
    for name in dict.fromkeys(name for measures in conditions.values() for name in measures):
        cells = [_cell(measures.get(name)) for measures in conditions.values()]
        table.add_row(Text(measure(name).title), *cells)
    console.print(Text(summary["finding"], style="bold"))
    console.print(Text(summary["qualification"]))
    if table.row_count:
        console.print()
        console.print(table)
    for run, problem in summary["unfinished"].items():
        console.print(Text(f"{run} {problem}", style="yellow"))
    console.print()
    console.print(Text(f"report: {page}"), soft_wrap=True)


def _cell(measured: Mapping[str, Any] | None) -> str:
    from pretextlm.report import format as form

    if measured is None:
        return "–"
    text = form.metric(measured["mean"], measured["unit"])
    half = measured["half_width"]
    return text if half is None else f"{text} ± {form.spread(half, measured['mean'], measured['unit'])}"
