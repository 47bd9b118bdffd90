"""`pretextlm generate RUN [PROMPT]`: generate text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pretextlm.scoring.token_texts import TokenTexts


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
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: faster where the machine has it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print prompts and texts as JSON.")] = False,
) -> None:
    r"""Continue a text.

    Examples:

        pretextlm generate runs/mine "The state of the union is"
        pretextlm generate runs/mine "My fellow" --samples 3 --seed 7
        pretextlm generate runs/mine --prompts prompts.txt --beams 4 --json
        pretextlm generate runs/mine "A list:" --temperature 0 --stop "\n\n"
        pretextlm generate runs/mine house --examples words.tsv

    A causal model reads <s> and the prompt, and generates until </s> or the limit; a prefix LM reads the prompt
    bidirectionally. A span-corruption model reads the prompt followed by <extra_id_0>, as T5 does, and generates the
    missing span: a few words, as in its training; a denoising model does so with [MASK]. A mixture of denoisers gets
        the
    mode token [S2S]. A text-to-text model reads the prompt as a source and generates its target. Models that only
    predict tokens in place cannot generate; see `pretextlm fill`.

    With examples, the prompt is the input of a last example whose target is generated; it ends where the template's
    does. A single text is streamed to a terminal. The same seed gives the same texts; the text for a prompt of a file
    depends on its place, not on the other prompts.
    """
    from pretextlm.cli.shared.console import print_json, stderr
    from pretextlm.evaluation.prompt_files import TEMPLATE, Template, read_examples, read_prompts

    asked = read_prompts(prompts) if prompts else [prompt]
    stops = [unescaped(text) for text in stop or []]
    full = asked
    if examples:
        form = Template(unescaped(template) or TEMPLATE)
        shown = read_examples(examples)
        full = [form.prompt(shown, text) for text in asked]
        stops += form.stop_strings()
    with stderr().status("opening the run"):
        from pretextlm.training.runtime import tune_process

        tune_process()
        import torch

        from pretextlm.evaluation.prompts import continue_texts
        from pretextlm.evaluation.trained_model import open_trained
        from pretextlm.model.generation import GenerationConfig
        from pretextlm.training.run_directory import Run

        options = {
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
            "stop_strings": tuple(stops),
            "samples": samples,
            "seed": seed,
        }
        settings = GenerationConfig.parse(options, "the options")
        model, objective, texts = open_trained(Run.open(run))
    if suppress:
        never = {token for text in suppress for token in texts.encode(text)}
        settings = settings.model_copy(update={"suppress": tuple(sorted(never | texts.vocabulary.special))})
    ids = [texts.encode(text) for text in full]
    apart = examples is not None or objective.writes_targets  # an answer is no continuation of its question
    contexts = [[] if apart else row for row in ids]
    live = sys.stdout.isatty() and len(asked) * samples == 1 and beams == 1 and not as_json
    if live and apart:
        sys.stdout.write(asked[0] + "\n")
    stream = Stream(texts, contexts[0], stops) if live else None
    dtype = torch.bfloat16 if bf16 else torch.float32
    answers = continue_texts(model, objective, texts, ids, settings, stream.token if stream else None, dtype)
    if stream:
        stream.end()
        return
    found = [new_text(texts, contexts[n // samples], answer, stops) for n, answer in enumerate(answers)]
    if examples:
        found = [text.strip() for text in found]
    groups = [found[n * samples : (n + 1) * samples] for n in range(len(asked))]
    if as_json:
        used = settings.model_dump(mode="json")
        results = [{"prompt": text, "texts": group} for text, group in zip(asked, groups, strict=True)]
        print_json({"run": str(run), **({"results": results} if prompts else results[0]), "settings": used})
        return
    shown_texts = [
        text + ("\n" if apart else "") + answer for text, group in zip(asked, groups, strict=True) for answer in group
    ]
    sys.stdout.write("\n---\n".join(shown_texts) + "\n")


def unescaped(text: str) -> str:
    r"""Returns text with \n and \t replaced by the characters."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def new_text(texts: TokenTexts, context: Sequence[int], answer: Sequence[int], stops: Sequence[str]) -> str:
    """Returns the text that an answer adds to its context, up to a stop string."""
    from pretextlm.model.text_stream import cut_at

    before = texts.decode(context)
    return cut_at(texts.decode([*context, *answer])[len(before) :], stops)[0]


class Stream:
    """Prints a text to the terminal while it is generated.

    Args:
        texts: the tokenizer's tokens.
        prompt: ids, printed first.
        stops: strings that end it.
    """

    def __init__(self, texts: TokenTexts, prompt: Sequence[int], stops: Sequence[str] = ()) -> None:
        from pretextlm.model.text_stream import TextStream

        self._stream = TextStream(texts.decode, prompt, stops)
        self._write(texts.decode(prompt))

    def token(self, row: int, token: int) -> None:
        """Print the text of a new token; an incomplete character waits for its remaining bytes."""
        self._write(self._stream.add(token))

    def end(self) -> None:
        """Print the rest and end the line."""
        self._write(self._stream.end() + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
