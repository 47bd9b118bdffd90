"""The effect of an objective on a text: its row before and after, the positions with a loss, and the attention."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Variant
from pretextlm.data.rows import StreamReader
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.preview.example_tokenizer import Pieces
from pretextlm.objectives.registry import OBJECTIVES, build

MAX_POSITIONS = 64
"""Tokens that a picture of 80 columns holds."""

MAX_CHARACTERS = 10_000

TOKENS = ("input_ids", "labels", "shuffled_labels", "decoder_input_ids", "decoder_labels")
"""Arrays of a batch that hold token ids."""

PARTS = r"\t| => "
"""Separators of the two parts of a pair in a text to be shown."""


@dataclass(frozen=True)
class Shown:
    """One text under one objective.

    Attributes:
        objective: the configured objective.
        tokenizer: where the tokens come from, in words.
        variant: name of the row's variant, "" where the objective has one.
        tokens: (T,) text of each token of the row that was read, specials of the frame included.
        batch: the batch of one row.
        names: text of a token id.
        visibility: name of a sight ("input", "decoder", "cross") → (queries, keys) booleans, True where it may attend.
    """

    objective: Objective
    tokenizer: str
    variant: str
    tokens: list[str]
    batch: Batch
    names: dict[int, str]
    visibility: dict[str, NDArray[np.bool_]]

    def row(self, field: str) -> list[str | None]:
        """Texts of one array of the batch; None where a label carries no loss."""
        values = getattr(self.batch, field)[0].tolist()
        return [None if value == IGNORE else self.names[value] for value in values]

    @property
    def loss(self) -> dict[str, Any]:
        """Positions of the row that is predicted, those with a loss, their share, and the targets of each term."""
        positions = int(self.batch.targets.size)
        targets = int(np.count_nonzero(self.objective.loss_mask(self.batch)))
        counts = self.objective.counts(self.batch)
        return {"positions": positions, "targets": targets, "share": targets / positions, "terms": counts}

    @property
    def row_label(self) -> int | None:
        """Label of the row."""
        labels = self.batch.row_labels
        return None if labels is None or labels[0] == IGNORE else int(labels[0])

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        names = (f.name for f in dataclasses.fields(self.batch) if f.name not in ("attention", "draws", "example_ids"))
        arrays = {n: getattr(self.batch, n)[0].tolist() for n in names if getattr(self.batch, n) is not None}
        texts = {name: self.row(name) for name in TOKENS if name in arrays}
        return {
            **describe(type(self.objective)),
            "options": self.objective.model_dump(mode="json"),
            "tokenizer": self.tokenizer,
            "variant": self.variant,
            "tokens": self.tokens,
            "texts": texts,
            "arrays": arrays,
            "attention": self.batch.attention,
            "loss": self.loss,
            "visibility": {name: matrix.astype(int).tolist() for name, matrix in self.visibility.items()},
        }


@dataclass(frozen=True)
class _Text:
    """A text as a split of a store, with the names of its tokens."""

    split: Split
    vocabulary: Vocabulary
    names: dict[int, str]
    source: str


def show(name: str, options: dict[str, Any], text: str, store: Path | None = None, seed: int = 0) -> Shown:
    """Applies an objective to a text, one document per line; a tab or " => " separates the parts of a pair.

    Args:
        name: of the objective.
        options: of the objective.
        text: to apply it to.
        store: whose tokenizer to use; None for a small tokenizer trained on the text itself.
        seed: of the random choices. An objective of several variants shows them in turn.

    Raises:
        UserError: a wrong name or option; a text that is empty, too long to be shown, or no pair where one is needed; a
            store that cannot be opened.
    """
    objective = build(name, options)
    documents = [line.strip() for line in text.splitlines() if line.strip()]
    if not documents:
        raise UserError("There is no text to show.", f'Give one, for example: pretextlm show {name} "A sentence."')
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"The text has {len(text):,} characters: too many to draw.", "Give a sentence or two.")
    parts = [re.split(PARTS, document, maxsplit=1) for document in documents]
    cut = _by_pieces if store is None else partial(_by_store, path=store)
    shown = cut(parts if objective.reads_pairs else [[document] for document in documents])
    rows, variant = _row(objective, shown, seed)
    batch = objective.collate(rows, shown.vocabulary, CounterRNG.of(seed, 0, rows.example_ids))
    batch = without_padding(batch)
    real = rows.segment_ids >= 0
    tokens = [shown.names[t] for t in rows.tokens[real].tolist()]
    return Shown(objective, shown.source, variant, tokens, batch, shown.names, visibility_of(batch))


def describe(cls: type[Objective]) -> dict[str, Any]:
    """Returns the description of an objective as plain values; options with their defaults."""
    plain = str | int | float | bool | None
    defaults = cls.parse({}).model_dump(mode="json")
    defaults |= {key: f.default for key, f in cls.model_fields.items() if isinstance(f.default, plain)}
    return {
        "objective": cls.name,
        "title": cls.title,
        "summary": cls.summary,
        "paper": cls.paper,
        "architectures": list(cls.architectures),
        "options": {
            key: {"default": defaults[key], "description": field.description} for key, field in cls.model_fields.items()
        },
    }


def describe_all() -> list[dict[str, Any]]:
    """Returns the descriptions of all registered objectives."""
    return [describe(OBJECTIVES[name]) for name in OBJECTIVES]


def visibility_of(batch: Batch) -> dict[str, NDArray[np.bool_]]:
    """Returns the attention masks of the batch's first row: (queries, keys) True where a query may attend to a key."""
    segments, positions = _laid_out(batch.input_ids, batch.segment_ids, batch.position_ids)
    own = may_attend(segments, segments, positions, positions, batch.prefix, batch.attention, batch.rank, batch.reach)
    sights = {"input": own[0]}
    if batch.decoder_input_ids is not None:
        own, places = _laid_out(batch.decoder_input_ids, batch.decoder_segment_ids, batch.decoder_position_ids)
        sights["decoder"] = may_attend(own, own, places, places, None, "causal")[0]
        sights["cross"] = may_attend(own, segments)[0]
    return sights


def _laid_out(ids: Any, segments: Any, positions: Any) -> tuple[Any, Any]:
    """Returns segments and positions, with their defaults where they are None."""
    places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    return np.zeros_like(ids) if segments is None else segments, places if positions is None else positions


def without_padding(batch: Batch) -> Batch:
    """Returns the batch of one row without the padding at the ends of its rows."""
    arrays = {}
    for prefix, segments in (("", batch.segment_ids), ("decoder_", batch.decoder_segment_ids)):
        if segments is None:
            continue
        width = int(np.flatnonzero(segments[0] >= 0).max(initial=-1)) + 1
        for field in dataclasses.fields(batch):
            array = getattr(batch, field.name)
            own = field.name.startswith("decoder_") == bool(prefix) and field.name not in ("attention", "example_ids")
            if own and array is not None and array.ndim == 2:
                arrays[field.name] = array[:, :width]
    return dataclasses.replace(batch, **arrays)


def _row(objective: Objective, text: _Text, seed: int) -> tuple[Rows, str]:
    """Returns the text in one row as the objective reads it, and the name of the row's variant."""
    frame = objective.frame(text.vocabulary)
    stream = StreamReader(text.split, frame, Variant("", raw=1, length=1))
    longest = MAX_POSITIONS - 2
    if not longest >= stream.size + (frame.lead is not None) > 1:
        raise UserError(
            f"The text is a row of {stream.size + (frame.lead is not None)} tokens; "
            f"between 2 and {longest} can be drawn.",
            "Give a sentence or two.",
        )
    if not objective.reads_stream:
        reader = objective.reader(text.split, text.vocabulary, MAX_POSITIONS)
        first = np.zeros(1, np.int64)
        return reader.read(first, first, seed, pad=text.vocabulary.pad), ""
    room = objective.extra_tokens * text.split.num_documents
    row = StreamReader(text.split, frame, Variant("", raw=stream.size + room, length=0))
    rows = row.read(np.zeros(1, np.int64), pad=text.vocabulary.pad if room else None)
    names = objective.variant_names()
    number = seed % len(names)
    return dataclasses.replace(rows, variant=number), names[number] if len(names) > 1 else ""


def _split(ids: list[list[int]], starts: list[list[int]], sentences: list[list[int]], parts: int) -> Split:
    """Returns a split of documents in memory; `sentences` counts from each document's start."""
    lengths = np.array([len(document) for document in ids])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    begins = [offset + place for offset, places in zip(offsets.tolist(), sentences, strict=False) for place in places]
    return Split(
        tokens=np.array([token for document in ids for token in document], np.int32),
        documents=offsets.astype(np.uint64),
        document_bytes=lengths.astype(np.uint32),
        document_sources=np.zeros(len(ids), np.uint32),
        sentences=np.array(begins, np.uint64),
        word_bits=np.packbits(np.array([flag for document in starts for flag in document], bool), bitorder="little"),
        parts=(parts,),
    )


def _joined(parts: list[list[str]], pieces: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns one list for each document from those of its parts, which follow each other in `pieces`."""
    each = iter(pieces)
    return [[token for _ in document for token in next(each)] for document in parts]


def _by_pieces(parts: list[list[str]]) -> _Text:
    """Returns the text in tokens of a tokenizer trained on it."""
    pieces = Pieces.of([part for document in parts for part in document])
    ids, starts = _joined(parts, pieces.documents), _joined(parts, pieces.word_starts)
    sentences = _sentences_of(parts, pieces.documents, pieces.sentences)
    split = _split(ids, starts, sentences, max(map(len, parts)))
    note = "made from this text alone: words, long ones cut into pieces (give --store for a real one)"
    return _Text(split, pieces.vocabulary, dict(enumerate(pieces.tokens)), note)


def _sentences_of(parts: list[list[str]], pieces: list[list[int]], sentences: list[list[int]]) -> list[list[int]]:
    """Returns the sentences of each document; of a pair, the starts of its two parts."""
    found, at = [], 0
    for document in parts:
        if len(document) == 1:
            found.append(sentences[at])
        else:
            found.append([0, len(pieces[at])])
        at += len(document)
    return found


def _by_store(parts: list[list[str]], path: Path) -> _Text:
    """Returns the text in tokens of a store's tokenizer."""
    from pretextlm.data.encode import TextEncoder
    from pretextlm.data.store import Store

    store = Store.open(path)
    chunk = TextEncoder(store.tokenizer).encode([part for document in parts for part in document])
    ends = np.cumsum(chunk.lengths)
    pieces = [part.tolist() for part in np.split(chunk.tokens, ends[:-1])]
    starts = [part.tolist() for part in np.split(chunk.word_starts, ends[:-1])]
    begins = np.split(chunk.sentences, np.searchsorted(chunk.sentences, ends[:-1]))
    firsts = ends - chunk.lengths
    sentences = [(part - first).tolist() for part, first in zip(begins, firsts, strict=True)]
    begins_of = _sentences_of(parts, pieces, sentences)
    split = _split(_joined(parts, pieces), _joined(parts, starts), begins_of, max(map(len, parts)))
    vocabulary = store.vocabulary
    texts = store.tokenizer.decode_batch([[i] for i in range(vocabulary.size)], skip_special_tokens=False)
    return _Text(split, vocabulary, {i: _readable(text) for i, text in enumerate(texts)}, f"of the store {store.path}")


def _readable(text: str) -> str:
    """Returns a token with visible white space; a part of a character, which cannot be printed, as a lozenge."""
    return text.replace(" ", "▁").replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "◊") or "∅"
