"""Continuations of a few fixed prompts, for people to read: the first words of held-out sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pretextlm.counter_rng import permute
from pretextlm.data.store import Split
from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import Filler, Opening, TokenTexts, can_fill, filler
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.objectives.base import Objective
from pretextlm.objectives.text_to_text import TextToText

if TYPE_CHECKING:
    import torch

    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.transformer import Transformer

PROMPT_TOKENS = 12
NEW_TOKENS = 40


def continue_texts(
    model: Transformer,
    objective: Objective,
    texts: TokenTexts,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig,
    on_token: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
) -> list[list[int]]:
    """New tokens after each text, in the way of the objective; a model of text to text writes the target of each.

    Args:
        prompts: ids of the texts, without any special token.
        settings: `stop` is set here where the objective has its own.
        on_token, dtype: as in `generate`.

    Raises:
        UserError: the model was not trained to go on from a text.
    """
    if isinstance(objective, TextToText):
        openings: list[Opening] | None = [target_of(model, texts.vocabulary, prompt) for prompt in prompts]
    else:
        way = filler(model, objective, texts) if can_fill(model, objective) else None
        openings = _openings(way, prompts)
    if openings is None:
        raise UserError(
            f"A model trained by {objective.name} with these options does not go on from a text.",
            "Let it fill in blanks instead: pretextlm fill RUN 'The ____ of the people.'",
        )
    return write(model, texts, openings, settings, on_token, dtype)


def target_of(model: Transformer, vocabulary: Vocabulary, source: Sequence[int]) -> Opening:
    """Where a model of text to text stands when it is to write the target of a source."""
    joint = model.encoder is None
    return Opening([vocabulary.eos if joint else vocabulary.start], [*source, vocabulary.eos], reread=joint)


def write(
    model: Transformer,
    texts: TokenTexts,
    openings: Sequence[Opening],
    settings: GenerationConfig,
    on_token: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
) -> list[list[int]]:
    """New tokens from each opening, all of one kind."""
    first, contexts = openings[0], [opening.context for opening in openings]
    if first.stop is not None:
        settings = settings.model_copy(update={"stop": first.stop})
    sources = None if first.source is None else [opening.source or [] for opening in openings]
    prompts, starts = (contexts, None) if sources is None else (sources, contexts)
    kind = {} if dtype is None else {"dtype": dtype}
    decode = texts.decode
    return generate(model, texts.vocabulary, prompts, settings, starts, on_token, first.reread, decode, **kind)


def prompt_samples(way: Filler | None, split: Split, count: int, seed: int) -> list[dict[str, Any]]:
    """Lines of samples.jsonl: beginnings of `count` held-out sentences, continued at temperature 0.8 and top-p 0.95.

    None for a model that does not go on from a text.
    """
    prompts = [_beginning(split, sentence) for sentence in _drawn(split, count, seed)]
    openings = _openings(way, prompts)
    if way is None or not openings:
        return []
    settings = GenerationConfig(max_new_tokens=NEW_TOKENS, temperature=0.8, top_p=0.95, seed=seed)
    answers = write(way.model, way.texts, openings, settings)
    decode = way.texts.decode
    samples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        before = decode(prompt)
        samples.append(
            {"kind": "prompt", "text": before.strip(), "answer": decode([*prompt, *answer])[len(before) :].rstrip()}
        )
    return samples


def _openings(way: Filler | None, prompts: Sequence[Sequence[int]]) -> list[Opening] | None:
    """One for each prompt; None where the model does not go on from a text."""
    found = [] if way is None else [way.opening(prompt) for prompt in prompts]
    openings = [opening for opening in found if opening is not None]
    return openings if way is not None and len(openings) == len(found) else None


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
