"""The effect of an objective on a text: rows before and after, the positions with a loss, and the attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Variant
from pretextlm.data.rows import StreamReader
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.preview.encoded_text import EncodedDocument, EncodedText, split_of
from pretextlm.objectives.preview.proposals import propose_by_frequency
from pretextlm.objectives.preview.supplement import Reading, plan
from pretextlm.objectives.preview.visibility import visibility_of, without_padding
from pretextlm.objectives.registry import OBJECTIVES, build
from pretextlm.objectives.replaced_token import ReplacedToken

MAX_POSITIONS = 64
"""Tokens that a picture of 80 columns holds."""

MAX_CHARACTERS = 10_000

DRAWS = 64
"""Random draws among which one is sought that changes a short text, or that has a certain label."""

TOKENS = ("input_ids", "labels", "shuffled_labels", "decoder_input_ids", "decoder_labels")
"""Arrays of a batch that hold token ids."""


@dataclass(frozen=True)
class Case:
    """One row under one objective.

    Attributes:
        objective: the configured objective.
        title: what tells it from the other cases, "" for the only one.
        variant: name of the row's variant, "" where the objective has one.
        draw: number of the random draw, from 0.
        tokens: (T,) text of each token of the row that was read, specials of the frame included.
        batch: the batch of one row.
        names: text of a token id.
        judged: (1, T) of replaced-token detection, the text with the generator's proposals; else None.
        replaced: (1, T) likewise, the label of each of its tokens.
        visibility: name of a sight ("input", "decoder", "cross") → (queries, keys) booleans, True where it may attend.
    """

    objective: Objective
    title: str
    variant: str
    draw: int
    tokens: list[str]
    batch: Batch
    names: dict[int, str]
    judged: NDArray[np.int32] | None
    replaced: NDArray[np.int32] | None
    visibility: dict[str, NDArray[np.bool_]]

    def row(self, field: str) -> list[str | None]:
        """Texts of one array of the batch; None where a label carries no loss."""
        return self._texts(getattr(self.batch, field))

    @property
    def judged_row(self) -> list[str | None]:
        """Texts of the row with the generator's proposals."""
        return self._texts(self.judged)

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

    @property
    def does_something(self) -> bool:
        """Whether the input differs from the text, also in its order, and every term of the loss has a target."""
        changed = [self.names[token] for token in self.batch.input_ids[0].tolist()] != self.tokens
        order = self.batch.shuffled_labels
        if order is not None:
            changed = bool(((order != IGNORE) & (order != self.batch.input_ids)).any())
        return changed and all(self.loss["terms"].values()) and (self.replaced is None or bool(self.replaced.any()))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        names = (f.name for f in dataclasses.fields(self.batch) if f.name not in ("attention", "draws", "example_ids"))
        arrays = {n: getattr(self.batch, n)[0].tolist() for n in names if getattr(self.batch, n) is not None}
        texts = {name: self.row(name) for name in TOKENS if name in arrays}
        if self.judged is not None and self.replaced is not None:
            arrays |= {"judged": self.judged[0].tolist(), "replaced": self.replaced[0].tolist()}
            texts["judged"] = self.judged_row
        return {
            "title": self.title,
            "variant": self.variant,
            "draw": self.draw,
            "tokens": self.tokens,
            "texts": texts,
            "arrays": arrays,
            "row_label": self.row_label,
            "attention": self.batch.attention,
            "loss": self.loss,
            "visibility": {name: matrix.astype(int).tolist() for name, matrix in self.visibility.items()},
        }

    def _texts(self, ids: Any) -> list[str | None]:
        return [None if value == IGNORE else self.names[value] for value in ids[0].tolist()]


@dataclass(frozen=True)
class Shown:
    """One text under one objective.

    Attributes:
        objective: the configured objective.
        tokenizer: where the tokens come from, in words.
        notes: sentences on what was brought along.
        cases: rows, one of each kind that the objective makes of the text.
    """

    objective: Objective
    tokenizer: str
    notes: list[str]
    cases: list[Case]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            **describe(type(self.objective)),
            "options": self.objective.model_dump(mode="json"),
            "tokenizer": self.tokenizer,
            "notes": self.notes,
            "label_names": self.objective.label_names,
            "cases": [case.to_json() for case in self.cases],
        }


def show(name: str, options: dict[str, Any], text: str, store: Path | None = None, seed: int = 0) -> Shown:
    """Applies an objective to a text, one document per line; a tab or " => " separates the parts of a pair.

    What the objective needs beside the text is brought along (`supplement.plan`). A text longer than a picture is cut.

    Args:
        name: of the objective.
        options: of the objective.
        text: to apply it to.
        store: whose tokenizer to use; None for a small tokenizer trained on the text itself.
        seed: of the random choices. An objective of several variants shows them in turn.

    Raises:
        UserError: a wrong name or option; a text that is empty or very long; a store that cannot be opened.
    """
    objective = build(name, options)
    if not text.strip():
        raise UserError("There is no text to show.", f'Give one, for example: pretextlm show {name} "A sentence."')
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"The text has {len(text):,} characters: too many to draw.", "Give a sentence or two.")
    planned = plan(objective, text)
    read = [document for reading in planned.readings for document in reading.documents]
    encoded = EncodedText.of([*read, *planned.proposed], store)
    cases: list[Case] = []
    notes, at = planned.notes, 0
    for reading in planned.readings:
        documents = encoded.documents[at : at + len(reading.documents)]
        at += len(reading.documents)
        cases += _cases(objective, reading, documents, encoded, seed, notes)
    return Shown(objective, encoded.tokenizer, notes, cases)


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


def _cases(
    objective: Objective,
    reading: Reading,
    documents: list[EncodedDocument],
    text: EncodedText,
    seed: int,
    notes: list[str],
) -> list[Case]:
    """Returns a row with each label that rows have; else the first that changes the text, or the first of all."""
    drawn = _drawn(objective, reading, documents, text, seed, notes)
    first = next(drawn)
    if first.row_label is None:
        chosen = first if first.does_something else next((case for case in drawn if case.does_something), first)
        if chosen.draw:
            notes.append(
                f"Draw {chosen.draw + 1} of seed {seed} is shown: those before it change too little in so short a text."
            )
        return [chosen]
    labels = {first.row_label: first}
    for case in drawn:
        if len(labels) == len(objective.label_names):
            break
        labels.setdefault(case.row_label or 0, case)
    names = objective.label_names
    return [dataclasses.replace(labels[n], title=names.get(n, f"label {n}")) for n in sorted(labels)]


def _drawn(
    objective: Objective,
    reading: Reading,
    documents: list[EncodedDocument],
    text: EncodedText,
    seed: int,
    notes: list[str],
) -> Iterator[Case]:
    """Yields the text's row under one random draw after another."""
    vocabulary = text.vocabulary
    proposed = np.array([token for document in text.documents for token in document.ids])
    for draw, (rows, variant) in enumerate(_rows(reading.objective, documents, text, seed, notes)):
        batch = reading.objective.collate(rows, vocabulary, CounterRNG.of(seed, draw, rows.example_ids))
        judged = replaced = None
        if isinstance(objective, ReplacedToken):
            judged, replaced = propose_by_frequency(batch, proposed)
        batch = without_padding(batch)
        width = batch.input_ids.shape[1]
        yield Case(
            objective=objective,
            title=reading.title,
            variant=variant,
            draw=draw,
            tokens=[text.names[t] for t in rows.tokens[rows.segment_ids >= 0].tolist()],
            batch=batch,
            names=text.names,
            judged=None if judged is None else judged[:, :width],
            replaced=None if replaced is None else replaced[:, :width],
            visibility=visibility_of(batch),
        )


def _rows(
    objective: Objective, documents: list[EncodedDocument], text: EncodedText, seed: int, notes: list[str]
) -> Iterable[tuple[Rows, str]]:
    """Yields the first row of each epoch as the objective reads it, and the name of the row's variant."""
    first = np.zeros(1, np.int64)
    vocabulary = text.vocabulary
    if not objective.reads_stream:
        reader = objective.reader(split_of(documents), vocabulary, MAX_POSITIONS)
        for epoch in range(DRAWS):
            yield reader.read(first, first + epoch, seed, pad=vocabulary.pad), ""
        return
    frame = objective.frame(vocabulary)
    marks = (frame.begin is not None) + (frame.end is not None)
    kept = _cropped(documents, marks, MAX_POSITIONS - 2 - (frame.lead is not None))
    total, left = (sum(len(document.ids) for document in some) for some in (documents, kept))
    if left < total:
        notes.append(f"The text has {total} tokens; the first {left} are shown.")
    split = split_of(kept)
    stream = StreamReader(split, frame, Variant("", raw=1, length=1))
    room = objective.extra_tokens * split.num_documents
    row = StreamReader(split, frame, Variant("", raw=stream.size + room, length=0))
    rows = row.read(first, pad=vocabulary.pad if room else None)
    names = objective.variant_names()
    number = seed % len(names)
    for _ in range(DRAWS):
        yield dataclasses.replace(rows, variant=number), names[number] if len(names) > 1 else ""


def _cropped(documents: list[EncodedDocument], marks: int, room: int) -> list[EncodedDocument]:
    """Returns the first documents that fit into `room` tokens with `marks` special ones each, the last one cut."""
    kept = []
    for document in documents:
        if room <= marks:
            break
        kept.append(document.first(room - marks))
        room -= len(kept[-1].ids) + marks
    return kept
