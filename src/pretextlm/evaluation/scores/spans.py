"""Spans that tags encode (BIO, IOB2, IOB1, IOBES, BILOU), and how malformed sequences of tags are read.

The CoNLL convention (conlleval, and seqeval by default) accepts any sequence: I-X after another type or after O begins
a span, as B-X would. Strict IOB2, used by KLUE, accepts only spans that begin with B.

The library seqeval reads the same spans (the tests compare), but is not used: it has had no release since 2020, has no
wheel, and reads an unknown tag with a warning where this module refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from pretextlm.errors import UserError

Scheme = Literal["conll", "iob2"]
Span = tuple[str, int, int]
"""(type, start, stop): words of a sentence, `stop` excluded. The type of bare tags is ""."""

_PREFIXES = {"O": "O", "B": "B", "I": "I", "E": "E", "L": "E", "S": "S", "U": "S"}


def spans_of(tags: Sequence[Sequence[str]], scheme: Scheme = "conll") -> list[list[Span]]:
    """Return the spans of each sentence in order.

    Args:
        tags: Tags of the words of each sentence.
        scheme: How malformed sequences are read.

    Raises:
        UserError: A tag is neither O nor a known prefix with an optional type.
    """
    return [_spans_of_sentence(sentence, scheme) for sentence in tags]


def _spans_of_sentence(tags: Sequence[str], scheme: Scheme) -> list[Span]:
    """Return the spans of one sentence.

    tags      O  I-X  I-Y  I-Y  B-Y  O
    begins       *    *         *           conll: (X, 1, 2), (Y, 2, 4), (Y, 4, 5)
    begins                      *           iob2:  (Y, 4, 5)
    """
    spans: list[Span] = []
    open_span: tuple[str, int] | None = None
    before: str = "O"
    type_before: str | None = None
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = _parse(tag)
        if scheme == "iob2":
            begins = prefix == "B"
            ends = prefix != "I" or kind != type_before
        else:
            closed = before in ("O", "E", "S")  # no span reaches beyond the word before
            begins = prefix in ("B", "S") or (prefix != "O" and (closed or kind != type_before))
            ends = prefix == "O" or closed
        if open_span is not None and (begins or ends):
            spans.append((*open_span, place))
            open_span = None
        if begins:
            open_span = (kind or "", place)
        before, type_before = prefix, kind
    return spans


@lru_cache(maxsize=4096)
def _parse(tag: str) -> tuple[str, str | None]:
    """Return (prefix, type) of a tag, with the prefixes of BILOU as those of IOBES; the type of O is None."""
    prefix, dash, kind = tag.partition("-")
    if prefix not in _PREFIXES or (prefix == "O" and dash):
        raise UserError(f"{tag!r} is not a valid tag.", "Tags are O, and B-TYPE, I-TYPE (E-TYPE, S-TYPE) for spans.")
    return _PREFIXES[prefix], None if prefix == "O" else kind
