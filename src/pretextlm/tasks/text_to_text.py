"""Sequence to sequence: the target text of a source text, as in translation or summaries (Raffel et al. 2020).

    {"en": "A dog.", "de": "Ein Hund."}          prefix = "translate English to German: "

    encoder            translate English to German: A dog . </s>
    decoder input      [PAD] Ein Hund .
    decoder labels     Ein Hund . </s>

In a decoder, the source is a prefix with bidirectional attention (layout "prefix" of the objective text_to_text):

    input              translate English to German: A dog . </s> Ein Hund . </s>
    labels             -         -       -  -       - -   -  Ein Hund . </s> -

A published model reads its own special tokens around the source; those before a text begin the target, too, as in
BART, whose decoder reads </s> <s> Ein Hund . and writes </s>.

Pairs share rows without seeing each other. A source or target that is too long is cut at its end, before </s>; if both
share a row, the longer of the two first.

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.data.examples import ROW_TOKENS, STEP, Examples, next_fit
from pretextlm.data.offset_mapping import OffsetTokenizer, Part, join
from pretextlm.data.sentence_pair_index import truncated
from pretextlm.data.text_template import TextTemplate
from pretextlm.errors import UserError
from pretextlm.objectives import text_to_text
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.tasks.shared.writing import WritingTask

if TYPE_CHECKING:
    from pretextlm.counter_rng import CounterRNG
    from pretextlm.data.records import Records
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.config import ModelConfig


class SequenceToSequence(WritingTask):
    """Sequence to sequence.

    Args:
        source, target: columns.
        prefix: text before every source, which names the task.
        target_length: most tokens of a target; 0: as many as of a source, data.length.
        longest_answer: as for :class:`WritingTask`.
    """

    name: ClassVar[str] = "text_to_text"
    title: ClassVar[str] = "Text to text"
    paper: ClassVar[str] = "Raffel et al. 2020, https://arxiv.org/abs/1910.10683"
    summary: ClassVar[str] = "Writes the text that belongs to another one."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf", "exact_match")

    source: str = Field(default="source", description="column of the source text")
    target: str = Field(default="target", description="column of the target text")
    prefix: str = Field(default="", description="text before every source")
    target_length: int = Field(default=0, ge=0, description="most tokens of a target; 0: as many as of a source")

    @property
    def decoder_attention(self) -> DecoderAttention:
        return "prefix"

    def columns(self) -> dict[str, str]:
        """Returns the columns of source and target."""
        return {"source": self.source, "answer": self.target}

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per record, with token type 0 in the source and 1 in the target."""
        longest = self.target_length or length
        if min(length, longest) < 4:
            raise UserError("There is no room for text in 4 tokens.", "Give data.length and task.target_length of 8.")
        sources = encoder.encode([self.prefix + text for text in records.texts("source")])
        targets = encoder.encode(records.texts("answer"))
        eos, template = encoder.vocabulary.eos, encoder.vocabulary.template
        if template is None or self.causal:
            template = TextTemplate.of_tokens([], [], [eos])
        before, after = template.before, template.after
        if self.causal:
            own, theirs = truncated(sources.lengths, np.minimum(targets.lengths, longest - 1), length - 2)
        else:  # the last position of each row is padding
            own = np.minimum(sources.lengths, length - 1 - len(before) - len(after))
            theirs = np.minimum(targets.lengths, longest - 2 - len(before))
        source: list[Part] = [*before, (sources, sources.offsets[:-1], own), *after]
        joined = join([*source, *before, (targets, targets.offsets[:-1], theirs), eos], len(records))
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets,
            records=np.arange(len(records)),
            types=(joined.run >= len(source)).astype(np.int32),
        )

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the pairs side by side, in encoder and decoder rows or in one decoder row."""
        packed, target_length = _packed(rows, vocabulary.pad, self.causal)
        layout: dict[str, Any] = {"layout": "prefix"} if self.causal else {"target_length": target_length}
        pairs = text_to_text.TextToText.parse({**layout, "unsupervised": 0.0})
        return dataclasses.replace(pairs.collate(packed, vocabulary, rng), example_ids=rows.example_ids)

    def prompts(self, examples: Examples) -> list[list[int]]:
        """Returns the sources, each with its special tokens."""
        assert examples.types is not None, "a pair has two parts"
        sizes = np.add.reduceat(1 - examples.types, examples.offsets[:-1])
        begins = examples.offsets[:-1]
        return [examples.tokens[a:b].tolist() for a, b in zip(begins, begins + sizes, strict=True)]

    def opening(self, prompt: list[int], vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
        """Returns the source and the decoder's first token: the source's end token, or the decoder's start token."""
        if self.causal:
            return prompt, prompt[-1:]
        return prompt, [vocabulary.start, *vocabulary.forced]


def _packed(rows: Rows, pad: int, joint: bool) -> tuple[Rows, int]:
    """Packs pairs of different lengths into rows of one width.

    Returns:
        The rows, and the width of the decoder's row; 0 for a joint row.
    """
    assert rows.token_type_ids is not None, "a pair has two parts"
    lengths = np.diff(rows.offsets)
    targets = np.add.reduceat(rows.token_type_ids, rows.offsets[:-1]).astype(np.int64)
    sources = lengths - targets
    if joint:
        target_width, width = 0, _width(int(lengths.max()), ROW_TOKENS)
        first = next_fit((lengths, width))
    else:  # the two widths have the ratio of targets to sources, so that both rows fill up together
        source_width = _width(int(sources.max()) + 1, ROW_TOKENS)
        target_width = _width(int(targets.max()) + 1, int(source_width * targets.sum() / sources.sum()))
        width = source_width + target_width - 2
        first = next_fit((sources, source_width - 1), (targets, target_width - 1))
    row_of = np.searchsorted(first, np.arange(len(lengths)), side="right") - 1
    # Token i of the pairs goes to position i plus a shift: the start of its row less the start of the row's first pair.
    places = np.arange(int(rows.offsets[-1])) + np.repeat(row_of * width - rows.offsets[first][row_of], lengths)

    def spread(values: NDArray[Any], empty: int) -> NDArray[np.int32]:
        found = np.full(len(first) * width, empty, np.int32)
        found[places] = values
        return found

    tokens = spread(rows.tokens, pad)
    packed = Rows(
        tokens=tokens,
        offsets=np.arange(len(first) + 1, dtype=np.int64) * width,
        segment_ids=spread(np.repeat(np.arange(len(lengths)) - first[row_of], lengths), -1),
        position_ids=spread(rows.position_ids, 0),
        word_starts=np.zeros(len(tokens), np.bool_),
        example_ids=rows.example_ids[first],
        token_type_ids=spread(rows.token_type_ids, 0),
    )
    return packed, target_width


def _width(least: int, usual: int) -> int:
    return -(-max(least, usual) // STEP) * STEP
