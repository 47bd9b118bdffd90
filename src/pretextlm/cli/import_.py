"""`pretextlm import DIR|hf:NAME|FILE.gguf --out RUN`: import a published model as a run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pretextlm.cli.shared.console import echo, print_json, stderr


def import_(
    source: Annotated[
        str, typer.Argument(help="Directory in Hugging Face's format, hf:NAME for a model of the hub, or a GGUF file.")
    ],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    objective: Annotated[
        str | None,
        typer.Option(help="Objective that the model was pre-trained with; by default that of its heads or family."),
    ] = None,
    allow_non_finite: Annotated[
        bool, typer.Option("--allow-non-finite", help="Import weights that are NaN or infinite, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the imported parts as JSON.")] = False,
) -> None:
    """Import a published model, to evaluate it, generate with it, distil it or train it further, like any other run.

    It reads config.json, safetensors (one file or sharded) and tokenizer.json, also in the hub's cache. A GGUF file is
    dequantized by transformers (extra gguf). Formats that can execute code are refused. A fine-tuned model
    (…ForSequenceClassification and the like) becomes a run of its task, with its head and the names of its labels. To
    train it further, prepare text with its tokenizer and start from it:

    pretextlm data prepare TEXT --tokenizer RUN/tokenizer.json --out STORE

    pretextlm pretrain recipes/masked.toml start=RUN data.store=STORE
    """

    with stderr().status("reading the model"):
        from pretextlm.hf.import_model import import_model as take
        from pretextlm.hf.provenance import origin_of

        command = ["pretextlm", *sys.argv[1:]]
        run = take(source, out, objective=objective, command=command, allow_non_finite=allow_non_finite)
    origin = origin_of(out)
    assert origin is not None
    if as_json:
        print_json({"run": str(out), "objective": run.recipe.training_objective.name, **origin.plain()})
        return
    shape = run.recipe.model
    learnt = run.recipe.training_objective.name
    echo(f"{out}: {origin.family}, {shape.num_hidden_layers} layers of width {shape.hidden_size}, by {learnt}")
    for title, names in (
        ("special tokens added", origin.added_tokens),
        ("newly initialised, since the checkpoint has none", origin.drawn),
        ("not carried over", origin.not_carried),
    ):
        if names:
            echo(f"{title}: {len(names)} ({', '.join(names[:6])}{', …' if len(names) > 6 else ''})")
