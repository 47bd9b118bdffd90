"""`pretextlm prune RUN --out RUN2`: remove weights, heads, channels or layers of a run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pretextlm.cli.shared.console import echo, echo_comparison, print_json, stderr


class Score(StrEnum):
    """Importance criterion for heads and channels."""

    GRADIENT = "gradient"
    WEIGHTS = "weights"


def prune(
    run: Annotated[Path, typer.Argument(help="Run directory; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    sparsity: Annotated[
        float | None, typer.Option(help="Share of each matrix's weights that become zero, the smallest first.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Instead: 2:4 leaves the two largest of every four weights of a row.")
    ] = None,
    heads: Annotated[float | None, typer.Option(help="Share of each layer's attention heads to cut off.")] = None,
    channels: Annotated[
        float | None, typer.Option(help="Share of each layer's feed-forward channels to cut off.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Layers that stay, from 0: 0,2,4.")] = None,
    importance: Annotated[
        Score | None,
        typer.Option(
            help="How heads and channels are ranked: by the gradient of the loss on 64 training rows "
            "(Michel et al. 2019), or by the norms of their weights. By default by gradient if the run has text."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Text or records to measure on: a store, or a file for a fine-tuned run; default: its own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prune a run: remove the least important parts, and measure the loss or the scores before and after.

    --sparsity and --pattern set single weights to zero. The model keeps its shape, so that files and speed are
    unchanged unless a runtime exploits the zeros (2:4 on a GPU), and further training changes the zeros again.

    --heads, --channels and --layers make the matrices smaller: fewer parameters, a smaller file, less work. Heads that
    share keys and values are removed together. A model with fewer heads of the same width can be exported if its family
    allows it: Llama, Mistral, Qwen, Gemma and T5 do, BERT, GPT-2 and BART do not. Fewer channels or layers fit most.

    The result is a run: evaluate it, export it, or train it further to recover its loss:

    pretextlm prune RUN --heads 0.25 --channels 0.25 --out SMALLER

    pretextlm pretrain RECIPE start=SMALLER --out TRAINED
    """

    from rich.text import Text

    with stderr().status("opening the run") as status:
        from pretextlm.training.runtime import tune_process

        tune_process()
        from pretextlm.compression.prune import Pruning, prune_run

        pruning = Pruning(
            sparsity=sparsity,
            pattern=pattern,
            heads=heads,
            channels=channels,
            layers=_numbers(layers),
            importance=None if importance is None else importance.value,
        )
        command = ["pretextlm", *sys.argv[1:]]
        done = prune_run(
            run, out, pruning, store=store, command=command, progress=lambda text: status.update(Text(text))
        )
    if as_json:
        print_json(done)
        return
    parameters, matrices = done["parameters"], done["matrices"]
    echo(f"{out}: without {done['what']}" if not layers else f"{out}: {done['what']}")
    echo(f"parameters: {parameters['before']:,} → {parameters['after']:,}")
    echo(f"zeros: {matrices['zero']:,} of the {matrices['weights']:,} weights of the blocks' matrices")
    echo_comparison(done)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from pretextlm.errors import UserError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{text!r} is not a list of layers.", "For example: --layers 0,2,4") from None
