"""Characters that a terminal or a page obeys instead of showing them."""

from __future__ import annotations

import re

COMMANDING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, those that set the direction of text, and halves of characters."""


def printable(text: str) -> str:
    r"""Returns text with each character that a terminal would obey spelled out: \x1b, \x9b, \u202e."""
    return COMMANDING.sub(lambda found: repr(found[0])[1:-1], text)
