"""`pretextlm predict RUN TEXT…`: predictions of a fine-tuned model."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pretextlm.errors import UserError

SHOWN = 3
"""Maximum number of classes shown with their probabilities."""


def predict(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm finetune` wrote it.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or COLUMN=TEXT for each column of a record.")
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="File of records instead; labels are not needed. FILE?text=review names columns.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the answers, a JSON object a line.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Predict with a fine-tuned model: classes with probabilities, numbers, entities, answers, translations,
    embeddings.

    Examples:

        pretextlm predict runs/sst2 "A gorgeous, witty film." "It never ends."

        pretextlm predict runs/mnli premise="A man sleeps." hypothesis="Someone rests."

        pretextlm predict runs/sst2 --file reviews.csv?text=review --out answers.jsonl
    """
    from pretextlm.cli.shared.progress_bar import Bar
    from pretextlm.files import write_text
    from pretextlm.training.runtime import tune_process

    if bool(texts) == bool(file):
        raise UserError("There is no text, or both texts and a file.", "Give texts, or --file FILE.")
    tune_process()
    from pretextlm.evaluation.predict import predict as ask

    with Bar() as bar:
        found = ask(run, texts or None, file=file, device=device, progress=partial(bar.show, "answers"))
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
    if out:
        write_text(out, lines)
        typer.echo(f"{out}: {len(found):,} answers")
    elif as_json or file:
        sys.stdout.write(lines)
    else:
        for one in found:
            typer.echo(_in_words(one))


def _in_words(found: dict[str, Any]) -> str:
    """Returns a prediction as one line, the most likely first."""
    answer = found["answer"]
    if "probabilities" in found:
        ranked = sorted(found["probabilities"].items(), key=lambda one: -one[1])[:SHOWN]
        return "  ".join(f"{name} {chance:.1%}" for name, chance in ranked)
    if "names" in found:
        return ", ".join(f"{name['text']} ({name['type']})" for name in found["names"]) or "(no names)"
    if "tokens" in found:
        return " ".join(f"{token}/{tag}" for token, tag in zip(found["tokens"], answer, strict=True))
    if isinstance(answer, list):
        return f"a point of {len(answer)} numbers, {', '.join(f'{value:.3f}' for value in answer[:4])} …  (all: --json)"
    return f"{answer:.3f}" if isinstance(answer, float) else str(answer) or "(no answer)"
