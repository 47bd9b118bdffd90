"""A text while it is written: what each new token adds, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
"""Ids → text."""

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
CONTEXT = 8


class TextStream:
    """New text, piece by piece.

    An unfinished character waits for its other bytes, and what may be the beginning of a stop string waits until it is
    known. Only the last few tokens are decoded anew, so that a long text costs no more per token than a short one.

    Args:
        decode: text of ids.
        prompt: ids before the new ones: a token may read otherwise at the beginning of a text.
        stop_strings: the text ends before the first of them.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = (), stop_strings: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stop_strings)
        self._context = list(prompt[-CONTEXT:])
        self._new: list[int] = []
        self._held = ""
        self.text = ""
        self.stopped = False

    def copy(self) -> TextStream:
        """Another one in the same state."""
        other = TextStream(self._decode, self._context, self._stops)
        other._new, other._held, other.text, other.stopped = list(self._new), self._held, self.text, self.stopped
        return other

    def add(self, token: int) -> str:
        """What can be shown more now; nothing once a stop string has come."""
        if self.stopped:
            return ""
        self._new.append(token)
        piece = self._piece()
        if piece.endswith(UNFINISHED):
            return ""
        self._context, self._new = [*self._context[-CONTEXT:], *self._new], []
        return self._pass_on(piece)

    def end(self) -> str:
        """What was held back, when no further token comes."""
        if self.stopped:
            return ""
        rest = self._held + (self._piece() if self._new else "")
        self._held, self._new = "", []
        cut, self.stopped = cut_at(rest, self._stops)
        self.text += cut
        return cut

    def _piece(self) -> str:
        return self._decode([*self._context, *self._new])[len(self._decode(self._context)) :]

    def _pass_on(self, piece: str) -> str:
        ready, self.stopped = cut_at(self._held + piece, self._stops)
        self._held = ""
        if not self.stopped:
            waiting = max((_begun(ready, stop) for stop in self._stops), default=0)
            ready, self._held = ready[: len(ready) - waiting], ready[len(ready) - waiting :]
        self.text += ready
        return ready


def cut_at(text: str, stop_strings: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string in it, and whether there was one."""
    places = [place for place in (text.find(stop) for stop in stop_strings) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _begun(text: str, stop: str) -> int:
    """How many characters at the text's end may be the beginning of the stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-n:])), 0)
