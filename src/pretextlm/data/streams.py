"""Bytes and lines of plain and compressed files, in memory bounded regardless of the file's content."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from pretextlm.errors import UserError, missing_extra
from pretextlm.file_names import compression_of
from pretextlm.plain_files import open_plain

SMALL, MOST_EXPANSION = 64 << 20, 500
"""A compressed file may become so many bytes, or so many times its size: text shrinks to a third or a tenth."""
_ZSTD_CHUNK = 512  # compressed bytes at a time: 128 KiB of text can hide in four, so this bounds a bomb to 16 MiB


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open the decompressed content of a file.

    Yields:
        A binary stream.

    Raises:
        UserError: the file cannot be read, is damaged or truncated.
    """
    if not path.is_file():
        what = "is a directory or a special file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}.", "Give the path of a file.")
    try:
        with open_plain(path) as raw:
            yield _decompressed(raw, compression_of(path))
    except UserError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, _CutShortError) as error:
        raise DamagedError(f"{path} is damaged or cut short: {error}.", "Fetch or compress the file again.") from None
    except OSError as error:
        raise DamagedError(f"Cannot read {path}: {error.strerror or error}.", "Check the file.") from None


def _decompressed(raw: BinaryIO, compression: str) -> BinaryIO:
    if not compression:
        return raw
    stream: Any = gzip.GzipFile(fileobj=raw) if compression == ".gz" else _Zstandard(raw)
    return cast(BinaryIO, io.BufferedReader(_Bounded(stream, raw), 1 << 17))


class DamagedError(UserError):
    """A file that cannot be read to its end; counts as a bad document where bad documents are skipped."""


class _CutShortError(Exception):
    """The compressed data is truncated or malformed."""


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends in an error if it becomes far larger than text does: a decompression bomb."""

    def __init__(self, stream: io.RawIOBase, raw: BinaryIO) -> None:
        self._stream, self._raw, self._bytes = stream, raw, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer) or 0
        self._bytes += count
        if self._bytes > SMALL and self._bytes > MOST_EXPANSION * self._raw.tell():
            raise _CutShortError(f"it becomes more than {MOST_EXPANSION} times its size")
        return count


class _Zstandard(io.RawIOBase):
    """A stream over concatenated Zstandard frames; unlike the library's own reader, it detects a truncated last
    frame.
    """

    def __init__(self, raw: BinaryIO) -> None:
        try:
            import zstandard
        except ImportError:
            raise missing_extra("zstandard", "data", "Reading .zst files") from None
        self._raw, self._zstandard = raw, zstandard
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._decompress():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self) -> bool:
        """Fill the buffer with further text. Returns False at the end of the file."""
        rest = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
        if self._frame is None or self._frame.eof:
            data = rest or self._raw.read(_ZSTD_CHUNK)
            if not data:
                return False
            self._frame = self._zstandard.ZstdDecompressor().decompressobj()
        else:
            data = self._raw.read(_ZSTD_CHUNK)
            if not data:
                raise _CutShortError("the last frame has no end")
        try:
            self._ready = memoryview(self._frame.decompress(data))
        except self._zstandard.ZstdError as error:
            raise _CutShortError(str(error)) from None
        return True


def lines(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Yields (line number from 1, line with its end), and None in place of a line longer than `limit` bytes."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) <= limit:
            held = [line]
            del line
            yield number, held.pop()  # not kept here: a long line is in memory once
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(1 << 20)
        yield number, None
