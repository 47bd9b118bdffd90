"""Continuations of a few fixed prompts, for people to read: the first words of held-out sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pretextlm.data.store import Split
from pretextlm.evaluation.cloze import Filler
from pretextlm.evaluation.span_filler import SpanFiller
from pretextlm.keyed import permute
from pretextlm.model.generation import GenerationSettings, generate

PROMPT_TOKENS = 12
NEW_TOKENS = 40


def can_continue(filler: Filler) -> bool:
    """Whether the model writes from left to right at all."""
    return filler.model.decoder is not None


def continue_texts(
    filler: Filler,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """New tokens after each text, in the way of the objective.

    A causal model goes on after <s> and the text. A model of span corruption reads the text with <extra_id_0> at its
    end, as T5 does, and writes what stands there, until the next sentinel or </s>.

    Args:
        prompts: ids of the texts, without any special token.
        settings: `stop` is set here where the objective has its own.

    Raises:
        UserError: the model is an encoder.
    """
    if isinstance(filler, SpanFiller):
        sources = [filler.source([prompt, []]) for prompt in prompts]
        settings = settings.model_copy(update={"stop": tuple(filler.closers)})
        starts = [filler.target_start] * len(prompts)
        return generate(filler.model, filler.vocabulary, sources, settings, starts, on_token)
    begin = filler.objective.frame(filler.vocabulary).begin
    lead = [filler.vocabulary.bos if begin is None else begin]
    framed = [[*lead, *prompt] for prompt in prompts]
    return generate(filler.model, filler.vocabulary, framed, settings, on_token=on_token)


def prompt_samples(filler: Filler, split: Split, count: int, seed: int) -> list[dict[str, Any]]:
    """Lines of samples.jsonl: beginnings of `count` held-out sentences, continued at temperature 0.8 and top-p 0.95."""
    if not can_continue(filler) or not len(split.sentences):
        return []
    prompts = [_beginning(split, sentence) for sentence in _drawn(split, count, seed)]
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS, temperature=0.8, top_p=0.95, seed=seed)
    answers = continue_texts(filler, prompts, settings)
    decode = filler.texts.decode
    samples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        before = decode(prompt)
        samples.append(
            {"kind": "prompt", "text": before.strip(), "answer": decode([*prompt, *answer])[len(before) :].rstrip()}
        )
    return samples


def _drawn(split: Split, count: int, seed: int) -> list[int]:
    """Sentences longer than a prompt, drawn by the seed; any, where there are none."""
    total = len(split.sentences)
    order = permute(np.arange(total), total, seed, 1)
    lengths = np.diff(split.sentences.astype(np.int64), append=split.num_tokens)[order]
    long = order[lengths > PROMPT_TOKENS]
    drawn: list[int] = (long if len(long) else order)[:count].tolist()
    return drawn


def _beginning(split: Split, sentence: int) -> list[int]:
    """The sentence's first tokens, cut where a word begins."""
    start = int(split.sentences[sentence])
    stop = min(start + PROMPT_TOKENS, split.num_tokens)
    if stop < split.num_tokens:
        words = np.flatnonzero(split.word_starts(np.arange(start, stop + 1)))
        stop = start + int(words[-1]) if words[-1] else stop
    ids: list[int] = split.tokens[start:stop].astype(int).tolist()
    return ids
