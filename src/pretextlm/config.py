"""Typed, strict configuration: constructed in Python or read from TOML, by the same rules and with the same errors."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from pretextlm.errors import UserError, did_you_mean
from pretextlm.names import one_directory
from pretextlm.plain_files import read_text

MAX_CONFIG_BYTES = 1 << 20
MAX_PATH_BYTES = 4096
MAX_DEPTH = 32
"""Levels of tables and arrays in a configuration."""
WHERE = "where"
"""Key of the validation context: the file or the object that the values come from, for error messages."""


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _possible_path(path: str) -> str:
    if "\0" in path or any("\ud800" <= letter <= "\udfff" for letter in path):
        raise ValueError("a path is UTF-8 and has no NUL character")
    if len(path.encode()) >= MAX_PATH_BYTES:
        raise ValueError(f"a path has less than {MAX_PATH_BYTES:,} bytes")
    return path


PathText = Annotated[str, BeforeValidator(_as_text), AfterValidator(_possible_path)]
"""A path as text, so that it can be written to TOML; a `Path`, a `Store` or a `Run` is accepted as well."""


DirectoryName = Annotated[str, AfterValidator(one_directory)]
"""A name that becomes a directory."""


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, no silent conversion, no nan or infinity.

    The constructor and :meth:`parse` validate alike, and both raise :class:`UserError`, never pydantic's own error.

    Attributes:
        section: table of a recipe that the class describes ("training"), so that the constructor names a wrong value
            as a file would ("training.learning_rate"); "" for other classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    section: ClassVar[str] = ""

    if not TYPE_CHECKING:  # type checkers and editors are to see the fields as keyword arguments

        def __init__(self, /, **values: Any) -> None:
            __tracebackhide__ = True
            cls = type(self)
            where = cls.described_as()
            try:
                self.__pydantic_validator__.validate_python(_tuples(values), self_instance=self, context={WHERE: where})
            except ValidationError as error:
                raise _explain(error, cls, where, cls.section) from None

        # Tells pydantic that a nested configuration needs no call of this constructor: its errors are then reported
        # by the outermost one, with the full path of the key.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def described_as(cls) -> str:
        """Returns how error messages of the constructor name the object."""
        return "the recipe" if cls.section else cls.__name__

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from plain values, such as a table of a TOML file.

        Args:
            values: field names and values; lists are accepted for tuples.
            where: the file or object that the values come from, for error messages.

        Raises:
            UserError: a key is unknown or missing, or a value is wrong; the first faulty key is named.
        """
        try:
            return cls.model_validate(_tuples(dict(values)), context={WHERE: where} if where else None)
        except ValidationError as error:
            raise _explain(error, cls, where) from None


def _tuples(value: Any) -> Any:
    """Lists as tuples, at every depth: TOML has arrays only, and strict mode does not accept a list for a tuple."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value


def _explain(error: ValidationError, cls: type[BaseModel], where: str, section: str = "") -> UserError:
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    key = ".".join([section, *path] if section else path)
    place = f" in {where}" if where else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        return UserError(f"Unknown key {key!r}{place}.", did_you_mean(path[-1], known))
    if first["type"] == "missing":
        return UserError(f"Missing key {key!r}{place}.", f"Add a line such as: {path[-1]} = …")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    value = first["input"]
    table = isinstance(value, Mapping | BaseModel)  # a rule about several fields: the message names them
    return UserError(
        f"Wrong {f'value for {key!r}' if key else 'settings'}{place}: {message}.",
        "Change one of the values that it names." if table else f"It is {json.dumps(value, default=str)[:80]}.",
    )


def _fields_at(cls: type[BaseModel], path: Iterable[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # an index into an array of tables, whose fields are known already
            continue
        field = cls.model_fields.get(part)
        inner = _table_class(field.annotation) if field else None
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)


def _table_class(annotation: Any) -> type[BaseModel] | None:
    """Returns the configuration class in an annotation: X itself, or the one in `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and get_origin(annotation) is None:
        return annotation
    return next((found for inner in get_args(annotation) if (found := _table_class(inner))), None)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain values.

    Raises:
        UserError: the file is missing, too large, not UTF-8 or not TOML.
    """
    try:
        return parse_toml(read_text(path, MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"Cannot read {path}: {reason}.", "Give the path of a TOML file in UTF-8.") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Returns the tables of a TOML text.

    Raises:
        ValueError: it is not TOML (a `tomllib.TOMLDecodeError`), is nested deeper than MAX_DEPTH, or holds an integer
            of thousands of digits.
    """
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # int()'s own, which speaks of an interpreter's settings
        raise ValueError("a number has thousands of digits") from None
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
    if level:
        raise ValueError("nested too deeply")
    return values


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set `section.key=value` in tables, which are changed in place and returned.

    Args:
        values: tables of a TOML file.
        overrides: such as "training.learning_rate=1e-3"; the value is TOML, and a bare word is a string.

    Raises:
        UserError: an override is not of that form, or goes through a key that is not a table.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        is_key = re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()) and key.count(".") < MAX_DEPTH
        if not equals or not is_key:
            raise UserError(f"Cannot read the override {override[:200]!r}.", "Write it as section.key=value.")
        try:
            value = parse_toml(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        except ValueError as error:
            raise UserError(f"Cannot read the value of {key.strip()!r}: {error}.", "Give a plain value.") from None
        *sections, last = key.strip().split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise UserError(f"{section!r} in the override {override!r} is a value, not a table.")
        table[last] = value
    return values


def write_toml(values: Mapping[str, Any]) -> str:
    """Returns plain values as TOML: scalars and arrays first, then one table per mapping. None is left out."""
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
