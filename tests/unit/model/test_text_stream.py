"""Streamed text: pieces add up to the text, and a stop string is never shown in part."""

from __future__ import annotations

import pytest

from pretextlm.model.text_stream import TextStream, cut_at


def decode(ids) -> str:
    """Ids are bytes; the text loses its first space, as some tokenizers do."""
    return bytes(ids).decode("utf-8", errors="replace").removeprefix(" ")


@pytest.mark.parametrize("text", ["plain words, many of them, one after the other", " é바다🌊 end", "a b  c", ""])
def test_pieces_add_up_to_the_text(text):
    stream = TextStream(decode, list(b"before"))
    shown = "".join(stream.add(token) for token in text.encode())
    assert shown + stream.end() == text
    assert stream.text == text


def test_an_unfinished_character_waits_for_its_bytes():
    stream = TextStream(decode, list(b"x"))
    assert [stream.add(token) for token in "é!".encode()] == ["", "é", "!"]
    assert stream.add("é".encode()[0]) == ""
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("one\ntwo\n", ["\n\n"], "one\ntwo\n"),
        ("aab", ["ab"], "a"),
        ("ababac", ["abac"], "ab"),
        ("abcd", ["cd", "bc"], "a"),
        ("abc", [], "abc"),
    ],
)
def test_nothing_of_a_stop_string_is_shown(text, stops, expected):
    stream = TextStream(decode, list(b"x"), stops)
    seen = ""
    for token in text.encode():
        seen += stream.add(token)
        assert expected.startswith(seen)
    assert seen + stream.end() == expected
    assert stream.stopped == cut_at(text, stops)[1]


def test_a_copy_goes_its_own_way():
    stream = TextStream(decode, list(b"x"), ["bc"])
    stream.add(ord("a"))
    stream.add(ord("b"))
    other = stream.copy()
    assert (other.add(ord("c")), other.stopped) == ("", True)
    assert (stream.add(ord("d")), stream.stopped) == ("bd", False)
