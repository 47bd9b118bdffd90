"""Continuations of texts: of prompts that a user gives, and of the first words of held-out sentences as samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pretextlm.counter_rng import permute
from pretextlm.data.store import Split
from pretextlm.errors import UserError
from pretextlm.evaluation.prompt_length import fitted_prompt, length_note
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.scoring.blank import DecoderPrompt
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.token_texts import TokenTexts

if TYPE_CHECKING:
    import torch

    from pretextlm.model.transformer import Transformer

PROMPT_TOKENS = 12
NEW_TOKENS = 40


def continue_texts(
    model: Transformer,
    objective: TrainingObjective,
    texts: TokenTexts,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig,
    on_token: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
    truncate_left: bool = False,
    on_note: Callable[[str], None] | None = None,
    *,
    verbatim: bool = False,
) -> list[list[int]]:
    """Continues each text in the way of the objective; a text-to-text model writes the target of each.

    Args:
        model: in eval mode.
        objective: it was trained with.
        texts: the tokens of its tokenizer.
        prompts: ids of the texts, without special tokens.
        settings: `stop` is set here where the objective has its own.
        on_token, dtype: as in `generate`.
        truncate_left: a prompt that is too long loses its beginning, so that the new tokens fit, too.
        on_note: called with a sentence about each text that is longer than the model was made for.
        verbatim: the prompts have their special tokens already, as a chat template writes them.

    Returns:
        The ids of the new tokens of each text.

    Raises:
        UserError: the model was not trained to continue texts, or a prompt is longer than it reads.
    """

    def prompt_of(ids: Sequence[int]) -> DecoderPrompt:
        if verbatim:
            return DecoderPrompt(list(ids))
        found = objective.decoder_prompt(texts.vocabulary, model.config.architecture, ids)
        if found is None:
            raise UserError(
                f"A model trained by {objective.name} with these options does not continue texts.",
                "Let it fill in blanks instead: pretextlm fill RUN 'The ____ of the people.'",
            )
        return found

    fitted = [fitted_prompt(model, prompt_of, ids, settings.max_new_tokens, truncate_left) for ids in prompts]
    answers = continue_prompts(model, texts, fitted, settings, on_token, dtype)
    if on_note is not None:
        for number, answer in enumerate(answers):
            if note := length_note(model, fitted[number // settings.samples], len(answer), settings.max_new_tokens):
                on_note(f"Text {number + 1} {note}")
    return answers


def continue_prompts(
    model: Transformer,
    texts: TokenTexts,
    decoder_prompts: Sequence[DecoderPrompt],
    settings: GenerationConfig,
    on_token: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
) -> list[list[int]]:
    """Returns the new tokens after each prompt, which all come from one layout."""
    first, contexts = decoder_prompts[0], [prompt.context for prompt in decoder_prompts]
    if first.stop is not None:
        settings = settings.model_copy(update={"stop": first.stop})
    sources = None if first.source is None else [prompt.source or [] for prompt in decoder_prompts]
    prompts, starts = (contexts, None) if sources is None else (sources, contexts)
    kind = {} if dtype is None else {"dtype": dtype}
    decode = texts.decode
    return generate(model, texts.vocabulary, prompts, settings, starts, on_token, first.reread, decode, **kind)


def prompt_samples(scorer: Scorer | None, split: Split, count: int, seed: int) -> list[dict[str, Any]]:
    """Returns lines of samples.jsonl: `count` beginnings of sentences, continued at temperature 0.8 and top-p 0.95.

    None for a model that does not continue texts.
    """
    prompts = [_first_tokens(split, sentence) for sentence in _sampled_sentences(split, count, seed)]
    found = [] if scorer is None else [scorer.prompt(prompt) for prompt in prompts]
    decoder_prompts = [prompt for prompt in found if prompt is not None]
    if scorer is None or not decoder_prompts:
        return []
    settings = GenerationConfig(max_new_tokens=NEW_TOKENS, temperature=0.8, top_p=0.95, seed=seed)
    answers = continue_prompts(scorer.model, scorer.texts, decoder_prompts, settings)
    decode = scorer.texts.decode
    samples = []
    for prompt, answer in zip(prompts, answers, strict=True):
        before = decode(prompt)
        samples.append(
            {"kind": "prompt", "text": before.strip(), "answer": decode([*prompt, *answer])[len(before) :].rstrip()}
        )
    return samples


def _sampled_sentences(split: Split, count: int, seed: int) -> list[int]:
    """Returns numbers of random sentences longer than a prompt; of any, where there are none."""
    total = len(split.sentences)
    order = permute(np.arange(total), total, seed, 1)
    lengths = np.diff(split.sentences.astype(np.int64), append=split.num_tokens)[order]
    long = order[lengths > PROMPT_TOKENS]
    sentences: list[int] = (long if len(long) else order)[:count].tolist()
    return sentences


def _first_tokens(split: Split, sentence: int) -> list[int]:
    """Returns the sentence's first tokens, cut where a word begins."""
    start = int(split.sentences[sentence])
    end = int(split.sentences[sentence + 1]) if sentence + 1 < len(split.sentences) else split.num_tokens
    stop = min(start + PROMPT_TOKENS, end)
    if stop < end:
        words = np.flatnonzero(split.word_starts(np.arange(start, stop + 1)))
        stop = start + int(words[-1]) if words[-1] else stop
    ids: list[int] = split.tokens[start:stop].astype(int).tolist()
    return ids
