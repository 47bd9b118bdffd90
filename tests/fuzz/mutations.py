"""Changes to a seed: of its bytes, and of the values of JSON and TOML."""

from __future__ import annotations

import json
import random
import tomllib
from contextlib import suppress
from typing import Any

from pretextlm.config import write_toml

TOKENS = [
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n",
        b'"',
        b"'",
        b",",
        b"\t",
        b"=",
        b"\\ud800",
        b".",
    ),
    *(
        b"null",
        b"true",
        b"-1",
        b"1e400",
        b"NaN",
        b"0",
        b"\\ud800",
        b"{}",
        b"[]",
        b'""',
        b"[/x]",
        b"\x1b[2J",
        b"\xe2\x80\xa8",
    ),
    *(b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"a" * 5000, b"a." * 3000, b"\xff" * 8, b"\0" * 8),
]
"""Bytes that parsers stumble over."""

VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        1,
        5,
        0.5,
        float("nan"),
        float("inf"),
        1e308,
        10**30,
        2**63,
        "",
        "text",
        "../evil",
        "a\0b",
        "\ud800",
    ),
    *([], {}, [None], [[]], {"name": 5}, [5], {"": ""}, "x" * 5000),
]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Returns the bytes with one to four changes."""
    for _ in range(draw.randint(1, 4)):
        data = (_other_value(data, draw) if draw.random() < 0.5 else None) or _other_bytes(data, draw)
    return data


def _other_bytes(data: bytes, draw: random.Random) -> bytes:
    begin = draw.randint(0, len(data))
    end = min(len(data), begin + draw.choice((0, 0, 1, 4, 16, 1 << 20)))
    put = draw.choice((draw.choice(TOKENS), draw.randbytes(draw.randint(1, 4)), data[begin:end] * 2))
    return data[:begin] + put + data[end:]


def _other_value(data: bytes, draw: random.Random) -> bytes | None:
    """Returns JSON, the JSON of one line, or TOML with one value or key replaced; None where it is none of these."""
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    with suppress(ValueError, RecursionError):
        return json.dumps(_replaced(json.loads(data), draw)).encode()
    with suppress(ValueError, RecursionError):
        return b"\n".join([*lines[:at], json.dumps(_replaced(json.loads(lines[at]), draw)).encode(), *lines[at + 1 :]])
    with suppress(ValueError, RecursionError, AttributeError):
        return write_toml(_replaced(tomllib.loads(data.decode()), draw)).encode()
    return None


def _replaced(value: Any, draw: random.Random) -> Any:
    if not value or not isinstance(value, dict | list) or draw.random() < 0.15:
        return draw.choice(VALUES)
    at = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    copy = value.copy()
    if isinstance(copy, dict) and draw.random() < 0.2:
        copy[draw.choice(("", "x", "name", at + "s"))] = copy.pop(at)
    else:
        copy[at] = _replaced(copy[at], draw)
    return copy
