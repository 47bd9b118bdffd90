"""Prompts from files: texts to continue, and examples to show before each prompt (few-shot).

examples.jsonl   {"input": "cat", "target": "chat"}
                 {"input": "dog", "target": "chien"}
template         "English: {input}\\nFrench: {target}\\n\\n"
prompt "house"   English: cat⏎French: chat⏎⏎English: dog⏎French: chien⏎⏎English: house⏎French:
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pretextlm.errors import UserError
from pretextlm.file_names import suffix_of
from pretextlm.plain_files import parse_json, read_text

TEMPLATE = "Input: {input}\nOutput: {target}\n\n"
INPUT, TARGET = "{input}", "{target}"


class Example(NamedTuple):
    """An input and its target."""

    input: str
    target: str


class Template:
    """The text of an example, with {input} and, after it, {target} once each.

    Raises:
        UserError: one of them is missing or there twice, or the target comes first.
    """

    def __init__(self, text: str = TEMPLATE) -> None:
        if text.count(INPUT) != 1 or text.count(TARGET) != 1 or text.index(INPUT) > text.index(TARGET):
            raise UserError(
                f"The template {text!r} does not have {INPUT} once and {TARGET} once after it.",
                f"For example: {TEMPLATE!r}",
            )
        self._question, self.end = text.split(TARGET)

    def prompt(self, examples: Sequence[Example], question: str) -> str:
        """Returns the examples and the question up to its target; a space before the target belongs to the target."""
        shown = [self._question.replace(INPUT, one.input) + one.target + self.end for one in examples]
        return "".join(shown) + self._question.replace(INPUT, question).rstrip(" ")

    def stop_strings(self) -> tuple[str, ...]:
        """Returns the text after {target} in the template, which ends a generated target."""
        return (self.end,) if self.end else ()


def read_conversations(path: Path) -> list[str | list[dict[str, str]]]:
    """Returns the conversations of a file: a user's message per line, or in a .jsonl file also {"messages": […]}.

    Raises:
        UserError: as in `read_prompts`.
    """
    if suffix_of(path) != ".jsonl":
        return list(read_prompts(path))
    return [_conversation(path, number, _parsed(path, number, text)) for number, text in _lines(path)]


def read_prompts(path: Path) -> list[str]:
    """Returns one prompt per line; in a .jsonl file, each line is a string or an object with "prompt" or "text".

    Empty lines are skipped.

    Raises:
        UserError: the file is not there, is no UTF-8 text, holds no prompt, or a line of it is none.
    """
    lines = _lines(path)
    if suffix_of(path) != ".jsonl":
        found = [text for _, text in lines]
    else:
        found = [_prompt(path, number, _parsed(path, number, text)) for number, text in lines]
    if not found:
        raise UserError(f"{path} holds no prompt.", "Write one a line.")
    return found


def read_examples(path: Path) -> list[Example]:
    """Returns pairs of input and target: one per line, as JSON objects in a .jsonl file, else separated by a tab.

    Raises:
        UserError: as in `read_prompts`.
    """
    found = []
    for number, text in _lines(path):
        parts: list[Any] = text.split("\t")
        if suffix_of(path) == ".jsonl":
            value = _parsed(path, number, text)
            parts = [value.get("input"), value.get("target")] if isinstance(value, dict) else []
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise UserError(
                f"{path}, line {number}: no input and target.",
                'Write INPUT, a tab, TARGET; in a .jsonl file {"input": "…", "target": "…"}.',
            )
        found.append(Example(*parts))
    if not found:
        raise UserError(f"{path} holds no example.", "Write one a line.")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns (number from 1, text) of the lines that are not empty."""
    try:
        text = read_text(path, encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Give the path of a text file.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text.", "Save it as UTF-8.") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _parsed(path: Path, number: int, text: str) -> Any:
    try:
        value = parse_json(text)
        json.dumps(value, ensure_ascii=False).encode()  # fails for half a character, written as an escape
        return value
    except UnicodeEncodeError:
        raise UserError(f"{path}, line {number} holds half a character.", "Write it in UTF-8.") from None
    except ValueError as error:
        raise UserError(f"{path}, line {number} is no JSON: {error}.", "Write one JSON value a line.") from None


def _prompt(path: Path, number: int, value: Any) -> str:
    text = value.get("prompt", value.get("text")) if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise UserError(f"{path}, line {number}: no prompt.", 'Write a string, {"prompt": "…"} or {"text": "…"}.')
    return text


def _conversation(path: Path, number: int, value: Any) -> str | list[dict[str, str]]:
    messages = value.get("messages") if isinstance(value, dict) else None
    if messages is None:
        return _prompt(path, number, value)
    known = isinstance(messages, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in messages
    )
    if not known:
        raise UserError(
            f"{path}, line {number}: no messages.", 'Write {"messages": [{"role": "user", "content": "…"}]}.'
        )
    return list(messages)
