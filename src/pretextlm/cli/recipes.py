"""`pretextlm recipes`: list the recipes of the package, print one, or copy one to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretextlm.cli.shared.console import echo, print_json, stdout


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to print, for example bert or tasks/sst2.")] = None,
    out: Annotated[Path | None, typer.Option(help="Copy it to this new file instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the recipes that come with the package, print one, or copy one.

    Each can be given by its name to the command beside it: pretextlm pretrain bert data.store=STORE. A file of that
    name comes first.
    """
    from pretextlm.errors import UserError, did_you_mean
    from pretextlm.files import write_text
    from pretextlm.shipped_recipes import find_shipped, shipped_recipes

    known = shipped_recipes()
    if name is None:
        if out is not None:
            raise UserError("Which recipe is to be copied?", "For example: pretextlm recipes bert --out mine.toml")
        if as_json:
            print_json({"recipes": [{"name": r.name, "command": r.command, "about": r.about} for r in known.values()]})
        else:
            _print_list()
        return
    recipe = find_shipped(name)
    if recipe is None:
        raise UserError(f"There is no recipe named {name!r}.", did_you_mean(name, known))
    text = recipe.path.read_text(encoding="utf-8")
    if out is None:
        echo(text, end="")
        return
    if out.exists():
        raise UserError(f"{out} exists already.", "Give a new file with --out FILE.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    echo(f"{out}: pretextlm {recipe.command} {out}")


def _print_list() -> None:
    from rich.table import Table
    from rich.text import Text

    from pretextlm.shipped_recipes import shipped_recipes

    console = stdout()
    table = Table.grid(padding=(0, 2))
    for recipe in shipped_recipes().values():
        table.add_row(
            Text(recipe.command, style="dim"), Text(recipe.name, style="bold cyan", no_wrap=True), recipe.about
        )
    console.print(table)
    console.print(
        "\nPrint one: pretextlm recipes NAME. Run one: pretextlm COMMAND NAME. Copy one: --out FILE.", style="dim"
    )
