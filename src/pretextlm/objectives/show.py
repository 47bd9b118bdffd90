"""What an objective does to a text: its row before and after, where the loss falls, and who sees whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.keyed import Keyed
from pretextlm.objectives.base import OBJECTIVES, Frame, Objective, build
from pretextlm.objectives.pieces import Pieces
from pretextlm.visibility import visible

MAX_POSITIONS = 64
"""Tokens that a picture of 80 columns holds."""

MAX_CHARACTERS = 10_000


@dataclass(frozen=True)
class Shown:
    """One text under one objective.

    Attributes:
        objective: the configured objective.
        tokenizer: where the tokens come from, in words.
        tokens: (T,) text of each token of the row that was read, specials of the frame included.
        batch: the batch of one row.
        names: text of a token id.
        visibility: name of a sight ("input", "decoder", "cross") → (queries, keys) booleans, True where it may attend.
    """

    objective: Objective
    tokenizer: str
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
        """Positions of the row that is predicted, those with a loss, and their share."""
        positions, targets = self.batch.targets.size, self.objective.counts(self.batch)["lm"]
        return {"positions": positions, "targets": targets, "share": targets / positions}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        fields = ("input_ids", "labels", "segment_ids", "position_ids", "prefix", "decoder_input_ids", "decoder_labels")
        arrays = {f: getattr(self.batch, f)[0].tolist() for f in fields if getattr(self.batch, f) is not None}
        texts = {f: self.row(f) for f in ("input_ids", "labels", "decoder_input_ids", "decoder_labels") if f in arrays}
        return {
            **describe(type(self.objective)),
            "options": self.objective.model_dump(mode="json"),
            "tokenizer": self.tokenizer,
            "tokens": self.tokens,
            "texts": texts,
            "arrays": arrays,
            "attention": self.batch.attention,
            "loss": self.loss,
            "visibility": {name: matrix.astype(int).tolist() for name, matrix in self.visibility.items()},
        }


def show(name: str, options: dict[str, Any], text: str, store: Path | None = None, seed: int = 0) -> Shown:
    """Apply an objective to a text, one document a line.

    Args:
        store: whose tokenizer to use; without one, the text is cut by a small tokenizer made for it.
        seed: of what the objective draws.

    Raises:
        UserError: a wrong name or option, a text that is empty or too long to be drawn, a store that cannot be opened.
    """
    objective = build(name, options)
    documents = [line.strip() for line in text.splitlines() if line.strip()]
    if not documents:
        raise UserError("There is no text to show.", f'Give one, for example: pretextlm show {name} "A sentence."')
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"The text has {len(text):,} characters: too many to draw.", "Give a sentence or two.")
    if store is None:
        pieces = Pieces.of(documents)
        ids, starts, vocabulary = pieces.documents, pieces.word_starts, pieces.vocabulary
        names = dict(enumerate(pieces.tokens))
        source = "made from this text alone: words, long ones cut into pieces (give --store for a real one)"
    else:
        ids, starts, vocabulary, names = _by_store(documents, store)
        source = f"of the store {store}"
    rows = _one_row(ids, starts, objective.frame(vocabulary))
    longest = MAX_POSITIONS - 2
    if not longest >= rows.width > 1:
        raise UserError(
            f"The text is a row of {rows.width} tokens; between 2 and {longest} can be drawn.",
            "Give a sentence or two.",
        )
    batch = objective.corrupt(rows, vocabulary, Keyed.of(seed, 0, rows.example_ids))
    return Shown(objective, source, [names[t] for t in rows.tokens.tolist()], batch, names, visibility_of(batch))


def describe(cls: type[Objective]) -> dict[str, Any]:
    """What an objective is, as plain values; options with their defaults."""
    return {
        "objective": cls.name,
        "title": cls.title,
        "learns": cls.learns,
        "paper": cls.paper,
        "architectures": list(cls.architectures),
        "options": {
            key: {"default": field.default, "description": field.description} for key, field in cls.model_fields.items()
        },
    }


def describe_all() -> list[dict[str, Any]]:
    """Every registered objective."""
    return [describe(OBJECTIVES[name]) for name in OBJECTIVES]


def visibility_of(batch: Batch) -> dict[str, NDArray[np.bool_]]:
    """Who may attend to whom in the batch's first row, by the one rule."""
    segments, positions = _laid_out(batch.input_ids, batch.segment_ids, batch.position_ids)
    sights = {"input": visible(segments, segments, positions, positions, batch.prefix, batch.attention)[0]}
    if batch.decoder_input_ids is not None:
        own, places = _laid_out(batch.decoder_input_ids, batch.decoder_segment_ids, batch.decoder_position_ids)
        sights["decoder"] = visible(own, own, places, places, None, "causal")[0]
        sights["cross"] = visible(own, segments)[0]
    return sights


def _laid_out(ids: Any, segments: Any, positions: Any) -> tuple[Any, Any]:
    """Segments and positions with their defaults written out."""
    places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    return np.zeros_like(ids) if segments is None else segments, places if positions is None else positions


def _one_row(documents: list[list[int]], starts: list[list[bool]], frame: Frame) -> Rows:
    """All documents in one row with the frame around them, as the stream reader would read them."""
    tokens: list[int] = []
    words: list[bool] = []
    lengths: list[int] = []
    for number, (ids, begins) in enumerate(zip(documents, starts, strict=True)):
        before = [t for t in (frame.lead if number == 0 else None, frame.begin) if t is not None]
        after = [t for t in (frame.end,) if t is not None]
        tokens += [*before, *ids, *after]
        words += [True] * len(before) + begins + [True] * len(after)
        lengths.append(len(before) + len(ids) + len(after))
    return Rows(
        tokens=np.array(tokens, np.int32),
        offsets=np.array([0, len(tokens)]),
        segment_ids=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        position_ids=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        word_starts=np.array(words, bool),
        example_ids=np.zeros(1, np.int64),
    )


def _by_store(documents: list[str], path: Path) -> tuple[list[list[int]], list[list[bool]], Vocabulary, dict[int, str]]:
    """Token ids and word starts of each document, the vocabulary, and the readable form of every token."""
    from pretextlm.data.encode import TextEncoder
    from pretextlm.data.store import Store

    store = Store.open(path)
    chunk = TextEncoder(store.tokenizer).encode(documents)
    cuts = np.cumsum(chunk.lengths)[:-1]
    ids = [part.tolist() for part in np.split(chunk.tokens, cuts)]
    starts = [part.tolist() for part in np.split(chunk.word_starts, cuts)]
    vocabulary = store.vocabulary
    texts = store.tokenizer.decode_batch([[i] for i in range(vocabulary.size)], skip_special_tokens=False)
    return ids, starts, vocabulary, {i: _readable(text) for i, text in enumerate(texts)}


def _readable(text: str) -> str:
    """White space made visible; part of a character, which has no form, as a lozenge."""
    return text.replace(" ", "▁").replace("\n", "↵").replace("\t", "⇥").replace("\ufffd", "◊") or "∅"
