"""Rows that belong to one document each, or to a few short ones: losses on them can be summed by document.

The rows of a stream run from one document into the next. Here they begin anew with every group of documents, and the
last row of a group is padded. A group is one document, or consecutive short ones of one source that fit into it:

    documents   [7 8 9 6 5] [4] [3 3]        rows of 4, no frame, groups of up to 4
    groups      [7 8 9 6 5] [4   3 3]
    rows        7 8 9 6    5 . . .    4 3 3 .
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.data.interleave import InterleavedReader
from pretextlm.data.mixture import Mixture
from pretextlm.data.packed_pairs import PackedPairs
from pretextlm.data.row_reader import RowReader
from pretextlm.data.seeded_sample import sampled_rows
from pretextlm.data.sentence_pair_index import reachable

I64 = NDArray[np.int64]

GROUP_TOKENS = 256
"""Short documents are grouped up to so many tokens (or one row): fewer and larger batches."""
LEAST_GROUPS = 64
"""Groups are smaller if the text would give fewer than this: standard errors are over groups."""


def by_document(reader: RowReader, seed: int) -> RowReader:
    """Returns a reader of the same text, in one pass, whose rows do not mix groups of documents.

    Rows with different numbers of a document (`DocumentRowReader.documents`) then hold different documents, each of one
    source. A reader of another kind is returned as it is: a pair of sentences counts for the first one's document.

    Args:
        reader: of the training objective.
        seed: of the choice where interleaved readers have more rows than one pass needs.
    """
    if isinstance(reader, Mixture):
        return DocumentRows(reader)
    if isinstance(reader, PackedPairs):
        return reader.one_source_a_row()
    if isinstance(reader, InterleavedReader):
        parts = [by_document(part, seed) for part in reader.readers]
        joint = InterleavedReader(parts, reader.weights, reader.variants)
        chosen = [sampled_rows(part, joint.rows_of(index), seed) for index, part in enumerate(parts)]
        return InterleavedReader(parts, reader.weights, reader.variants, chosen)
    return reader


class DocumentRows(Mixture):
    """Reads the rows of a mixture by groups of documents. Row numbers count through all groups.

    Args:
        mixture: whose split, frame and variants these rows have.
    """

    def __init__(self, mixture: Mixture) -> None:
        first = mixture.readers[0]
        super().__init__(first.split, first.frame, [reader.variant for reader in mixture.readers])
        most = max(reader.stride for reader in self.readers)
        capacity = max(most, min(GROUP_TOKENS, self.size // LEAST_GROUPS))
        starts = first.document_starts
        self._first_document = _groups(np.diff(starts), first.split.document_sources, capacity)
        self._begin = starts[self._first_document]
        self._end = np.append(self._begin[1:], self.size)
        self._first_row = self._first_rows(self._end - self._begin)

    @property
    def rows_per_pass(self) -> int:
        return int(self._first_row[-1])

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        """The rows with these numbers (B,), all of one variant; `pad` fills them after the end of their group."""
        numbers = np.asarray(numbers, dtype=np.int64)
        group = self._group(numbers)
        return self.read_at(self._start(numbers, group), numbers, pad, self._end[group])

    def documents(self, numbers: I64, seed: int) -> I64:
        """(B,) the first document of each row's group."""
        return self._first_document[self._group(numbers)]

    def _first_rows(self, sizes: I64) -> I64:
        """(G+1,) first row of each group, from its size in entries (G,), and the number of rows.

        The slots go round as in the mixture, so that variants keep their shares: a group begins with the first row
        after all rows of the group before it.
        """
        if len(self.slots) == 1:
            return np.concatenate([[0], np.cumsum(-(-sizes // self.block))])
        before, rows, number = self._before.tolist(), [0], 0
        for size in sizes.tolist():
            block, slot = divmod(number, len(before))
            block, rest = divmod(block * self.block + before[slot] + size, self.block)
            number = block * len(before) + bisect_left(before, rest)
            rows.append(number)
        return np.array(rows, np.int64)

    def _start(self, numbers: I64, group: I64) -> I64:
        """(B,) stream entries where rows begin."""
        return self._begin[group] + self.entries_before(numbers) - self.entries_before(self._first_row[group])

    def _group(self, numbers: I64) -> I64:
        found: I64 = np.searchsorted(self._first_row, numbers, side="right") - 1
        return found


def _groups(lengths: I64, sources: NDArray[np.integer], capacity: int) -> I64:
    """Returns the first document of each group, next-fit in the order of the documents.

    Args:
        lengths: (D,) stream entries of each document.
        sources: (D,) its source; a group has one.
        capacity: of a group in entries; a longer document is a group by itself.
    """
    numbers = np.arange(len(lengths))
    sums = np.concatenate([[0], np.cumsum(lengths)])
    borders = np.append(np.flatnonzero(np.diff(sources)) + 1, len(lengths))
    # onward[i] is the first document of the next group if a group begins at document i: the first one that does not
    # fit, or that of the next source. Lengths 5 1 2 and capacity 4 give onward = [1, 3, 3] and groups at 0 and 1.
    onward = np.searchsorted(sums, sums[:-1] + capacity, side="right") - 1
    onward = np.minimum(onward, borders[np.searchsorted(borders, numbers, side="right")])
    return reachable(np.maximum(onward, numbers + 1), np.zeros(1, np.int64))
