"""`pretextlm report DIR`: one self-contained HTML page from a study or from runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretextlm.cli.shared.console import print_json, stdout

if TYPE_CHECKING:
    from rich.table import Table


def report(
    directories: Annotated[list[Path], typer.Argument(help="A study directory, or one or several run directories.")],
    out: Annotated[Path | None, typer.Option(help="The file. By default report.html in the first directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finding and every measure as JSON.")] = False,
) -> None:
    """Write the results of runs as one HTML file, which opens from disk without a network."""
    from pretextlm.report.page import write_report

    page, summary = write_report(directories, out)
    if as_json:
        print_json({"report": str(page), **summary})
    else:
        print_summary(summary, page)


def print_summary(summary: Mapping[str, Any], page: Path) -> None:
    """Print the finding, the table of all measures and the page's path to stdout."""
    from rich.text import Text

    console = stdout()
    console.print(Text(summary["finding"], style="bold"))
    console.print(Text(summary["qualification"]))
    for table in _tables(summary["conditions"]):
        console.print()
        console.print(table)
    for run, problem in summary["unfinished"].items():
        console.print(Text(f"{run} {problem}", style="yellow"))
    console.print()
    console.print(Text(f"report: {page}"), soft_wrap=True)


def _tables(conditions: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Returns a table with a column per condition; with many conditions, a row each, and their own measures below."""
    from rich.table import Table
    from rich.text import Text

    from pretextlm.report.glossary import measure
    from pretextlm.report.measures import MANY

    names = dict.fromkeys(name for measures in conditions.values() for name in measures)

    def table(*columns: str) -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold")
        made.add_column("")
        for column in columns:
            made.add_column(Text(column), justify="right", no_wrap=True)
        return made

    if len(conditions) <= MANY:
        whole = table(*conditions)
        for name in names:
            cells = [_cell(measures.get(name)) for measures in conditions.values()]
            whole.add_row(Text(measure(name).title), *cells)
        return [whole] if names else []
    shared = [name for name in names if any(one.get(name, {}).get("common") for one in conditions.values())]
    common, own = table(*(measure(name).title for name in shared)), table("")
    own.show_header = False
    for label, measures in conditions.items():
        if shared and any(name in measures for name in shared):
            common.add_row(Text(label), *(_cell(measures.get(name)) for name in shared))
        for name in measures:
            if name not in shared:
                own.add_row(Text(f"{label}: {measure(name).title.lower()}"), _cell(measures[name]))
    return [made for made in (common, own) if made.row_count]


def _cell(measured: Mapping[str, Any] | None) -> str:
    from pretextlm.report import format as form

    if measured is None:
        return "–"
    text = form.metric(measured["mean"], measured["unit"])
    half = measured["half_width"]
    return text if half is None else f"{text} ± {form.spread(half, measured['mean'], measured['unit'])}"
