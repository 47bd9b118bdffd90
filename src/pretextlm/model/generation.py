"""Text from left to right: a decoder continues prompts, a decoder over an encoder answers them.

    settings = GenerationSettings(max_new_tokens=20, temperature=0.8)
    generate(model, vocabulary, [[vocabulary.bos, 17, 4]], settings)   # → [[9, 61, …]]

Axis letters: B rows, D hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.model.beam_search import Ends, beam_search
from pretextlm.model.constraints import Constraints
from pretextlm.model.incremental_decoding import Incremental
from pretextlm.model.inference_weights import cast_for_inference
from pretextlm.model.sampling import Sampling, choose
from pretextlm.model.text_stream import Decode, TextStream
from pretextlm.model.transformer import Transformer

ROWS_AT_ONCE = 64


class GenerationSettings(Sampling):
    """How texts are written, on top of how each token is drawn.

    Attributes:
        max_new_tokens: most tokens written per prompt.
        min_new_tokens: no text ends by a stop id before it has so many.
        stop: ids that end a text and are not part of it; None for those of the vocabulary, </s> as a rule.
        stop_strings: a text ends with the token that completes one of them; what is shown ends before it.
        suppress: ids that are never written; None for every special token that does not end the text.
        repetition_penalty: scores of tokens that are in the text already are divided by it where they are positive,
            and multiplied where they are negative (Keskar et al. 2019); 1 changes nothing.
        samples: texts written for each prompt, each with draws of its own; of a beam search, its best ones.
        beams: texts that are gone on with side by side; from 2 on, the likeliest text found is taken, and nothing is
            drawn.
        length_penalty: power of a text's length by which a beam search divides its log-probability; above 0 favours
            longer texts.
        early_stopping: when a beam search ends, see `beam_search`.
    """

    max_new_tokens: int = Field(100, ge=1)
    min_new_tokens: int = Field(0, ge=0)
    stop: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    suppress: tuple[int, ...] | None = None
    repetition_penalty: float = Field(1.0, gt=0)
    samples: int = Field(1, ge=1)
    beams: int = Field(1, ge=1, le=1024)
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    @model_validator(mode="after")
    def _samples_are_beams(self) -> GenerationSettings:
        if 1 < self.beams < self.samples:
            raise ValueError(f"a search with {self.beams} beams has no {self.samples} texts to give")
        if "" in self.stop_strings:
            raise ValueError("a stop string is empty")
        return self


@torch.inference_mode()
def generate(
    model: Transformer,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings | None = None,
    decoder_prompts: Sequence[Sequence[int]] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    reread: bool = False,
    decode: Decode | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """New tokens of each prompt, without the stop id that ended it.

    The result of a row depends on its prompt, the settings and its place in `prompts`, not on the rows beside it. With
    several samples, those of a prompt follow each other: text number prompt · samples + sample.

    Args:
        prompts: token ids, none empty: what a decoder continues, or what an encoder reads.
        decoder_prompts: what an encoder-decoder's decoder has before it, starting with its start token. Given to a
            decoder alone, they follow the prompts, which are then seen in both directions (a prefix LM).
        on_token: called with (number of the text, id) for each new token as it comes, to show a text while it is
            written; of a beam search, when it is over.
        reread: the decoder prompts begin with the last token of their prompts (see :class:`Incremental`).
        decode: the text of ids; needed for stop strings.
        dtype: type of the activations.

    Raises:
        UserError: the model is an encoder, which cannot write from left to right.
        ValueError: an empty prompt, an encoder-decoder without decoder prompts, stop strings without `decode`.
    """
    settings = settings or GenerationSettings()
    if model.decoder is None:
        raise UserError(
            "This model is an encoder: it reads a text from both sides and cannot continue it.",
            "Let it fill in blanks instead: pretextlm fill RUN 'The ____ of the people.'",
        )
    if decoder_prompts is None and model.encoder is not None:
        raise ValueError("an encoder-decoder needs decoder prompts")
    if settings.stop_strings and decode is None:
        raise ValueError("stop strings need a decode function")
    texts = prompts if decoder_prompts is None else decoder_prompts
    if not all(prompts) or not all(texts):
        raise ValueError("every prompt needs at least one token")
    model = cast_for_inference(model, dtype)
    samples = settings.samples
    answers: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))  # like lengths side by side: less padding
    at_once = max(1, ROWS_AT_ONCE // max(samples, settings.beams))
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once]
        contexts = [texts[row] for row in rows]
        sources = None if decoder_prompts is None else [prompts[row] for row in rows]
        joined = sources if sources is not None and model.encoder is None else [[]] * len(rows)
        before = [[*source, *context] for source, context in zip(joined, contexts, strict=True)]
        reader = Incremental(model, sources, vocabulary.pad, dtype, reread=reread)
        hidden_BD = reader.extend(contexts)[:, -1]
        size = model.head_weight.size(0)
        constraints = Constraints(
            stop_ids(vocabulary, settings),
            suppressed(vocabulary, settings, size),
            settings.min_new_tokens,
            settings.repetition_penalty,
            before,
            size,
            hidden_BD.device,
        )
        streams = [TextStream(decode, ids, settings.stop_strings) for ids in before] if decode else []
        if settings.beams > 1:
            written = _search(reader, model.logits(hidden_BD), rows, settings, constraints, streams)
        else:
            written = _write(reader, hidden_BD, np.array(rows), settings, constraints, streams)
        for number, token in written:
            answers[number].append(token)
            if on_token is not None:
                on_token(number, token)
    return answers


def _write(
    reader: Incremental,
    hidden_BD: Tensor,
    rows: NDArray[np.int64],
    settings: GenerationSettings,
    constraints: Constraints,
    streams: Sequence[TextStream],
) -> Iterator[tuple[int, int]]:
    """(number of the text, token) as they come; a row that has ended leaves the batch."""
    samples = np.tile(np.arange(settings.samples), len(rows))
    watched = [stream.copy() for stream in streams for _ in range(settings.samples)] if settings.stop_strings else []
    if settings.samples > 1:
        spread = torch.arange(len(rows), device=hidden_BD.device).repeat_interleave(settings.samples)
        reader.keep(spread)
        constraints.keep(spread)
        rows, hidden_BD = rows.repeat(settings.samples), hidden_BD[spread]
    stops = constraints.stops.cpu().numpy()
    for step in range(settings.max_new_tokens):
        scores_BV = constraints.apply(reader.model.logits(hidden_BD), step)
        tokens_B = choose(scores_BV, settings, rows, step, samples)
        tokens = tokens_B.cpu().numpy()
        alive = ~np.isin(tokens, stops)
        numbers = rows * settings.samples + samples
        yield from zip(numbers[alive].tolist(), tokens[alive].tolist(), strict=True)
        for row, stream in enumerate(watched):
            if alive[row]:
                stream.add(int(tokens[row]))
                alive[row] = not stream.stopped
        if step + 1 == settings.max_new_tokens or not alive.any():
            return
        constraints.wrote(tokens_B)
        if not alive.all():
            index = torch.from_numpy(np.flatnonzero(alive)).to(hidden_BD.device)
            reader.keep(index)
            constraints.keep(index)
            rows, samples, tokens_B = rows[alive], samples[alive], tokens_B[index]
            watched = [stream for stream, goes_on in zip(watched, alive, strict=True) if goes_on] if watched else []
        hidden_BD = reader.extend_padded(tokens_B[:, None])[:, -1]


def _search(
    reader: Incremental,
    logits_BV: Tensor,
    rows: Sequence[int],
    settings: GenerationSettings,
    constraints: Constraints,
    streams: Sequence[TextStream],
) -> Iterator[tuple[int, int]]:
    """(number of the text, token) of the best texts that a beam search finds."""

    def ends(text: Sequence[int], row: int) -> bool:
        stream = streams[row].copy()
        for token in text:
            stream.add(token)
        return stream.stopped

    said: Ends | None = ends if settings.stop_strings else None
    penalty, stopping = settings.length_penalty, settings.early_stopping
    longest = settings.max_new_tokens
    found = beam_search(reader, logits_BV, constraints, settings.beams, longest, penalty, stopping, said)
    stops = set(constraints.stops.tolist())
    for row, texts in zip(rows, found, strict=True):
        for sample, text in enumerate(texts[: settings.samples]):
            whole = text[:-1] if text and text[-1] in stops else text
            yield from ((row * settings.samples + sample, token) for token in whole)


def stop_ids(vocabulary: Vocabulary, settings: GenerationSettings) -> list[int]:
    """Ids that end a text."""
    return list(vocabulary.ends) if settings.stop is None else list(settings.stop)


def suppressed(vocabulary: Vocabulary, settings: GenerationSettings, vocab_size: int) -> list[int]:
    """Ids that must not be written: also rows of the head that no token has."""
    never = vocabulary.special if settings.suppress is None else settings.suppress
    return sorted({*never, *range(vocabulary.size, vocab_size)} - set(stop_ids(vocabulary, settings)))
