"""`pretextlm fill RUN TEXT`: fill the blanks of a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretextlm.cli.shared.console import print_json, stderr, stdout
from pretextlm.cli.shared.options import Device

if TYPE_CHECKING:
    from pretextlm.evaluation.fill import Filled


def fill(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm pretrain` wrote it.")],
    text: Annotated[str, typer.Argument(help="Text with \\[MASK] or ____ for each blank.")],
    top: Annotated[int, typer.Option(min=1, max=100, help="Answers to show for each blank.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=16, help="Most tokens of an answer.")] = 4,
    parse_special_tokens: Annotated[
        bool, typer.Option(help="The name of a special token in a text is that token, as in transformers.")
    ] = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers and scores as JSON.")] = False,
) -> None:
    """Fill in blanks.

    Examples:

        pretextlm fill runs/mine "The ____ of the United [MASK]."
        pretextlm fill runs/mine "We must ____ our laws." --top 10 --json

    Each model fills blanks in the way of its objective. A masked model predicts [MASK]; k adjacent [MASK] are exactly k
    tokens, and for ____ it tries several numbers of tokens. A span-corruption model reads a sentinel and writes the
    hidden text. A causal model continues the text before the blank and ranks its candidates by the text after it. A
    denoising model rewrites the text; one of replaced-token detection ranks what its generator proposes. Models of
    other objectives are refused.

    Blanks are filled from left to right. Scores are log-likelihoods in nats (for replaced-token detection: that the
    answer is original); they are not comparable between kinds of model. In a text that is longer than the model can
    read, each blank sees the tokens nearest to it.
    """

    with stderr().status("opening the run"):
        from pretextlm.training.runtime import tune_process

        tune_process()
        from pretextlm.evaluation.fill import fill as fill_text
        from pretextlm.training.run_directory import Run

        opened = Run.open(run)
        filled = fill_text(
            opened,
            text,
            top=top,
            max_new_tokens=max_new_tokens,
            parse_special_tokens=parse_special_tokens,
            device=device,
        )
    for note in filled.notes:
        stderr().print(note)
    if as_json:
        blanks = [[{"answer": answer, "score": score} for answer, score in b.answers] for b in filled.blanks]
        print_json(
            {
                "run": str(run),
                "objective": opened.recipe.training_objective.name,
                "text": filled.text,
                "blanks": blanks,
                **({"notes": filled.notes} if filled.notes else {}),
                **opened.fallback,
            }
        )
    else:
        _show(filled)


def _show(filled: Filled) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    console.print(Text(filled.text))
    for nth, blank in enumerate(filled.blanks, 1):
        table = Table(box=None, padding=(0, 2), title=f"blank {nth}", title_justify="left", title_style="dim")
        table.add_column("answer")
        table.add_column("score", justify="right")
        for answer, score in blank.answers:
            table.add_row(Text(answer), f"{score:.2f}")
        console.print(table)
