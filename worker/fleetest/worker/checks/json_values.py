"""JSON values: read from text, compared, named and shown."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from fleetest.common.suite.tree import WrittenFloat, WrittenInt

__all__ = ["ABSENT", "named", "read_json", "same", "shown", "text_of", "type_of"]


# `bool` is an `int` to Python.
_TYPES: Final = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"))


class _Absent:
    """What a path finds where there is nothing; `null` is a value."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = _Absent()


def read_json(text: str) -> Any:
    """
    Read JSON as RFC 8259 has it.

    Raises:
        ValueError: it is none; says where it stops being some.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} in line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: `1` and `1.0` are, `1` and `true` are not."""
    match one, other:
        case (dict(), dict()):
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case (list(), list()):
            return len(one) == len(other) and all(map(same, one, other))
        case _:
            return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def type_of(value: Any) -> str:
    """The JSON Schema's name of its type; a whole number is an `integer`."""
    if value is ABSENT:
        return "nothing"
    if value is None:
        return "null"
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "object")


def named(value: Any) -> str:
    """A value as an error message names it: `text 'abc'`, `a list`."""
    match value:
        case str():
            return f"text '{value[:60]}'"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return "nothing" if value is None else text_of(value)[:60]


def text_of(value: Any) -> str:
    """A value as a part of a text: as it was written, where somebody wrote it."""
    match value:
        case str():
            return value
        case WrittenInt() | WrittenFloat():
            return value.text
        case _:
            return json.dumps(value, ensure_ascii=False)


def shown(value: Any, *, indent: int | None = None) -> str:
    """A value for people."""
    if value is ABSENT:
        return "nothing"
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
