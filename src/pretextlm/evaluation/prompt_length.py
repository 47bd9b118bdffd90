"""Prompts that are too long for a model: refused, or without their beginning; and what is said of long texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.model.generation import room_for
from pretextlm.scoring.blank import DecoderPrompt

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer


def fitted_prompt(
    model: Transformer,
    prompt_of: Callable[[Sequence[int]], DecoderPrompt],
    ids: Sequence[int],
    new_tokens: int,
    truncate_left: bool,
) -> DecoderPrompt:
    """Returns a text's prompt, if it is too long and may be truncated without its first tokens.

    A truncated prompt leaves room for the new tokens, but keeps at least half of the positions.

    Args:
        model: whose positions are the limit.
        prompt_of: the decoder's input for a text.
        ids: of the text.
        new_tokens: that are to be generated.
        truncate_left: whether the prompt may be truncated.

    Raises:
        UserError: it is longer than the model reads, and may not be truncated.
    """
    prompt, limit = prompt_of(ids), model.config.positions.limit
    if limit is None:
        return prompt
    used = tokens_read(model, prompt)
    if truncate_left and used > (most := max(limit - new_tokens + 1, limit // 2)):
        prompt = prompt_of(ids[min(used - most, len(ids)) :])
        used = tokens_read(model, prompt)
    if used > limit:
        raise UserError(
            f"The prompt has {used:,} tokens; the model reads {limit:,}.",
            "Shorten it, or leave out its beginning: --truncate-left",
        )
    return prompt


def length_note(model: Transformer, prompt: DecoderPrompt, new_tokens: int, asked: int) -> str:
    """Returns what is to be said about the length of a generated text, as the rest of a sentence; "" for nothing.

    Args:
        model: that generated it.
        prompt: that it continues.
        new_tokens: of the text.
        asked: most tokens that it might have had.
    """
    positions = model.config.positions
    context, source = len(prompt.context), prompt.source
    if positions.limit is not None:
        read, begun = (context, None) if source is None else (len(source), context)
        room = room_for(model, read, begun, prompt.reread)
        return f"stops at the model's {positions.limit:,} positions." if new_tokens == room < asked else ""
    size = max(tokens_read(model, prompt), context + new_tokens)
    if model.encoder is None:
        size = tokens_read(model, prompt) + new_tokens
    if positions.length is None or size <= positions.length:
        return ""
    return f"reaches {size:,} tokens; the model was made for {positions.length:,}."


def tokens_read(model: Transformer, prompt: DecoderPrompt) -> int:
    """Returns how many tokens a prompt has: in an encoder-decoder those of the longer of its two parts."""
    source = len(prompt.source or ())
    if model.encoder is not None:
        return max(source, len(prompt.context))
    return source + len(prompt.context) - prompt.reread
