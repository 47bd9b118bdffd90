"""`pretextlm export RUN DIR`: write a run in Hugging Face's format."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pretextlm.cli.shared.console import echo, echo_comparison, print_json, stderr
from pretextlm.errors import UserError


class Part(StrEnum):
    """Models of a run of replaced-token detection; in any other run, the first is the model."""

    DISCRIMINATOR = "discriminator"
    GENERATOR = "generator"


class NumberFormat(StrEnum):
    """Dtype of the written weights."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Quantization(StrEnum):
    """Quantization of the matrices of the blocks."""

    INT8 = "int8"


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
    quantize: Annotated[
        Quantization | None, typer.Option(help="Write the matrices of the blocks as eight-bit integers.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="With --quantize: store or records to measure on; by default the run's own.")
    ] = None,
    part: Annotated[
        Part, typer.Option(help="Of a run of replaced_token: its model, or the generator it was trained with.")
    ] = Part.DISCRIMINATOR,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Of a run with tuning.lora: its adapters alone, in peft's layout.")
    ] = False,
    base: Annotated[
        str, typer.Option(help="With --adapter: directory or hub name of the exported start; by default an import's.")
    ] = "",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Load the result with transformers and compare its outputs.")
    ] = True,
    allow_non_finite: Annotated[
        bool, typer.Option("--allow-non-finite", help="Export weights that are NaN or infinite, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the written files as JSON.")] = False,
) -> None:
    """Export a run for any program that reads Hugging Face's format: weights, configuration, tokenizer, model card.

    Only models with the shape of a published family can be exported; the error names the settings a recipe needs.

    A fine-tuned run is written as its family's class for the task, with the names of its labels. With --adapter, a run
    that trained adapters is written as adapters alone, for peft, on top of the model it started from.

    A run of replaced_token has two models: by default its discriminator is written, with --part generator the other.

    The directory is then loaded with transformers, where that is installed, and must give the same tokens and outputs
    as the run on a few texts; else it is removed.

    --quantize int8 writes the matrices of the blocks in a quarter of the bytes, with one scale per output channel, and
    measures the held-out loss, or a task's scores, before and after. The format is that of the library
    compressed-tensors (W8A16), which transformers reads if it is installed. The embedding and the head keep --dtype; in
    a small model they are most of the file.
    """

    if not math.isfinite(max_shard_size):
        raise UserError("--max-shard-size is not a number of gigabytes.", "For example: --max-shard-size 5")
    with stderr().status("writing the model"):
        options: dict[str, Any] = {
            "family": family,
            "dtype": dtype.value if dtype else None,
            "max_shard_bytes": int(max_shard_size * 1e9),
            "check": check,
        }
        if quantize and part is Part.GENERATOR:
            raise UserError("A generator is not written as integers.", "Leave out --quantize or --part.")
        if store and not quantize:
            raise UserError(
                "--store says on what to measure quantised weights.", "Leave it out, or add --quantize int8."
            )
        if base and not adapter:
            raise UserError("--base is the model below adapters.", "Leave it out, or add --adapter.")
        if adapter and (quantize or dtype or part is Part.GENERATOR):
            raise UserError("Adapters are written as they are.", "Leave out --quantize, --dtype and --part.")
        if adapter:
            from pretextlm.hf.peft_adapter import export_adapter

            done = export_adapter(run, directory, family=family, base=base, check=check)
        elif quantize:
            from pretextlm.compression.quantized import export_quantized

            done = export_quantized(run, directory, store=store, **options)
        else:
            from pretextlm.hf.export_model import export_model

            done = export_model(run, directory, part=part.value, allow_non_finite=allow_non_finite, **options)
    if as_json:
        written = {"family": done.family, "architecture": done.architecture, "lost_heads": list(done.lost)}
        values = {
            "directory": str(directory),
            **written,
            "files": done.files,
            "as_it_came": done.untouched,
            "checked": done.checked,
        }
        sizes = {"before": done.whole_bytes, "after": done.weight_bytes}
        measured = done.comparison or {}
        print_json(values | ({"quantized": "int8", "weight_bytes": sizes, **measured} if quantize else {}))
        return
    echo(f"{directory}: {done.family} ({done.architecture})" + (", as it came" if done.untouched else ""))
    if done.reason:
        echo(f"with its own code (trust_remote_code), since: {done.reason}")
    if done.lost:
        echo(f"heads without a place in this format: {', '.join(done.lost)}")
    for name, size in done.files.items():
        echo(f"  {name}  {size:,} bytes")
    echo(done.checked)
    if quantize and done.comparison is not None:
        smaller = f"{done.weight_bytes / done.whole_bytes:.0%}"
        echo(f"weights: {done.whole_bytes:,} → {done.weight_bytes:,} bytes ({smaller})")
        echo(f"int8: the matrices of the blocks; embedding table, head and norms are {done.dtype}")
        echo_comparison(done.comparison)
