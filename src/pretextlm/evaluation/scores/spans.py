"""Tags → spans: what BIO, IOB2, IOB1 and IOBES tags name, and what malformed sequences of them are taken to mean.

By the conventions of CoNLL's shared tasks (conlleval; seqeval does the same) nothing is malformed: I-X after another
type, or after O, begins a span as B-X would. Strict IOB2, which KLUE is scored by, knows spans that begin with B alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.errors import UserError

I64 = NDArray[np.int64]
Scheme = Literal["conll", "iob2"]
_OUT, _BEGIN, _IN, _END, _SINGLE = range(5)
_PREFIXES: Mapping[str, int] = {"O": _OUT, "B": _BEGIN, "I": _IN, "E": _END, "L": _END, "S": _SINGLE, "U": _SINGLE}


@dataclass(frozen=True)
class Spans:
    """Spans of all sentences, in order.

    Attributes:
        sentence, start, stop: (S,) words of a sentence, `stop` excluded.
        first: (S,) the place of the first word in the text of all sentences, which no other span has.
        type: (S,) index into `types`.
        types: their names; "" where tags are bare.
    """

    sentence: I64
    start: I64
    stop: I64
    first: I64
    type: I64
    types: list[str]

    def plain(self) -> list[list[tuple[str, int, int]]]:
        """(type, start, stop) of each span, sentence by sentence; sentences after the last span are left out."""
        found: list[list[tuple[str, int, int]]] = [[] for _ in range(int(self.sentence.max(initial=-1)) + 1)]
        for sentence, kind, start, stop in zip(self.sentence, self.type, self.start, self.stop, strict=True):
            found[sentence].append((self.types[kind], int(start), int(stop)))
        return found


def spans_of(tags: Sequence[Sequence[str]], scheme: Scheme = "conll", types: Sequence[str] | None = None) -> Spans:
    """The spans that tags name.

    Args:
        types: numbers types in this order; by default all that occur, sorted.

    Raises UserError for a tag that is none.
    """
    lengths = np.array([len(sentence) for sentence in tags], np.int64)
    numbers: dict[str, int] = {}
    tag_T = np.array([numbers.setdefault(tag, len(numbers)) for sentence in tags for tag in sentence], np.int64)
    parsed = [_parse(tag) for tag in numbers]
    known = sorted({kind for prefix, kind in parsed if prefix != _OUT}) if types is None else list(types)
    index = {kind: number for number, kind in enumerate(known)}
    prefix_of = np.array([prefix for prefix, _ in parsed], np.int64)
    type_of = np.array([-1 if prefix == _OUT else index[kind] for prefix, kind in parsed], np.int64)

    offsets = np.r_[0, np.cumsum(lengths)]
    # One place more than words, outside, after each sentence: no span reaches over it.
    place_T = np.arange(len(tag_T)) + np.repeat(np.arange(len(lengths)), lengths)
    prefix, kind = (np.full(len(tag_T) + len(lengths) + 1, fill, np.int64) for fill in (_OUT, -1))
    if len(tag_T):
        prefix[place_T + 1], kind[place_T + 1] = prefix_of[tag_T], type_of[tag_T]
    begins, ends = _boundaries(prefix[:-1], prefix[1:], kind[:-1], kind[1:], scheme)
    begin = np.flatnonzero(begins)
    end = np.flatnonzero(ends | begins)  # before which a span that is open is closed
    stop = np.r_[end, len(prefix)][np.searchsorted(end, begin, side="right")]
    sentence = np.searchsorted(offsets[:-1] + np.arange(len(lengths)), begin, side="right") - 1
    first = begin - sentence
    return Spans(
        sentence, first - offsets[sentence], stop - sentence - offsets[sentence], first, kind[begin + 1], known
    )


def types_of(*sides: Sequence[Sequence[str]]) -> list[str]:
    """The types that tags name, sorted. Raises UserError for a tag that is none."""
    tags = {tag for side in sides for sentence in side for tag in sentence}
    return sorted({kind for prefix, kind in map(_parse, tags) if prefix != _OUT})


def _boundaries(
    before: I64, now: I64, type_before: I64, type_now: I64, scheme: Scheme
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each place: whether a span begins there, and whether one that is open ends before it."""
    other = type_before != type_now
    if scheme == "iob2":
        return now == _BEGIN, (now != _IN) | other
    opens = (now == _BEGIN) | (now == _SINGLE)
    closed = (before == _OUT) | (before == _END) | (before == _SINGLE)
    return opens | ((now != _OUT) & (closed | other)), (now == _OUT) | closed


def _parse(tag: str) -> tuple[int, str]:
    """(prefix, type) of a tag."""
    prefix, dash, kind = tag.partition("-")
    if prefix not in _PREFIXES or (prefix == "O" and dash):
        raise UserError(f"The tag {tag!r} is none.", "Tags are O, and B-TYPE, I-TYPE (E-TYPE, S-TYPE) for spans.")
    return _PREFIXES[prefix], kind
