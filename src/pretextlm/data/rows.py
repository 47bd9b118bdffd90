"""Rows of the framed stream: which tokens a row number reads, and the tokens themselves.

A split's documents, each between the frame's begin and end tokens, form a stream of S entries, read as if repeated
for ever. Row k reads entries [k·stride, k·stride + raw); nothing is stored but the row number. For example, with
begin <s>, raw 4 and no overlap:

    documents   [7 8 9] [5]
    stream      <s> 7 8 9 <s> 5 | <s> 7 8 9 <s> 5 | …
    rows        <s> 7 8 9      <s> 5 <s> 7      8 9 <s> 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.store import Split
from pretextlm.errors import UserError

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class _Pieces:
    """Parts of documents inside rows, in output order. All arrays are (P,).

    Attributes:
        first: offset of the piece in the flat output.
        length: entries in it, never 0.
        text: token offset that the piece's first entry would have if it were text.
        begins, ends: the piece holds the document's first, last entry.
        row: row it belongs to.
    """

    first: I64
    length: I64
    text: I64
    begins: NDArray[np.bool_]
    ends: NDArray[np.bool_]
    row: I64


class StreamReader:
    """Reads rows of one variant from a split.

    Attributes:
        size: S, entries of the framed stream.
        stride: stream entries from the start of one row to the start of the next.
        rows_per_pass: ⌈S/stride⌉, the rows that together read everything once.

    Raises:
        UserError: the split holds no entry.
    """

    def __init__(self, split: Split, frame: Frame, variant: Variant) -> None:
        self.split, self.frame, self.variant = split, frame, variant
        self._before = int(frame.begin is not None)
        self._around = self._before + int(frame.end is not None)
        self.size = split.num_tokens + self._around * split.num_documents
        self.stride = variant.raw - variant.overlap
        if not self.size:
            raise UserError("The split holds no text.", "Prepare a store with more documents.")
        if self.stride < 1:
            raise ValueError(f"raw {variant.raw} must exceed overlap {variant.overlap}")
        self.rows_per_pass = -(-self.size // self.stride)
        self._text_starts = split.documents.view(np.int64)
        self._starts = self._text_starts
        if self._around:
            self._starts = self._text_starts + np.arange(split.num_documents + 1) * self._around

    def read(self, row_numbers: NDArray[np.integer], pad: int | None = None) -> Rows:
        """The rows with these numbers (B,), each raw entries wide, plus one where the frame has a lead token.

        The lead token belongs to the row's first segment, at position 0. Segments count the documents in a row;
        positions restart at 0 in each, also where a row begins inside a document.

        Args:
            row_numbers: any row numbers, in any order.
            pad: for evaluation, which reads each entry once: id for the entries after the end of the stream,
                with segment -1 and position 0. Without it, the stream begins again there.
        """
        numbers = np.array(row_numbers, dtype=np.int64)
        return self.read_at(numbers * self.stride % self.size, numbers, pad)

    def read_at(self, starts: I64, example_ids: I64, pad: int | None = None, ends: I64 | None = None) -> Rows:
        """The rows that begin at stream entries `starts` (B,), all inside the stream; otherwise as `read`.

        Args:
            starts: (B,) first entry of each row.
            example_ids: (B,) their numbers.
            pad: id for the entries from `ends` on, with segment -1 and position 0.
            ends: (B,) entry before which each row ends; by default the end of the stream.
        """
        pieces = self._pieces(starts)
        if self._around or self.frame.lead is not None or starts.max(initial=0) + self.variant.raw > self.size:
            tokens, word_starts = self._gather(pieces, len(starts))
        else:
            tokens, word_starts = self._copy(starts)
        segments, positions = self._layout(pieces, len(starts))
        sentences = self._sentences(pieces, len(starts)) if self.frame.sentences else None
        if pad is not None:
            after = self._after_end(starts, self.size if ends is None else ends[:, None])
            tokens[after], segments[after], positions[after], word_starts[after] = pad, -1, 0, False
            if sentences is not None:
                sentences[after] = False
        offsets = np.arange(len(starts) + 1) * self._width
        return Rows(tokens, offsets, segments, positions, word_starts, example_ids, sentence_starts=sentences)

    @property
    def document_starts(self) -> I64:
        """(D+1,) stream entries where documents begin, and the end of the stream."""
        return self._starts

    def documents_at(self, starts: I64) -> I64:
        """(B,) the documents that hold these stream entries (B,)."""
        found: I64 = np.searchsorted(self._starts, starts, side="right") - 1
        return found

    @property
    def _width(self) -> int:
        return self.variant.raw + int(self.frame.lead is not None)

    def _pieces(self, starts: I64) -> _Pieces:
        """Cut rows that begin at stream entries `starts` (B,) at document boundaries, in the unrolled stream."""
        documents, raw = self.split.num_documents, self.variant.raw
        # The last entry of a row may lie in a later repetition of the stream, so documents are numbered through:
        # document d of repetition p is p * documents + d. With documents of 3 and 1 tokens (size 4, no frame), the row
        # of entries 2 … 6 has documents 0, 1, 2 (= 0 again): first 0, last 2, three pieces.
        passes, last = np.divmod(starts + (raw - 1), self.size)
        first = np.searchsorted(self._starts, starts, side="right") - 1
        last = np.searchsorted(self._starts, last, side="right") - 1 + passes * documents
        count = last - first + 1
        row = np.repeat(np.arange(len(starts)), count)
        # 0, 1, 2 … inside each row: a flat index minus the flat index at which the row's pieces begin.
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        passes, document = np.divmod(nth + first[row], documents)
        begin = self._starts[document] + passes * self.size
        end = self._starts[document + 1] + passes * self.size
        row_start = starts[row]
        # A piece is the intersection of its document [begin, end) with its row [row_start, row_start + raw).
        low, high = np.maximum(begin, row_start), np.minimum(end, row_start + raw)
        text = self._text_starts[document] + (low - begin) - self._before
        out = low - row_start + row * self._width + (self._width - raw)
        pieces = _Pieces(out, high - low, text, low == begin, high == end, row)
        if (pieces.length > 0).all():
            return pieces
        keep = pieces.length > 0  # documents without a token, in a stream without a frame
        return _Pieces(*(getattr(pieces, name)[keep] for name in pieces.__dataclass_fields__))

    def _layout(self, pieces: _Pieces, rows: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Segment and position of every output token (N,)."""
        lead = self._width - self.variant.raw
        index = np.arange(len(pieces.row))
        opens = np.diff(pieces.row, prepend=-1) > 0
        # Segment = piece index minus that of the row's first piece: rows [0 0 0 1 1] give segments [0 1 2 0 1].
        first_of_row = np.maximum.accumulate(np.where(opens, index, 0))
        start = pieces.first - np.where(opens, lead, 0)
        length = pieces.length + np.where(opens, lead, 0)
        segments = np.repeat((index - first_of_row).astype(np.int32), length)
        positions = np.arange(rows * self._width, dtype=np.int32)
        positions -= np.repeat(start.astype(np.int32), length)
        return segments, positions

    def _gather(self, pieces: _Pieces, rows: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Tokens and word starts with frame and lead put in: one gather over all rows."""
        lead = self._width - self.variant.raw
        # Output entry i of a piece that begins at output f and token t reads token i + (t - f): the shift is constant
        # within a piece, so one np.repeat of the shifts turns 0, 1, 2 … into all source indices at once. Special tokens
        # read some neighbouring token first and are overwritten below, which is why the indices are clipped.
        source = np.arange(rows * self._width)
        run = np.append(pieces.first[1:], len(source)) - pieces.first
        if lead:
            run[0] += lead  # the first row's lead token; other rows' count as the end of the piece before
        source += np.repeat(pieces.text - pieces.first, run)
        np.clip(source, 0, max(self.split.num_tokens - 1, 0), out=source)
        if self.split.num_tokens:
            tokens = self.split.tokens.take(source).astype(np.int32)
            word_starts = self.split.word_starts(source)
        else:
            tokens, word_starts = np.zeros(len(source), np.int32), np.zeros(len(source), np.bool_)
        for token, places in self._specials(pieces, rows):
            tokens[places] = token
            word_starts[places] = True
        return tokens, word_starts

    def _specials(self, pieces: _Pieces, rows: int) -> list[tuple[int, I64]]:
        """Ids of the frame and where in the flat output each stands."""
        found = []
        if self.frame.begin is not None:
            found.append((self.frame.begin, pieces.first[pieces.begins]))
        if self.frame.end is not None:
            found.append((self.frame.end, (pieces.first + pieces.length - 1)[pieces.ends]))
        if self.frame.lead is not None:
            found.append((self.frame.lead, np.arange(rows) * self._width))
        return found

    def _copy(self, starts: I64) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The same without any special token: whole rows are copied, several times faster."""
        raw = self.variant.raw
        tokens = _windows(self.split.tokens, raw)[starts].astype(np.int32)
        width = (raw + 14) // 8  # bytes that hold `raw` bits from any bit of the first byte
        # Bit s of the split is bit s & 7 of byte s >> 3: each row unpacks the few bytes around it and takes a window.
        bits = np.unpackbits(self.split.word_bits.take(self._byte_places(starts, width)), bitorder="little")
        word_starts = _windows(bits, raw)[np.arange(len(starts)) * (width * 8) + (starts & 7)]
        return tokens.reshape(-1), word_starts.reshape(-1).view(np.bool_)

    def _byte_places(self, starts: I64, width: int) -> I64:
        places: I64 = (starts >> 3)[:, None] + np.arange(width)
        return np.minimum(places, len(self.split.word_bits) - 1).reshape(-1)

    def _sentences(self, pieces: _Pieces, rows: int) -> NDArray[np.bool_]:
        """Where sentences of the text begin; neither a frame token nor a row that begins inside a sentence does."""
        starts = self.split.sentences.view(np.int64)
        skipped = np.where(pieces.begins, self._before, 0)
        after = np.where(pieces.ends, self._around - self._before, 0)
        low = np.searchsorted(starts, pieces.text + skipped)
        count = np.searchsorted(starts, pieces.text + pieces.length - after) - low
        shift = np.repeat(pieces.first - pieces.text, count)
        nth = np.arange(len(shift)) - np.repeat(np.cumsum(count) - count, count)
        flags = np.zeros(rows * self._width, dtype=bool)
        flags[starts[np.repeat(low, count) + nth] + shift] = True
        return flags

    def _after_end(self, starts: I64, ends: int | I64) -> NDArray[np.bool_]:
        """(rows · width,) True for what lies after the end of a row's text."""
        after = np.zeros((len(starts), self._width), dtype=bool)
        after[:, self._width - self.variant.raw :] = starts[:, None] + np.arange(self.variant.raw) >= ends
        return after.reshape(-1)


def _windows(values: NDArray[Any], width: int) -> NDArray[Any]:
    """(len - width + 1, width) view of every window: indexing its first axis copies whole rows at once."""
    return np.lib.stride_tricks.sliding_window_view(values, width)
