"""A text while it is generated: the piece that each new token adds, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
"""Ids → text."""

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""Decoders write it for the bytes of a character whose other bytes are still to come."""
CONTEXT = 8
"""Tokens before the new ones that are decoded with them."""


class TextStream:
    """The text of tokens that arrive one by one.

    An unfinished character waits for its other bytes, and a possible beginning of a stop string waits until it is
    known. Only the last few tokens are decoded again, so that a long text costs no more per token than a short one.

    Args:
        decode: Converts ids to text.
        prompt: Ids before the new ones: a token may have another text at the beginning (without a leading space).
        stop_strings: The text ends before the first of them.

    Attributes:
        text: All text so far.
        stopped: Whether a stop string has come.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = (), stop_strings: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stop_strings)
        self._context = list(prompt[-CONTEXT:])
        self._new: list[int] = []
        self._held = ""
        self.text = ""
        self.stopped = False

    def copy(self) -> TextStream:
        """Returns another stream in the same state."""
        other = TextStream(self._decode, self._context, self._stops)
        other._new, other._held, other.text, other.stopped = list(self._new), self._held, self.text, self.stopped
        return other

    def add(self, token: int) -> str:
        """Add a token.

        Returns:
            The further text that can be shown now; "" once a stop string has come.
        """
        if self.stopped:
            return ""
        self._new.append(token)
        piece = self._piece()
        if piece.endswith(UNFINISHED):
            return ""
        self._context, self._new = [*self._context[-CONTEXT:], *self._new], []
        return self._release(piece)

    def end(self) -> str:
        """End the text.

        Returns:
            The text that was held back.
        """
        if self.stopped:
            return ""
        rest = self._held + (self._piece() if self._new else "")
        self._held, self._new = "", []
        cut, self.stopped = cut_at(rest, self._stops)
        self.text += cut
        return cut

    def _piece(self) -> str:
        """The text of the new tokens: that of context and new tokens, less that of the context alone."""
        return self._decode([*self._context, *self._new])[len(self._decode(self._context)) :]

    def _release(self, piece: str) -> str:
        """Returns the piece, without an end that may begin a stop string: "the E" is held at "E" for a stop "END"."""
        ready, self.stopped = cut_at(self._held + piece, self._stops)
        self._held = ""
        if not self.stopped:
            waiting = max((_overlap(ready, stop) for stop in self._stops), default=0)
            ready, self._held = ready[: len(ready) - waiting], ready[len(ready) - waiting :]
        self.text += ready
        return ready


def cut_at(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """Cut a text before the first stop string in it.

    Returns:
        The text before it, and whether there was one.
    """
    found = [index for index in (text.find(stop) for stop in stop_strings) if index >= 0]
    return (text[: min(found)], True) if found else (text, False)


def _overlap(text: str, stop: str) -> int:
    """Returns the length of the longest end of the text that is a beginning of the stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-n:])), 0)
