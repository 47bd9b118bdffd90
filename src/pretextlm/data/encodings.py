"""Text files in any encoding, read as streams of UTF-8 bytes.

A byte order mark decides; without one, the encoding that is named, or that charset-normalizer recognises ("auto").
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from pretextlm.data.streams import DamagedError, open_bytes
from pretextlm.errors import UserError, missing_extra

AUTO = "auto"
UTF8 = "utf-8"
HOW = "Name the encoding: --encoding NAME, or for one source FILE?encoding=NAME."
# UTF-32's little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
HEAD_BYTES = 1 << 20
"""Bytes at the beginning of a file by which it is judged."""
_GUESS_BYTES = 1 << 14


def checked_encoding(name: str) -> str:
    """Returns Python's name of a text encoding, or "auto".

    Raises:
        UserError: there is no such encoding.
    """
    if name == AUTO:
        return AUTO
    try:
        b"".decode(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        hint = "For example utf-8, utf-16, cp949, euc-kr, gb18030, big5, shift_jis, cp1252; or auto."
        raise UserError(f"There is no text encoding {name!r}.", hint) from None


@contextmanager
def open_utf8(path: Path, encoding: str = UTF8) -> Iterator[BinaryIO]:
    """Open the decompressed content of a text file, converted to UTF-8.

    Args:
        path: the file.
        encoding: that of a file without a byte order mark, or "auto". UTF-8 is passed on unchecked.

    Yields:
        A binary stream.

    Raises:
        UserError: the file cannot be read, or its encoding is not recognised; while reading, a DamagedError at the
            first byte that is not of this encoding.
    """
    with open_bytes(path) as stream:
        head = stream.read(HEAD_BYTES if encoding == AUTO else 4)
    found = encoding_of(head, encoding)
    if found is None:
        raise DamagedError(f"{path}: the encoding is not recognised.", HOW)
    with open_bytes(path) as stream:
        yield stream if found == UTF8 else io.BufferedReader(_Converted(stream, path, found), 1 << 17)


def encoding_of(head: bytes, encoding: str) -> str | None:
    """Returns the encoding of a file that begins with `head`: by its mark, as named, or recognised if that is "auto".

    None if it is not recognised.
    """
    marked = encoding_by_mark(head)
    if marked or encoding != AUTO:
        return marked or encoding
    return UTF8 if is_encoded(head, UTF8) else recognise(head)


def encoding_by_mark(head: bytes) -> str | None:
    """Returns the encoding of which a byte order mark tells, None without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def is_encoded(head: bytes, encoding: str) -> bool:
    """Returns whether bytes are the beginning of a text in this encoding; the last character may be cut."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def recognise(data: bytes) -> str | None:
    """Returns the most likely encoding of bytes that are not UTF-8, None if none is likely.

    Raises:
        UserError: charset-normalizer is not installed.
    """
    # Any ASCII before the first other byte says nothing, so that a long English heading does not hide the rest.
    first = next((index for index, byte in enumerate(data) if byte > 0x7F), 0)
    return _recognise(data[max(0, first - 256) :][:_GUESS_BYTES])


@lru_cache(maxsize=256)
def _recognise(data: bytes) -> str | None:
    try:
        import charset_normalizer
    except ImportError:
        raise missing_extra("charset-normalizer", "data", "The encoding auto") from None
    best = charset_normalizer.from_bytes(data).best()
    return codecs.lookup(best.encoding).name if best else None


def likely(data: bytes) -> str:
    """Returns the sentence of a hint that names the likely encoding of bytes; empty if it is not known."""
    try:
        name = recognise(data)
    except UserError:
        name = None
    return f"It looks like {name}. " if name and name != UTF8 else ""


class _Converted(io.RawIOBase):
    """A stream of the UTF-8 bytes of a text in another encoding."""

    def __init__(self, stream: BinaryIO, path: Path, encoding: str) -> None:
        self._stream, self._path, self._encoding = stream, path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = memoryview(b"")
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._stream.read(1 << 16)
            self._ready = memoryview(self._decode(data))
            if not data and not self._ready:
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decode(self, data: bytes) -> bytes:
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            # The decoder's bytes begin with those it kept from before: they end where `data` ends.
            kept = len(error.object) - len(data)
            what = f"{self._path}: byte {self._bytes - kept + error.start + 1:,} is not {self._encoding}."
            raise DamagedError(what, likely(error.object) + HOW) from None
        self._bytes += len(data)
        return text.encode()
