"""Text generation from left to right: a decoder continues prompts, a decoder over an encoder answers them.

    settings = GenerationConfig(max_new_tokens=20, temperature=0.8)
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
from pretextlm.model.beam_search import IsFinished, beam_search
from pretextlm.model.constraints import Constraints
from pretextlm.model.incremental_decoding import IncrementalDecoder
from pretextlm.model.inference_weights import cast_for_inference
from pretextlm.model.sampling import SamplingConfig, next_tokens
from pretextlm.model.text_stream import Decode, TextStream
from pretextlm.model.transformer import Transformer

ROWS_AT_ONCE = 64
UNLIMITED = 1 << 40
"""More tokens than any text has."""


class GenerationConfig(SamplingConfig):
    """Settings of generation, in addition to those of sampling one token.

    Attributes:
        max_new_tokens: Most tokens generated per prompt.
        min_new_tokens: Fewest tokens before a stop id may end a text.
        stop: Ids that end a text and are not part of it; None for those of the vocabulary, usually </s>.
        stop_strings: A text ends with the token that completes one of them; the text that is shown ends before it.
        suppress: Ids that are never generated; None for every special token that does not end the text, and in a
            published model for none.
        repetition_penalty: Scores of tokens that are in the text already are divided by it where they are positive,
            and multiplied where they are negative (Keskar et al. 2019); 1 for none.
        samples: Texts generated for each prompt, each with random numbers of its own; of a beam search, its best ones.
        beams: Number of beams; from 2 on, a beam search takes the likeliest text found, and nothing is sampled.
        length_penalty: Power of a text's length by which a beam search divides its log-probability; above 0 favours
            longer texts.
        early_stopping: When a beam search ends, see `beam_search`.
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
    def _samples_are_beams(self) -> GenerationConfig:
        if 1 < self.beams < self.samples:
            raise ValueError(
                f"a beam search with {self.beams} beams gives at most {self.beams} texts, not {self.samples}"
            )
        if "" in self.stop_strings:
            raise ValueError("a stop string is empty")
        return self


@torch.inference_mode()
def generate(
    model: Transformer,
    vocabulary: Vocabulary,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig | None = None,
    decoder_prompts: Sequence[Sequence[int]] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    reread: bool = False,
    decode: Decode | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """Generate a continuation of each prompt.

    The result of a row depends on its prompt, the settings and its place in `prompts`, not on the rows beside it. The
    end of the model's table of positions (`PositionConfig.limit`) ends a text, too.

    Args:
        model: Decoder or encoder-decoder, in eval mode.
        vocabulary: Its vocabulary.
        prompts: Token ids, none empty: the text that a decoder continues, or the input of an encoder.
        settings: Settings; None for the defaults.
        decoder_prompts: First ids of an encoder-decoder's decoder, beginning with its start token. Given to a
            decoder-only model, they follow the prompts, which are then read bidirectionally (a prefix LM).
        on_token: Called with (number of the text, id) for each new token at once, to show a text while it is generated;
            after a beam search, when it is over.
        reread: The decoder prompts begin with the last token of their prompts (see `IncrementalDecoder`).
        decode: Converts ids to text; needed for stop strings.
        dtype: Type of the activations.

    Returns:
        The new ids of each text, without the stop id that ended it. With several samples, those of a prompt follow each
        other: text number prompt · samples + sample.

    Raises:
        UserError: The model is an encoder, which cannot generate from left to right, or a prompt does not fit into it.
        ValueError: An empty prompt, an encoder-decoder without decoder prompts, stop strings without `decode`.
    """
    settings = settings or GenerationConfig()
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
    at_once = max(1, ROWS_AT_ONCE // max(samples, settings.beams))
    rooms = [
        room_for(model, len(prompt), None if decoder_prompts is None else len(decoder_prompts[row]), reread)
        for row, prompt in enumerate(prompts)
    ]
    for rows, most in _batches(prompts, [min(settings.max_new_tokens, room) for room in rooms], at_once):
        settings = settings.model_copy(update={"max_new_tokens": most})
        contexts = [texts[row] for row in rows]
        sources = None if decoder_prompts is None else [prompts[row] for row in rows]
        joined = sources if sources is not None and model.encoder is None else [[]] * len(rows)
        before = [[*source, *context] for source, context in zip(joined, contexts, strict=True)]
        reader = IncrementalDecoder(model, sources, vocabulary.pad, dtype, reread=reread)
        hidden_BD = reader.extend(contexts)[:, -1]
        size = model.lm_head_weight.size(0)
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
            generated = _beam_search(reader, model.logits(hidden_BD), rows, settings, constraints, streams)
        else:
            generated = _sample(reader, hidden_BD, np.array(rows), settings, constraints, streams)
        for number, token in generated:
            answers[number].append(token)
            if on_token is not None:
                on_token(number, token)
    return answers


def room_for(model: Transformer, prompt: int, decoder_prompt: int | None = None, reread: bool = False) -> int:
    """Returns how many tokens can be generated before the model's positions end; a large number if they do not.

    The last token is generated and not read: behind a prompt of 1,024 tokens, a table of 1,024 positions has room for
    one.

    Args:
        model: Decoder or encoder-decoder.
        prompt, decoder_prompt: Numbers of tokens, as for `generate`.
        reread: As for `generate`.

    Raises:
        UserError: The prompt alone does not fit.
    """
    limit = model.config.positions.limit
    if limit is None:
        return UNLIMITED
    used = prompt if decoder_prompt is None else decoder_prompt
    if decoder_prompt is not None and model.encoder is None:
        used += prompt - reread
    if max(used, prompt) > limit:
        raise UserError(f"The prompt has {max(used, prompt):,} tokens; the model reads {limit:,}.", "Shorten it.")
    return limit - used + 1


def _batches(prompts: Sequence[Sequence[int]], most: Sequence[int], size: int) -> Iterator[tuple[list[int], int]]:
    """Yields the rows of each batch, and how many tokens are generated for each: `most` of every row in it.

    Prompts of similar length share a batch: less padding.
    """
    for longest in sorted(set(most)):
        order = sorted((row for row, own in enumerate(most) if own == longest), key=lambda row: len(prompts[row]))
        yield from ((order[start : start + size], longest) for start in range(0, len(order), size))


def _sample(
    reader: IncrementalDecoder,
    hidden_BD: Tensor,
    rows: NDArray[np.int64],
    settings: GenerationConfig,
    constraints: Constraints,
    streams: Sequence[TextStream],
) -> Iterator[tuple[int, int]]:
    """Yields (number of the text, token) as they are generated; a row that has ended leaves the batch."""
    samples = np.tile(np.arange(settings.samples), len(rows))
    streams_B = [stream.copy() for stream in streams for _ in range(settings.samples)] if settings.stop_strings else []
    if settings.samples > 1:
        spread = torch.arange(len(rows), device=hidden_BD.device).repeat_interleave(settings.samples)
        reader.select_rows(spread)
        constraints.select_rows(spread)
        rows, hidden_BD = rows.repeat(settings.samples), hidden_BD[spread]
    stops = constraints.stops.cpu().numpy()
    for step in range(settings.max_new_tokens):
        scores_BV = constraints.apply(reader.model.logits(hidden_BD), step)
        tokens_B = next_tokens(scores_BV, settings, rows, step, samples)
        tokens = tokens_B.cpu().numpy()
        alive = ~np.isin(tokens, stops)
        numbers = rows * settings.samples + samples
        yield from zip(numbers[alive].tolist(), tokens[alive].tolist(), strict=True)
        for row, stream in enumerate(streams_B):
            if alive[row]:
                stream.add(int(tokens[row]))
                alive[row] = not stream.stopped
        if step + 1 == settings.max_new_tokens or not alive.any():
            return
        constraints.update(tokens_B)
        if not alive.all():
            index = torch.from_numpy(np.flatnonzero(alive)).to(hidden_BD.device)
            reader.select_rows(index)
            constraints.select_rows(index)
            rows, samples, tokens_B = rows[alive], samples[alive], tokens_B[index]
            streams_B = (
                [stream for stream, goes_on in zip(streams_B, alive, strict=True) if goes_on] if streams_B else []
            )
        hidden_BD = reader.extend_padded(tokens_B[:, None])[:, -1]


def _beam_search(
    reader: IncrementalDecoder,
    logits_BV: Tensor,
    rows: Sequence[int],
    settings: GenerationConfig,
    constraints: Constraints,
    streams: Sequence[TextStream],
) -> Iterator[tuple[int, int]]:
    """Yields (number of the text, token) of the best texts that a beam search finds."""

    def has_stop_string(text: Sequence[int], row: int) -> bool:
        stream = streams[row].copy()
        for token in text:
            stream.add(token)
        return stream.stopped

    is_finished: IsFinished | None = has_stop_string if settings.stop_strings else None
    penalty, stopping = settings.length_penalty, settings.early_stopping
    longest = settings.max_new_tokens
    found = beam_search(reader, logits_BV, constraints, settings.beams, longest, penalty, stopping, is_finished)
    stops = set(constraints.stops.tolist())
    for row, texts in zip(rows, found, strict=True):
        for sample, text in enumerate(texts[: settings.samples]):
            text = text[:-1] if text and text[-1] in stops else text
            yield from ((row * settings.samples + sample, token) for token in text)


def stop_ids(vocabulary: Vocabulary, settings: GenerationConfig) -> list[int]:
    """Returns the ids that end a text."""
    return list(vocabulary.ends) if settings.stop is None else list(settings.stop)


def suppressed(vocabulary: Vocabulary, settings: GenerationConfig, vocab_size: int) -> list[int]:
    """Returns the ids that are never generated, among them rows of the head beyond the vocabulary."""
    usual = vocabulary.special if vocabulary.template is None else ()
    hidden = usual if settings.suppress is None else settings.suppress
    return sorted({*hidden, *range(vocabulary.size, vocab_size)} - set(stop_ids(vocabulary, settings)))
