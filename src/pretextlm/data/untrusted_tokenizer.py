"""Limits of a tokenizer.json that anybody may have written, checked before the library builds anything of it.

The library trusts the file: 10⁵ templates take gigabytes, a chain of replacements that each double a text never ends,
and two tokens of one id are written as another tokenizer than was read. The limits are far above those of any published
one. What can only be seen at work (patterns, damaged tables) is tried out by `tokenizer_probe`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_VALUES = 5_000_000
"""Values in the file: a vocabulary of a million tokens with as many merges has about this many."""
MAX_ADDED = 100_000
MAX_STEPS = 100
"""Components (normalizers, pre-tokenizers, …) of a tokenizer."""
MAX_PIECES = 1000
"""Entries of one list or table in a component: the pieces and special tokens of a template, the parts of a sequence."""
MAX_PATTERN = 1 << 18
MAX_GROWTH = 64
"""By how many times all replacements together may lengthen a text."""
SPARSE = 1000
"""Ids may have gaps, but not more of them than tokens, and this many."""
MAX_WORD = 1000
"""Longer words become unknown: WordPiece tokenizers take time cubic in the length of a word."""
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")

HINT = "Fetch it again, or train one on the corpus: --tokenizer bpe, wordpiece, unigram or character."


def check_tokenizer_json(text: str, where: str) -> None:
    """Checks the content of a tokenizer.json.

    Args:
        text: the content.
        where: names the file in an error.

    Raises:
        UserError: it is no sound JSON, exceeds a limit, has two tokens with one id, or encodes at random.
    """
    try:
        _check(_parsed(text))
    except RecursionError:
        raise UserError(f"{where} is not a tokenizer.json: nested too deeply.", HINT) from None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        reason = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where} is not a tokenizer.json: {str(reason)[:200]}.", HINT) from None


def build(text: str) -> Tokenizer:
    """Returns the tokenizer of a tokenizer.json, which reads the text of a special token as text.

    Raises:
        BaseException: whatever the library raises; its panics are no Exception.
    """
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, models.WordPiece) and tokenizer.model.max_input_chars_per_word > MAX_WORD:
        tokenizer.model.max_input_chars_per_word = MAX_WORD
    return tokenizer


def _parsed(text: str) -> dict[str, Any]:
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values")
    if text.count('"content"') > MAX_ADDED:
        raise ValueError(f"it adds more than {MAX_ADDED:,} tokens")
    values = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice")
    return values


def _check(values: Mapping[str, Any]) -> None:
    model = values["model"]
    _check_ids(model.get("vocab"), values.get("added_tokens") or [])
    if model.get("dropout"):
        raise ValueError(
            f"it encodes at random (BPE dropout {model['dropout']}), so that no two encodings of a text are equal; "
            'write "dropout": null'
        )
    steps = [step for section in SECTIONS for step in _steps(values.get(section))]
    if len(steps) > MAX_STEPS:
        raise ValueError(f"it has {len(steps):,} components, and at most {MAX_STEPS} are read")
    growth = 1.0
    for step in steps:
        _check_step(step)
        if step.get("type") == "Replace":
            growth *= _growth(step)
    if growth > MAX_GROWTH:
        raise ValueError(f"its replacements may lengthen a text {growth:,.0f} times; {MAX_GROWTH} times are read")


def _check_ids(vocab: Any, added: list[dict[str, Any]]) -> None:
    """Check that ids are unique and have few gaps. A Unigram vocabulary is a list, whose ids are the places in it."""
    ids = dict(zip((token for token, _ in vocab), range(len(vocab)), strict=True)) if isinstance(vocab, list) else vocab
    tokens = {index: token for token, index in ids.items()}
    if isinstance(vocab, dict) and len(tokens) != len(vocab):
        raise ValueError("two tokens have one id")
    for token in added:
        if tokens.setdefault(token["id"], token["content"]) != token["content"]:
            raise ValueError(f"two tokens have the id {token['id']}")
    if not all(type(index) is int for index in tokens):
        raise ValueError("an id is no integer")
    most = 2 * len(tokens) + SPARSE
    if tokens and not 0 <= min(tokens) <= max(tokens) < most:
        wrong = min(tokens) if min(tokens) < 0 else max(tokens)
        raise ValueError(f"the id {wrong} is outside of a vocabulary of {len(tokens):,} tokens")


def _steps(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the components within a section."""
    if isinstance(value, dict):
        if "type" in value:
            yield value
        for inner in value.values():
            yield from _steps(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _steps(inner)


def _check_step(step: Mapping[str, Any]) -> None:
    for name, value in step.items():
        inner = value.get("Regex", value.get("String", value)) if isinstance(value, dict) else value
        if name == "pattern" and isinstance(inner, str) and len(inner) > MAX_PATTERN:
            raise ValueError(f"a pattern has {len(inner):,} characters, and at most {MAX_PATTERN:,} are read")
        if isinstance(inner, list | dict) and len(inner) > MAX_PIECES:
            kind = step["type"]
            raise ValueError(f"{name!r} of {kind} has {len(inner):,} entries, and at most {MAX_PIECES:,} are read")
        if name == "special_tokens" and isinstance(value, dict):
            most = max((len(one["ids"]) for one in value.values() if isinstance(one, dict)), default=0)
            if most > MAX_PIECES:
                raise ValueError(f"a special token of a template has {most:,} ids")


def _growth(step: Mapping[str, Any]) -> float:
    """Returns by how many times a replacement can lengthen a text: a regular expression may match a character, and the
    empty text beside it.
    """
    pattern, content = step["pattern"], len(step["content"])
    plain = pattern.get("String")
    return max(1.0, content / max(1, len(plain)) if plain is not None else float(content))
