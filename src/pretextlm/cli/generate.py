"""`pretextlm generate RUN [PROMPT]`: let a model write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pretextlm.evaluation.cloze import TokenTexts


def generate(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm pretrain` wrote it.")],
    prompt: Annotated[str, typer.Argument(help="Text to continue; nothing: a document from its beginning.")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens written.")] = 100,
    temperature: Annotated[
        float, typer.Option(min=0, help="Above 1 bolder, below 1 safer; 0 always takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from the k likeliest tokens only; 0: from all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens that together have this probability; 1: from all.")
    ] = 0.95,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Number of texts, each with other draws.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same text.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print prompt and texts as JSON.")] = False,
) -> None:
    """Continue a text.

    A causal model reads <s> and the prompt, and writes until </s> or the limit; one of prefix language modelling reads
    the prompt as a whole first. A model of span corruption reads the prompt with <extra_id_0> after it, in T5's way,
    and writes what stands there: a few words, as it was trained to; a denoising model does so with [MASK]. A mixture of
    denoisers is told by [S2S] to go on. A model of text to text takes the prompt for a source and writes its target.
    Models that only fill in gaps where they are do not write on; see `pretextlm fill`.
    """
    from pretextlm.cli.console import print_json, stderr

    with stderr().status("opening the run"):
        from pretextlm.training.runtime import tune_process

        tune_process()
        from pretextlm.evaluation.evaluate import open_trained
        from pretextlm.evaluation.prompts import continue_texts
        from pretextlm.model.generation import GenerationSettings
        from pretextlm.objectives.text_to_text import TextToText
        from pretextlm.training.run import Run

        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        settings = GenerationSettings.parse({"max_new_tokens": max_new_tokens, **options}, "the options")
        model, objective, texts = open_trained(Run.open(run))
    ids = texts.encode(prompt)
    apart = isinstance(objective, TextToText)  # a target is no continuation of its source
    live = sys.stdout.isatty() and samples == 1 and not as_json
    if live and apart:
        sys.stdout.write(prompt + "\n")
    stream = Stream(texts, [] if apart else ids) if live else None
    answers = continue_texts(model, objective, texts, [ids] * samples, settings, stream.token if stream else None)
    if stream:
        stream.end()
        return
    context = [] if apart else ids
    before = texts.decode(context)
    found = [texts.decode([*context, *answer])[len(before) :] for answer in answers]
    if as_json:
        print_json({"run": str(run), "prompt": prompt, "texts": found, "settings": settings.model_dump(mode="json")})
        return
    sys.stdout.write("\n---\n".join(prompt + ("\n" if apart else "") + text for text in found) + "\n")


class Stream:
    """A text on the terminal while it is written.

    Args:
        texts: the tokenizer's tokens.
        prompt: ids, shown first.
    """

    def __init__(self, texts: TokenTexts, prompt: list[int]) -> None:
        self._texts, self._ids = texts, list(prompt)
        self._shown = texts.decode(prompt)
        self._write(self._shown)

    def token(self, row: int, token: int) -> None:
        """Show what a new token adds; an unfinished character waits for its other bytes."""
        self._ids.append(token)
        text = self._texts.decode(self._ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._write(text[len(self._shown) :])
            self._shown = text

    def end(self) -> None:
        """Show what is left, and end the line."""
        self._write(self._texts.decode(self._ids)[len(self._shown) :] + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
