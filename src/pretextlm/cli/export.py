"""`pretextlm export RUN DIR`: a run as a directory in Hugging Face's format."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class NumberFormat(StrEnum):
    """Of the weights that are written."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    directory: Annotated[Path, typer.Argument(help="Directory to make.")],
    family: Annotated[
        str | None, typer.Option(help="Hugging Face's model_type; by default the one that the run's shape fits.")
    ] = None,
    dtype: Annotated[
        NumberFormat | None, typer.Option(help="Of the weights; by default fp32, or as an untrained import came.")
    ] = None,
    max_shard_size: Annotated[float, typer.Option(min=0.001, help="Most gigabytes of a file of weights.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a run for any program that reads Hugging Face's directories: weights, configuration, tokenizer, model card.

    Only models that have the shape of a published family can be written so; the error says what a recipe must set.
    """
    from pretextlm.cli.console import print_json, stderr

    with stderr().status("writing the model"):
        from pretextlm.exchange.write import export_run

        done = export_run(
            run,
            directory,
            family=family,
            dtype=dtype.value if dtype else None,
            max_shard_bytes=int(max_shard_size * 1e9),
        )
    if as_json:
        print_json(
            {"directory": str(directory), "family": done.family, "files": done.files, "as_it_came": done.untouched}
        )
        return
    typer.echo(f"{directory}: {done.family}" + (", as it came" if done.untouched else ""))
    for name, size in done.files.items():
        typer.echo(f"  {name}  {size:,} bytes")
