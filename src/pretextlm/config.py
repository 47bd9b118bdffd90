"""Typed, strict configuration: TOML in, frozen objects out, every fault named with its place and a hint."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from pretextlm.errors import UserError, did_you_mean

MAX_CONFIG_BYTES = 1 << 20


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, no silent conversion, no nan or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from plain values. Raises UserError that names the first faulty key and the nearest known one."""
        try:
            return cls.model_validate(_tuples(dict(values)))
        except ValidationError as error:
            raise _explain(error, cls, where) from None


def _tuples(value: Any) -> Any:
    """TOML has arrays only; our fields are tuples, which strict mode does not make from lists."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value


def _explain(error: ValidationError, cls: type[BaseModel], where: str) -> UserError:
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    key = ".".join(path) or "(top level)"
    place = f" in {where}" if where else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        return UserError(f"Unknown key {key!r}{place}.", did_you_mean(path[-1], known))
    if first["type"] == "missing":
        return UserError(f"Missing key {key!r}{place}.", f"Add a line such as: {path[-1]} = …")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return UserError(
        f"Wrong value for {key!r}{place}: {message}.",
        f"It is {json.dumps(first['input'], default=str)[:80]}.",
    )


def _fields_at(cls: type[BaseModel], path: Iterable[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # a place in an array of tables, whose fields are known already
            continue
        field = cls.model_fields.get(part)
        inner = field.annotation if field else None
        if get_origin(inner) is tuple:
            inner = get_args(inner)[0]
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        cls = inner
    return list(cls.model_fields)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values. Raises UserError for a missing, oversized, undecodable or malformed file."""
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise UserError(f"{path} is {size:,} bytes: too large for a configuration.", "Give a TOML recipe.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error) or "nested too deeply"
        raise UserError(f"Cannot read {path}: {reason}.", "Give the path of a TOML file in UTF-8.") from None


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`training.learning_rate=1e-3` on top of a recipe. Values are TOML; a bare word is taken as a string."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()):
            raise UserError(f"Cannot read the override {override!r}.", "Write it as section.key=value.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        *sections, last = key.strip().split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise UserError(f"{section!r} in the override {override!r} is a value, not a table.")
        table[last] = value
    return values


def write_toml(values: Mapping[str, Any]) -> str:
    """Plain values as TOML: scalars and arrays first, then one table per nested mapping. None is left out."""
    return "\n".join(_toml_lines(values, "")).strip() + "\n"


def _toml_lines(values: Mapping[str, Any], prefix: str) -> list[str]:
    scalars = {k: v for k, v in values.items() if v is not None and not isinstance(v, Mapping)}
    tables = {k: v for k, v in values.items() if isinstance(v, Mapping)}
    lines = [f"{_toml_key(k)} = {_toml_value(v)}" for k, v in scalars.items()]
    for key, table in tables.items():
        name = f"{prefix}{_toml_key(key)}"
        lines += ["", f"[{name}]", *_toml_lines(table, f"{name}.")]
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
