"""TOML configurations: read, inherited, overridden and checked.

A variant is a difference: ``extends = "slim.toml"`` at the top of a file (relative to it)
starts from that file, tables are merged key by key, lists and values are replaced. Order of
precedence: the component's defaults < TOML < command line (``section.key=value``).
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from stillspeak.errors import ConfigError

T = TypeVar("T")
Table = dict[str, Any]

Share = Annotated[float, Field(ge=0, le=1)]
"""A share or a probability."""

BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A decay, a momentum or a dropout."""

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)

LARGEST = 2**20
"""Bytes of a configuration file."""

DEEPEST = 16
"""Tables inside each other, as in ``a.b.c = 1``."""


def read_toml(path: str | Path, _seen: tuple[Path, ...] = ()) -> Table:
    """Read a configuration file with everything that it extends.

    Raises:
        ConfigError: the file is missing, is not TOML, or extends itself.
    """
    path = Path(path)
    try:
        path = path.resolve()
        if path in _seen:
            raise ConfigError(f"{path.name}: extends itself through {_seen[-1].name}")
        # A device or a pipe, which extends may name as well, may have no end.
        if path.exists() and not path.is_dir() and not path.is_file():
            raise ConfigError(f"{path}: not a file; name a TOML file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"{path}: larger than {LARGEST >> 20} MiB; name a TOML file")
        table = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:  # not UTF-8, not TOML, a number too long, a name that is none
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
    if _depth(table) > DEEPEST:
        raise ConfigError(f"{path}: not a configuration: nested too deeply")
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends must name one TOML file")
    return merge(read_toml(path.parent / parent, (*_seen, path)), table)


def _depth(value: Any) -> int:
    """How many tables and lists lie inside each other."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [w for v in level for w in (v.values() if isinstance(v, dict) else v)]
    return depth


def merge(base: Mapping[str, Any], difference: Mapping[str, Any]) -> Table:
    """Lay a difference over a base: tables key by key, anything else replaced."""
    merged = dict(base)
    for key, value in difference.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def parse_overrides(overrides: Iterable[str]) -> Table:
    """``["training.batch=4"]`` -> ``{"training": {"batch": 4}}``. Values are TOML values.

    Raises:
        ConfigError: no ``=``, or an empty key.
    """
    table: Table = {}
    for item in overrides:
        key, separator, text = item.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise ConfigError(f"{item!r} is not of the form section.key=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text  # a bare word is a string, so that no shell quoting is needed
        nested: Table = {parts[-1]: value}
        for part in reversed(parts[:-1]):
            nested = {part: nested}
        if len(parts) > DEEPEST or _depth(value) > DEEPEST:
            raise ConfigError(f"{parts[0]}: not a setting: nested too deeply")
        table = merge(table, nested)
    return table


def build(kind: type[T], table: Mapping[str, Any], *, name: str) -> T:
    """Make a frozen configuration dataclass from a table.

    Args:
        kind: the dataclass; nested dataclasses become nested tables.
        table: plain values.
        name: what the error message calls the table's origin.

    Raises:
        ConfigError: which key of ``name`` is unknown or has a wrong value, and why.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{name}: not a table of keys and values")
    try:
        return cast("T", _adapter(kind).validate_python(dict(table)))
    except ValidationError as error:
        raise ConfigError(f"{name}: {_first(error)}") from error


_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


@dataclass_transform(frozen_default=True, field_specifiers=(Field, field))
def configuration(section: str = "") -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass whose values pydantic checks, wherever it is made.

    Ranges stand with the fields, ``Annotated[float, Field(ge=0)]``; what concerns several fields
    is checked in ``__post_init__``. A wrong value raises :class:`ConfigError`, whose message puts
    ``section`` before the field's name; an unknown or missing argument raises TypeError. Lists
    become tuples, whole numbers floats, where the field is one.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = dataclass(frozen=True, config=_CONFIG)(cls)
        check = made.__init__

        @functools.wraps(check)
        def init(self: T, *args: Any, **values: Any) -> None:
            try:
                check(self, *args, **values)
            except ValidationError as error:
                first = error.errors()[0]
                if first["type"].endswith("_argument") and len(first["loc"]) == 1:
                    raise TypeError(f"{cls.__name__}: {_first(error)}") from error
                prefix = f"{section}." if section else ""
                raise ConfigError(prefix + _first(error)) from error

        made.__init__ = init
        return made  # type: ignore[no-any-return]

    return decorate


def fields_of(kind: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a configuration: their types, defaults, ranges and descriptions."""
    return cast("dict[str, FieldInfo]", kind.__pydantic_fields__)


def range_of(field: FieldInfo) -> tuple[Any, Any]:
    """The least and the largest value of a field, None where there is no limit."""
    limits = {type(one).__name__: one for one in field.metadata}
    return getattr(limits.get("Ge"), "ge", None), getattr(limits.get("Le"), "le", None)


_REASONS = {
    "unexpected_keyword_argument": "no such setting",
    "missing": "is missing",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be greater than {gt}",
    "less_than": "must be less than {lt}",
    "finite_number": "must be a finite number",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "dataclass_type": "must be a table of keys and values",
}
"""What is wrong, by pydantic's name for it or that name's first word."""


def _first(error: ValidationError) -> str:
    """The first thing that is wrong: its key, and why."""
    key = ".".join(str(part) for part in error.errors()[0]["loc"]) or "(top)"
    return f"{key}: {first_mistake(error)}"


def first_mistake(error: ValidationError) -> str:
    """Why the first value that is wrong is wrong, such as ``must be at least 0, not -1``."""
    first = error.errors()[0]
    known = _REASONS.get(first["type"]) or _REASONS.get(first["type"].split("_")[0])
    limits = first.get("ctx", {}).items()
    reason = first["msg"].replace("Input should be", "must be", 1)
    if known is not None:
        reason = known.format_map({k: f"{v:g}" if type(v) is float else v for k, v in limits})
    given = first["input"]
    if "must be" in reason and isinstance(given, bool | int | float | str):
        reason += f", not {given!r}" if isinstance(given, str) else f", not {given}"
    return reason


def read_json(text: str | bytes) -> Any:
    """``json.loads`` that says of every bad text that it is one.

    Raises:
        ValueError: not JSON, not UTF-8, a number with thousands of digits, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def to_table(config: Any) -> Table:
    """The plain values of a configuration, fit for JSON; the inverse of :func:`build`."""
    return cast("Table", json.loads(json.dumps(asdict(config))))
