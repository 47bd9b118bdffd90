"""`pretextlm verify PATH …`: what of a run, store, study or export is whole, and what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretextlm.cli.shared.console import echo, print_json, stderr


def verify(
    places: Annotated[list[Path], typer.Argument(help="Runs, stores, studies and exported directories.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print every part as JSON.")] = False,
) -> None:
    """Read runs, stores, studies or exported directories completely, and compare them with their hashes.

    What is broken is named, with what repairs it. Exit code: 0 if all that decides a result is whole, else 2.
    """
    from pretextlm.study.verification import verify as parts_of

    with stderr().status("reading") as status:
        found = {str(place): parts_of(place, status.update) for place in places}
    broken = [part for parts in found.values() for part in parts if part.fault]
    if as_json:
        print_json({"places": {place: [part.plain() for part in parts] for place, parts in found.items()}})
    else:
        for place, parts in found.items():
            echo(f"{place}: {sum(not part.fault for part in parts):,} of {len(parts):,} parts are whole")
        for part in broken:
            echo(f"{part.path}: {part.fault}. {part.remedy}")
    if any(part.decides for part in broken):
        raise typer.Exit(2)
