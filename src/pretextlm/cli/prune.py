"""`pretextlm prune RUN --out RUN2`: a run with fewer weights, heads, channels or layers."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Score(StrEnum):
    """How heads and channels are chosen."""

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
            help="How heads and channels are chosen: by gradient, what the loss on 64 training rows feels of each "
            "(Michel et al. 2019), or by the norms of its weights. By default by gradient where there is text."
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Store of text prepared with the run's tokenizer; by default the run's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Prune a run: what matters least goes, and the held-out loss is measured before and after.

    --sparsity and --pattern set single weights to zero. The model keeps its shape, so that files and time stay as they
    are until something makes use of zeros (2:4 on a GPU), and training on fills them again.

    --heads, --channels and --layers cut matrices smaller: fewer parameters, a smaller file, less work. Heads that share
    keys and values go together. A model with fewer heads of the same width can be exported where its family has a place
    for them: Llama, Mistral, Qwen, Gemma and T5 do, BERT, GPT-2 and BART do not. Fewer channels or layers fit most.

    The result is a run: evaluate it, export it, or train it on to win back what it lost:

    pretextlm prune RUN --heads 0.25 --channels 0.25 --out SMALLER

    pretextlm pretrain RECIPE start=SMALLER --out TRAINED_ON
    """
    from pretextlm.cli.shared.console import echo_loss, print_json, stderr

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
        done = prune_run(run, out, pruning, store=store, command=command, progress=status.update)
    if as_json:
        print_json(done)
        return
    parameters, matrices = done["parameters"], done["matrices"]
    typer.echo(f"{out}: without {done['what']}" if not layers else f"{out}: {done['what']}")
    typer.echo(f"parameters: {parameters['before']:,} → {parameters['after']:,}")
    typer.echo(f"zeros: {matrices['zero']:,} of the {matrices['weights']:,} weights of the blocks' matrices")
    echo_loss(done["loss"], done["not_measured"])


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from pretextlm.errors import UserError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{text!r} is not a list of layers.", "For example: --layers 0,2,4") from None
