"""`pretextlm show OBJECTIVE TEXT`: the effect of an objective on a sentence, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretextlm.cli.shared.console import print_json, stdout
from pretextlm.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from pretextlm.objectives.preview.show import Case, Shown

NO_LOSS = "·"


def show(
    objective: Annotated[str | None, typer.Argument(help="causal, masked, denoisers, …; --list shows all.")] = None,
    text: Annotated[
        str | None, typer.Argument(help='A sentence or two; each line is a document, " => " stands between a pair.')
    ] = None,
    options: Annotated[list[str] | None, typer.Argument(help="Options of the objective: rate=0.3 unit=word")] = None,
    store: Annotated[Path | None, typer.Option(help="Prepared data whose tokenizer to use.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed hides other tokens.")] = 0,
    every: Annotated[bool, typer.Option("--list", help="List the objectives and their options.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print arrays and matrices as JSON.")] = False,
) -> None:
    """Show the effect of an objective on a text: input, targets, and which tokens attend to which."""

    from pretextlm.config import apply_overrides
    from pretextlm.errors import UserError
    from pretextlm.objectives.preview.show import describe_all
    from pretextlm.objectives.preview.show import show as apply

    if every:
        described = describe_all()
        if as_json:
            print_json({"objectives": described})
        else:
            _print_list(stdout(), described)
        return
    if objective is None:
        raise UserError(
            "Which objective?", 'For example: pretextlm show masked "A sentence." All: pretextlm show --list'
        )
    shown = apply(objective, apply_overrides({}, options or []), text or "", store, seed)
    if as_json:
        print_json({**shown.to_json(), "seed": seed})
    else:
        _print_shown(stdout(), shown)


def _print_list(console: Console, described: list[dict[str, Any]]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    for entry in described:
        console.print(Text.assemble((entry["objective"], "bold cyan"), f"  {entry['title']}"))
        table = Table.grid(padding=(0, 2))
        table.add_row("summary", Text(entry["summary"]))
        table.add_row("paper", Text(entry["paper"], overflow="fold"))
        table.add_row("suits", ", ".join(entry["architectures"]))
        for key, option in entry["options"].items():
            table.add_row(Text(f"{key}={_toml(option['default'])}", style="green"), Text(option["description"]))
        console.print(Padding(table, (0, 0, 1, 2)))


def _print_shown(console: Console, shown: Shown) -> None:
    from rich.text import Text

    objective = shown.objective
    options = " ".join(f"{key}={_toml(getattr(objective, key))}" for key in type(objective).model_fields)
    console.print(Text.assemble((objective.title, "bold"), "  ", (options, "green")))
    console.print(Text(objective.paper, style="dim"), soft_wrap=True)
    console.print(Text(objective.summary))
    if shown.cases[0].variant:
        console.print(Text(f"Variant: {shown.cases[0].variant} (another --seed shows another)."))
    console.print(Text(f"Tokenizer: {shown.tokenizer}.", style="dim"))
    for note in shown.notes:
        console.print(Text(f"Note: {note}", style="dim"))
    for number, case in enumerate(shown.cases, start=1):
        if len(shown.cases) > 1:
            console.print()
            console.print(Text(f"{number} of {len(shown.cases)}: {case.title}", style="bold cyan"))
        _print_case(console, case, objective.label_names)


def _print_case(console: Console, case: Case, label_names: dict[int, str]) -> None:
    for lines in _blocks(case):
        console.print()
        for part in _interlinear(lines, console.width):
            console.print(part)
    loss = case.loss
    console.print()
    console.print(f"Loss at {loss['targets']} of {loss['positions']} positions ({loss['share'] * 100:.0f} %).")
    if case.row_label is not None:
        named = label_names.get(case.row_label, "")
        console.print(f"Label of the whole row: {case.row_label}{f' = {named}' if named else ''}.")
    elif case.replaced is not None:
        console.print(
            "Labels of the model: " + ", ".join(f"{label} = {name}" for label, name in label_names.items()) + "."
        )
    _print_matrices(console, case)


def _toml(value: Any) -> str:
    """Returns the value of an option as written in TOML; of an inner objective, its name and non-default options."""
    from pretextlm.config import Config
    from pretextlm.objectives.base import Objective

    if isinstance(value, Objective):
        usual = type(value)()
        changed = {k: getattr(value, k) for k in type(value).model_fields if getattr(value, k) != getattr(usual, k)}
        return "".join([value.name, *(f",{key}={_toml(v)}" for key, v in changed.items())])
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Config):
        return str(getattr(value, "title", value))
    if isinstance(value, dict):
        return str(value["name"]) if "name" in value else str(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _blocks(case: Case) -> list[dict[str, list[str]]]:
    """Returns groups of lines that are aligned token by token."""
    tokens: dict[str, list[str]] = {"tokens": case.tokens}
    rows = {"input": _texts(case, "input_ids")}
    batch = case.batch
    if batch.token_type_ids is not None:
        rows["part"] = [str(part) for part in batch.token_type_ids[0].tolist()]
    if batch.rank is not None:  # who is seen by whom: a rank by every reach that is not below it
        rows["rank"] = [str(rank) if rank < len(case.tokens) else "-" for rank in batch.rank[0].tolist()]
        rows["reach"] = [str(reach) for reach in batch.reach[0].tolist()]
    if case.replaced is not None:
        rows = {"generator": rows["input"]}
    if batch.labels is not None:
        rows["target"] = _texts(case, "labels")
    if batch.shuffled_labels is not None:
        rows["order"] = _texts(case, "shuffled_labels")
    if case.replaced is not None:
        rows["model"] = [text or NO_LOSS for text in case.judged_row]
        rows["label"] = [str(label) for label in case.replaced[0].tolist()]
    blocks = [tokens | rows] if batch.input_ids.shape[1] == len(case.tokens) else [tokens, rows]
    if case.batch.decoder_input_ids is not None:
        blocks.append(
            {"decoder": _texts(case, "decoder_input_ids"), "target": _texts(case, "decoder_labels")},
        )
    return blocks


def _texts(case: Case, field: str) -> list[str]:
    return [NO_LOSS if text is None else text for text in case.row(field)]


def _interlinear(lines: dict[str, list[str]], width: int) -> list[Text]:
    """Returns lines with their tokens in columns, wrapped to the terminal's width; wide characters count as two
    cells.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    lines = {label: [printable(text) for text in texts] for label, texts in lines.items()}  # before they are measured
    margin = 1 + max(map(len, lines))
    cells = [max(map(cell_len, column)) + 1 for column in zip(*lines.values(), strict=True)]
    out: list[Text] = []
    start = 0
    while start < len(cells):
        stop = start + 1
        while stop < len(cells) and margin + sum(cells[start : stop + 1]) <= width:
            stop += 1
        if start:
            out.append(Text())
        for label, texts in lines.items():
            line = Text(f"{label:<{margin}}", style="dim")
            for column in range(start, stop):
                line.append(set_cell_size(texts[column], cells[column]), style=_style(lines, label, column))
            line.rstrip()
            out.append(line)
        start = stop
    return out


def _style(lines: dict[str, list[str]], label: str, column: int) -> str:
    """Returns the style of a token: targets and changed inputs are highlighted."""
    text = lines[label][column]
    if label in ("target", "order"):
        return "not dim" if text == NO_LOSS else "not dim bold green"
    changed = label in ("input", "generator", "model") and lines.get("tokens", lines[label])[column] != text
    return "not dim bold yellow" if changed or text.startswith("<extra_id_") else "not dim"


def _print_matrices(console: Console, case: Case) -> None:
    """Print the matrices side by side if they fit, else below each other."""
    from rich.table import Table
    from rich.text import Text

    titles = {"input": "the input sees itself", "decoder": "the decoder sees itself", "cross": "it sees the source"}
    if len(case.visibility) > 1:
        titles["input"] = "the source sees itself"
    drawn: list[tuple[Text, int]] = []
    for name, matrix in case.visibility.items():
        lines = [titles[name], *draw(matrix.tolist())]
        drawn.append((Text("\n".join(lines), no_wrap=True), max(map(len, lines))))
    console.print()
    console.print(Text("Who sees whom: row i may attend to the filled columns of its line.", style="dim"))
    if sum(width + 3 for _, width in drawn) <= console.width:
        table = Table.grid(padding=(0, 3))
        row: list[RenderableType] = [text for text, _ in drawn]
        table.add_row(*row)
        console.print(table)
    else:
        for text, _ in drawn:
            console.print(text)


def draw(matrix: Sequence[Sequence[bool]]) -> list[str]:
    """Returns a matrix drawn in half blocks, two rows per line, so that cells are nearly square, numbered at the
    left.
    """
    width = len(matrix[0])
    margin = len(str(len(matrix) - 1))
    lines = [" " * margin + "┌" + "─" * width + "┐"]
    for top in range(0, len(matrix), 2):
        upper = matrix[top]
        lower = matrix[top + 1] if top + 1 < len(matrix) else [False] * width
        cells = "".join(" ▄▀█"[2 * bool(a) + bool(b)] for a, b in zip(upper, lower, strict=True))
        lines.append(f"{top:>{margin}}│{cells}│")
    return [*lines, " " * margin + "└" + "─" * width + "┘"]
