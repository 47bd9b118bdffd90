"""A document on its way through a cleaning pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Document:
    """The text of a document and what is known about it; steps change it in place.

    Attributes:
        text: its text.
        id: unique in the input and the same in every pass: "SOURCE/NUMBER".
        source: as the user gave it.
        licence: of the document, or of its source.
        language: ISO 639 code, two letters where there is one ("en", "ko"); "" before it is identified.
        metadata: further fields of its record, kept as they are.
        measures: by rule, the value that the rule measured and its threshold: how near a kept document came to removal.
        counts: what steps changed in it, by name, for example the number of masked e-mail addresses.
    """

    text: str
    id: str = ""
    source: str = ""
    licence: str | None = None
    language: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, tuple[float, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Removal:
    """Why a step removed a document.

    Attributes:
        rule: name within the step, for example "mean_word_length".
        value: that was measured; None for a rule without a number.
        threshold: that it did not meet.
    """

    rule: str
    value: float | None = None
    threshold: float | None = None
