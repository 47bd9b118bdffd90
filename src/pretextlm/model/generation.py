"""Text from left to right: a decoder continues prompts, a decoder over an encoder answers them.

    settings = GenerationSettings(max_new_tokens=20, temperature=0.8)
    generate(model, vocabulary, [[vocabulary.bos, 17, 4]], settings)   # → [[9, 61, …]]

Axis letters: B rows, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.model.incremental import Incremental
from pretextlm.model.sampling import Sampling, choose
from pretextlm.model.transformer import Transformer

ROWS_AT_ONCE = 64


class GenerationSettings(Sampling):
    """How texts are written, on top of how each token is drawn.

    Attributes:
        max_new_tokens: most tokens written per prompt.
        stop: ids that end a text and are not part of it; None for </s>.
        suppress: ids that are never written; None for every special token that does not end the text.
    """

    max_new_tokens: int = Field(100, ge=1)
    stop: tuple[int, ...] | None = None
    suppress: tuple[int, ...] | None = None


@torch.inference_mode()
def generate(
    model: Transformer,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings | None = None,
    decoder_prompts: Sequence[Sequence[int]] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    reread: bool = False,
) -> list[list[int]]:
    """New tokens of each prompt, without the token that ended it.

    The result of a row depends on its prompt, the settings and its place in `prompts`, not on the rows beside it.

    Args:
        prompts: token ids, none empty: what a decoder continues, or what an encoder reads.
        decoder_prompts: what an encoder-decoder's decoder has before it, starting with its start token. Given to a
            decoder alone, they follow the prompts, which are then seen in both directions (a prefix LM).
        on_token: called with (row, id) for each new token as it comes, to show a text while it is written.
        reread: the decoder prompts begin with the last token of their prompts (see :class:`Incremental`).

    Raises:
        UserError: the model is an encoder, which cannot write from left to right.
        ValueError: an empty prompt, or an encoder-decoder without decoder prompts.
    """
    settings = settings or GenerationSettings()
    if model.decoder is None:
        raise UserError(
            "This model is an encoder: it reads a text from both sides and cannot continue it.",
            "Let it fill in blanks instead: pretextlm fill RUN 'The ____ of the people.'",
        )
    if decoder_prompts is None and model.encoder is not None:
        raise ValueError("an encoder-decoder needs decoder prompts")
    texts = prompts if decoder_prompts is None else decoder_prompts
    if not all(prompts) or not all(texts):
        raise ValueError("every prompt needs at least one token")
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))  # like lengths side by side: less padding
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        sources = None if decoder_prompts is None else [prompts[row] for row in rows]
        reader = Incremental(model, sources, vocabulary.pad, reread=reread)
        logits_BV = model.logits(reader.extend([texts[row] for row in rows])[:, -1])
        for row, token in _write(reader, logits_BV, np.array(rows), vocabulary, settings):
            answers[row].append(token)
            if on_token is not None:
                on_token(row, token)
    return answers


def _write(
    reader: Incremental,
    logits_BV: Tensor,
    rows: NDArray[np.int64],
    vocabulary: Vocabulary,
    settings: GenerationSettings,
) -> Iterator[tuple[int, int]]:
    """(row, token) as they come; a row that has ended leaves the batch."""
    stops = stop_ids(vocabulary, settings)
    hidden = suppressed(vocabulary, settings, logits_BV.size(1)).to(logits_BV.device)
    for step in range(settings.max_new_tokens):
        tokens_B = choose(logits_BV.masked_fill(hidden, float("-inf")), settings, rows, step)
        tokens = tokens_B.cpu().numpy()
        alive = ~np.isin(tokens, stops)
        yield from zip(rows[alive].tolist(), tokens[alive].tolist(), strict=True)
        if not alive.any() or step + 1 == settings.max_new_tokens:
            return
        if not alive.all():
            index = torch.from_numpy(np.flatnonzero(alive)).to(logits_BV.device)
            reader.keep(index)
            rows, tokens_B = rows[alive], tokens_B[index]
        logits_BV = reader.model.logits(reader.extend_padded(tokens_B[:, None])[:, -1])


def stop_ids(vocabulary: Vocabulary, settings: GenerationSettings) -> list[int]:
    """Ids that end a text."""
    return [vocabulary.eos] if settings.stop is None else list(settings.stop)


def suppressed(vocabulary: Vocabulary, settings: GenerationSettings, vocab_size: int) -> Tensor:
    """(V,) bool, True for an id that must not be written: also rows of the head that no token has."""
    hidden = torch.zeros(vocab_size, dtype=torch.bool)
    hidden[vocabulary.size :] = True
    never = vocabulary.special if settings.suppress is None else settings.suppress
    hidden[list(never)] = True
    hidden[stop_ids(vocabulary, settings)] = False
    return hidden
