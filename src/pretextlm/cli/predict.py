"""`pretextlm predict RUN TEXT…`: predictions of a fine-tuned model."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pretextlm.cli.shared.console import echo, json_line, stderr
from pretextlm.cli.shared.options import Device
from pretextlm.errors import UserError

SHOWN = 3
"""Maximum number of classes shown with their probabilities."""
SHOWN_NOTES = 5
"""Maximum number of records whose notes are shown."""
JSON_LINES = (".jsonl", ".json", ".ndjson")


def predict(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm finetune` wrote it.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or COLUMN=TEXT for each column of one record.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "--in",
            help="Records without labels (.jsonl, .csv, …; FILE?text=review names columns), texts (.txt).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the answers: JSON lines in a .jsonl file, else as they are printed.")
    ] = None,
    parse_special_tokens: Annotated[
        bool, typer.Option(help="The name of a special token in a text is that token, as in transformers.")
    ] = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Predict with a fine-tuned model: classes with probabilities, numbers, entities, answers, translations,
    embeddings.

    Examples:

        pretextlm predict runs/sst2 "A gorgeous, witty film." "It never ends."

        pretextlm predict runs/mnli premise="A man sleeps." hypothesis="Someone rests."

        pretextlm predict runs/sst2 --file reviews.csv?text=review --out answers.jsonl

        head -5 reviews.txt | pretextlm predict runs/sst2 --json

    Without texts and file, the standard input is read: a text a line, or JSON lines.
    """
    from pretextlm.cli.shared.progress_bar import Bar
    from pretextlm.file_names import suffix_of
    from pretextlm.files import write_text
    from pretextlm.training.runtime import tune_process

    if texts and file:
        raise UserError("There are both texts and a file.", "Give texts, or --file FILE.")
    if not texts and not file and sys.stdin.isatty():
        raise UserError("There is no text.", "Give texts, --file FILE, or lines on the standard input.")
    tune_process()
    from pretextlm.evaluation.predict import predict as answer
    from pretextlm.evaluation.predict_input import decoded, lines_of

    given = None if file else texts or lines_of(decoded(sys.stdin.buffer.read(), "the standard input"))
    with Bar() as bar:
        found = answer(
            run,
            given,
            file=file,
            parse_special_tokens=parse_special_tokens,
            device=device,
            progress=partial(bar.show, "answers"),
        )
    as_json = as_json or (out is not None and suffix_of(out) in JSON_LINES)
    lines = [json_line(one) if as_json else _in_words(one) for one in found]
    notes = [f"row {one['row']}: {one['note']}" for one in found if "note" in one]
    notes[SHOWN_NOTES:] = [f"… and {len(notes) - SHOWN_NOTES:,} more rows (--json: all)"] * (len(notes) > SHOWN_NOTES)
    for note in notes:
        stderr().print(note)
    if out:
        write_text(out, "".join(f"{line}\n" for line in lines))
        echo(f"{out}: {len(found):,} answers")
    else:
        for line in lines:
            echo(line)


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
