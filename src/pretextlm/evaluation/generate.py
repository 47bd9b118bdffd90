"""Texts that the model of a run writes: continuations of prompts, or answers to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pretextlm.evaluation.prompt_files import TEMPLATE, Example, Template
from pretextlm.evaluation.prompts import continue_texts
from pretextlm.evaluation.trained_model import open_trained
from pretextlm.files import AnyPath
from pretextlm.hf.chat_template import Message, chat_tokens
from pretextlm.memory import memory_errors
from pretextlm.model.generation import GenerationConfig
from pretextlm.model.text_stream import TextStream, cut_at
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device, choose_dtype

if TYPE_CHECKING:
    from pretextlm.scoring.token_texts import TokenTexts

DEFAULTS = {"temperature": 0.8, "top_p": 0.95}
"""Settings that give readable texts, in place of those that sample from all tokens."""


class GenerationOptions(TypedDict, total=False):
    """The fields of :class:`GenerationConfig` that say something of texts, as keyword arguments."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    beams: int
    length_penalty: float
    early_stopping: bool
    stop_strings: Sequence[str]
    samples: int
    seed: int


@memory_errors("while generating", "Give shorter or fewer prompts, fewer new tokens or beams, or dtype bf16.")
def generate(
    run: AnyPath,
    prompts: str | Sequence[str | Sequence[Message]] = "",
    *,
    chat: bool = False,
    examples: Sequence[tuple[str, str]] = (),
    template: str = TEMPLATE,
    suppress: Sequence[str] = (),
    parse_special_tokens: bool = False,
    dtype: Literal["fp32", "bf16"] = "fp32",
    device: Device = "cpu",
    truncate_left: bool = False,
    on_note: Callable[[str], None] = warnings.warn,
    on_text: Callable[[str], None] | None = None,
    **settings: Unpack[GenerationOptions],
) -> list[str]:
    """Writes texts with the newest model of a run.

    A causal model continues a prompt; a model of span corruption or denoising writes the text after it; a text-to-text
    model takes it for a source and writes its target. The same seed gives the same texts.

    Args:
        run: the run, or its directory.
        prompts: one or more texts; "" begins a document.
        chat: each prompt is a user's message, or a conversation: a list of messages with "role" and "content". It is
            written by the chat template that the model was imported with, and the answer to it is returned.
        examples: pairs of input and target that each prompt is preceded by (few-shot); the prompt is then the input
            of a last one, whose target is written.
        template: how an example reads, with {input} and {target}.
        suppress: strings whose tokens are never written.
        parse_special_tokens: the name of a special token in a text ("[SEP]", "<|im_start|>") is that token, as in
            transformers; otherwise it is text.
        dtype: of the activations.
        device: "cpu", "cuda" or "auto".
        truncate_left: a prompt that is longer than the model reads loses its beginning; otherwise it is refused.
        on_note: called with a sentence about a text that ends where the model's positions do, or that is longer than
            the model was made for.
        on_text: called with each new piece of a single text while it is written; not for a beam search.
        **settings: see :class:`GenerationConfig`, for example `max_new_tokens=20`; by default a temperature of 0.8
            and top_p of 0.95.

    Returns:
        The new text of each prompt; with several samples, those of a prompt follow each other.

    Raises:
        UserError: the run has no checkpoint, a setting is wrong, the model was not trained to continue texts, or a
            prompt is too long.
    """
    given: list[Any] = [prompts] if isinstance(prompts, str) else list(prompts)
    stops = list(settings.get("stop_strings", ()))
    if examples:
        form = Template(template)
        shown = [Example(*pair) for pair in examples]
        given = [form.prompt(shown, text) for text in given]
        stops += form.stop_strings()
    chosen = GenerationConfig.parse({**DEFAULTS, **settings, "stop_strings": tuple(stops)}, "the options")
    place = as_device(device)
    run = Run.open(run)
    model, objective, texts = open_trained(run, place, parse_special_tokens)
    if suppress:
        never = {token for text in suppress for token in texts.encode(text)}
        usual = set() if texts.vocabulary.template is not None else texts.vocabulary.special
        chosen = chosen.model_copy(update={"suppress": tuple(sorted(never | usual))})
    if chat:
        conversations = [[{"role": "user", "content": one}] if isinstance(one, str) else one for one in given]
        ids = chat_tokens(run, conversations)
    else:
        ids = [texts.encode(text) for text in given]
    # The text of a token may depend on the one before it (a leading space); an answer does not follow its question.
    answered = objective.answers_prompts(texts.vocabulary, model.config.architecture)
    apart = chat or bool(examples) or answered
    contexts = [[] if apart else row for row in ids]
    stream = TextStream(texts.decode, contexts[0], stops) if on_text and len(ids) * chosen.samples == 1 else None

    def on_token(_: int, token: int) -> None:
        if stream and on_text:
            on_text(stream.add(token))

    answers = continue_texts(
        model,
        objective,
        texts,
        ids,
        chosen,
        on_token if stream else None,
        choose_dtype(dtype, place),
        truncate_left,
        on_note,
        verbatim=chat,
    )
    if stream and on_text:
        on_text(stream.end())
    found = [_new_text(texts, contexts[n // chosen.samples], answer, stops) for n, answer in enumerate(answers)]
    return [text.strip() for text in found] if examples else found


def _new_text(texts: TokenTexts, context: Sequence[int], answer: Sequence[int], stops: Sequence[str]) -> str:
    """Returns the text that an answer adds to its context, up to a stop string."""
    before = texts.decode(context)
    return cut_at(texts.decode([*context, *answer])[len(before) :], stops)[0]
