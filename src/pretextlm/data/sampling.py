"""A sample of bounded size from a corpus of unknown size: the documents with the lowest content hashes."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator


def content_key(text: str) -> int:
    """Returns a uniform 64-bit hash of a document, which decides its split and whether it is sampled, in any order."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"pretextlm").digest(), "little")


class Sample:
    """Keeps at most `limit` bytes of documents, a uniform sample of all that are added; at least one document.

    Attributes:
        seen: bytes of all documents added.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.seen = limit, 0
        self._heap: list[tuple[int, str, int]] = []  # (-rank, text, bytes): the highest rank on top
        self._bytes = 0

    def add(self, text: str) -> None:
        """Add a document. It is kept while it is among those with the lowest hashes that fit."""
        size = len(text.encode())
        self.seen += size
        # Ranked by another hash than the split, so that the sample is not the validation split first of all.
        rank = content_key("sample\0" + text)
        if self._bytes >= self.limit and -rank < self._heap[0][0]:
            return
        heapq.heappush(self._heap, (-rank, text, size))
        self._bytes += size
        while len(self._heap) > 1 and self._bytes - self._heap[0][2] >= self.limit:
            self._bytes -= heapq.heappop(self._heap)[2]

    def texts(self) -> Iterator[str]:
        """Yields the sampled documents, lowest hash first; the last one is truncated at the limit."""
        left = self.limit
        for _, text, size in sorted(self._heap, reverse=True):
            yield text if size <= left else text[:left]
            left -= size
            if left <= 0:
                return
