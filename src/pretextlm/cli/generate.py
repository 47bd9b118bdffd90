"""`pretextlm generate RUN [PROMPT]`: generate text."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretextlm.cli.shared.console import echo, print_json, stderr
from pretextlm.cli.shared.options import Device
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pretextlm.evaluation.generate import GenerationOptions
    from pretextlm.hf.chat_template import Message


def generate(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm pretrain` wrote it.")],
    prompt: Annotated[str, typer.Argument(help="Text to continue; nothing: a document from its beginning.")] = "",
    prompts: Annotated[
        Path | None, typer.Option(help="Continue every text of this file: one a line, or JSON lines in a .jsonl file.")
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Show these before each prompt: INPUT, a tab, TARGET a line, or JSON lines (few-shot)."),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="The prompt is a user's message to a model that was imported with a chat template."
        ),
    ] = False,
    template: Annotated[
        str, typer.Option(help=r"How an example reads, with {input} and {target}; \n is a new line, \t a tab.")
    ] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens written.")] = 100,
    min_new_tokens: Annotated[int, typer.Option(min=0, help="Fewest tokens written.")] = 0,
    temperature: Annotated[
        float, typer.Option(min=0, help="Above 1 bolder, below 1 safer; 0 always takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k likeliest tokens only; 0: from all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens that together have this probability; 1: from all.")
    ] = 0.95,
    min_p: Annotated[
        float, typer.Option(help="Draw from tokens at least this share as likely as the likeliest; 0: from all.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1 makes tokens that were there before less likely.")
    ] = 1.0,
    beams: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Search for the likeliest text with so many side by side."),
    ] = 1,
    length_penalty: Annotated[float, typer.Option(help="Of a search: above 0 favours longer texts.")] = 1.0,
    early_stopping: Annotated[
        bool,
        typer.Option("--early-stopping", help="Of a search: end as soon as so many texts have ended."),
    ] = False,
    stop: Annotated[
        list[str] | None, typer.Option(help=r"End a text before this string; may be given again. \n is a new line.")
    ] = None,
    suppress: Annotated[
        list[str] | None, typer.Option(help="Never write a token of this string; may be given again.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Number of texts, each with other draws.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same text.")] = 0,
    parse_special_tokens: Annotated[
        bool, typer.Option(help="The name of a special token in a text is that token, as in transformers.")
    ] = False,
    truncate_left: Annotated[
        bool,
        typer.Option("--truncate-left", help="Leave out the beginning of a prompt that is too long."),
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: faster where the machine has it.")] = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print prompts and texts as JSON.")] = False,
) -> None:
    r"""Continue a text.

    Examples:

        pretextlm generate runs/mine "The state of the union is"
        pretextlm generate runs/mine "My fellow" --samples 3 --seed 7
        pretextlm generate runs/mine --prompts prompts.txt --beams 4 --json
        pretextlm generate runs/mine "A list:" --temperature 0 --stop "\n\n"
        pretextlm generate runs/mine house --examples words.tsv
        pretextlm generate runs/smollm "What is a prime number?" --chat --temperature 0

    A causal model reads <s> and the prompt, and generates until </s> or the limit; a prefix LM reads the prompt
    bidirectionally. A span-corruption model reads the prompt followed by <extra_id_0>, as T5 does, and generates the
    missing span: a few words, as in its training; a denoising model does so with [MASK]. A mixture of denoisers gets
        the
    mode token [S2S]. A text-to-text model reads the prompt as a source and generates its target. Models that only
    predict tokens in place cannot generate; see `pretextlm fill`.

    With examples, the prompt is the input of a last example whose target is generated; it ends where the template's
    does. A single text is streamed to a terminal. The same seed gives the same texts; the text for a prompt of a file
    depends on its place, not on the other prompts.

    A model with a table of positions stops where the table ends, and refuses a longer prompt unless --truncate-left is
    given. Other models read on, and a note says from where on they were not made for it.
    """
    from pretextlm.evaluation.prompt_files import TEMPLATE, read_conversations, read_examples, read_prompts

    if chat and (examples or template):
        raise UserError("--chat and --examples exclude each other.", "Write examples as messages of a conversation.")
    read = read_conversations if chat else read_prompts
    asked = read(prompts) if prompts else [prompt]
    pairs = read_examples(examples) if examples else []
    with stderr().status("opening the run"):
        from pretextlm.training.runtime import tune_process

        tune_process()
        from pretextlm.evaluation.generate import generate as write
        from pretextlm.training.run_directory import Run

        opened = Run.open(run)
    settings: GenerationOptions = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "beams": beams,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
        "stop_strings": [unescaped(text) for text in stop or []],
        "samples": samples,
        "seed": seed,
    }
    between = "\n" if chat or pairs or opened.recipe.training_objective.writes_targets else ""
    notes: list[str] = []
    live = sys.stdout.isatty() and len(asked) * samples == 1 and beams == 1 and not as_json
    show = partial(echo, end="")
    if live:
        show(_text(asked[0]) + between)
    found = write(
        opened,
        asked,
        chat=chat,
        examples=pairs,
        template=unescaped(template) or TEMPLATE,
        suppress=suppress or (),
        dtype="bf16" if bf16 else "fp32",
        device=device,
        parse_special_tokens=parse_special_tokens,
        truncate_left=truncate_left,
        on_note=notes.append,
        on_text=show if live else None,
        **settings,
    )
    if live:
        show("\n")
    for note in notes:
        stderr().print(note)
    if live:
        return
    groups = [found[n * samples : (n + 1) * samples] for n in range(len(asked))]
    if as_json:
        results = [{"prompt": text, "texts": group} for text, group in zip(asked, groups, strict=True)]
        used = {**settings, "suppress": suppress or []}
        told = {**({"notes": notes} if notes else {}), **opened.fallback}
        print_json(
            {
                "run": str(run),
                **({"results": results} if prompts else results[0]),
                **told,
                "settings": used,
            }
        )
        return
    shown = [_text(text) + between + answer for text, group in zip(asked, groups, strict=True) for answer in group]
    echo("\n---\n".join(shown))


def _text(prompt: str | Sequence[Message]) -> str:
    """Returns a prompt, or the messages of a conversation, for people."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{one['role']}: {one['content']}" for one in prompt)


def unescaped(text: str) -> str:
    r"""Returns text with \n and \t replaced by the characters."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
