"""
Reads JSON in pieces: those values of a document that are wanted, one after the other, and nothing else of it.

A wanted value is in memory as a whole, within a bound; what lies around it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, Final

import ijson

from fleetest.common.reports.ports import Unreadable

__all__ = ["EACH", "JsonPath", "JsonValue", "as_dict", "as_list", "as_text", "json_paths", "json_values"]

JsonPath = tuple[str, ...]
"""Of a value: the keys that lead to it, `EACH` for a place in a list."""

EACH: Final = "[]"

MAX_DEPTH: Final = 200
MAX_PARTS: Final = 500_000
"""Of a wanted value: numbers, texts, keys, and beginnings of objects and lists in it."""

MAX_CHARACTERS: Final = 16 << 20
"""Of a wanted value, all its texts together."""

MAX_UNBROKEN_BYTES: Final = 32 << 20
"""Of the document without a beginning or an end of anything: a single text, say."""

_STARTS: Final = frozenset({"start_map", "start_array"})
_ENDS: Final = frozenset({"end_map", "end_array"})

_Event = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class JsonValue:
    """
    Args:
        places: which item it is in, of each list on the way, from 0 on.
    """

    path: JsonPath
    places: tuple[int, ...]
    value: Any


def json_values(stream: BinaryIO, wanted: Callable[[JsonPath], bool]) -> Iterator[JsonValue]:
    """
    The values at the paths that are `wanted`, outermost ones whole, in the document's order.

    Raises:
        Unreadable: it is no JSON, or too deep, or a wanted value is too large.
    """
    walk = _Walk(stream)
    for path in walk:
        if wanted(path):
            places = tuple(walk.places)
            yield JsonValue(path, places, walk.take())


def json_paths(stream: BinaryIO) -> Iterator[JsonPath]:
    """
    The paths of all values, in the document's order.

    Raises:
        Unreadable: it is no JSON, or too deep.
    """
    return iter(_Walk(stream))


class _Walk:
    """
    Goes from value to value, into each unless it is taken.

    Attributes:
        places: which item it is in, of each list that is open.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._events = _events(stream)
        self._event: _Event = ("", None)
        self._taken = False
        self.places: list[int] = []

    def __iter__(self) -> Iterator[JsonPath]:
        steps: list[str] = []  # the key, or EACH, of every object and list that is open
        lists: list[bool] = []  # which of them are lists: a key may be spelt like EACH
        for event, value in self._events:
            if event == "map_key":
                steps[-1] = value
                continue
            if event in _ENDS:
                steps.pop()
                if lists.pop():
                    self.places.pop()
                continue
            if lists and lists[-1]:
                self.places[-1] += 1
            self._event, self._taken = (event, value), False
            yield tuple(steps)
            if event not in _STARTS or self._taken:
                continue
            if len(steps) >= MAX_DEPTH:
                raise Unreadable(f"nested deeper than {MAX_DEPTH}")
            lists.append(event == "start_array")
            steps.append(EACH if lists[-1] else "")
            if lists[-1]:
                self.places.append(-1)

    def take(self) -> Any:
        """The present value as a whole."""
        self._taken = True
        return _whole(*self._event, self._events)


def as_dict(value: Any) -> dict[str, Any]:
    """An object; nothing in place of anything else."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A list; nothing in place of anything else."""
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """A text, or a number or truth value as text; nothing in place of anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.12g}" if isinstance(value, float) else str(value) if isinstance(value, int) else ""


class _Metered:
    """A stream of which only so much is read without anything to be made of it: the parser keeps it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.unbroken_bytes = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self.unbroken_bytes += len(chunk)
        if self.unbroken_bytes > MAX_UNBROKEN_BYTES:
            raise Unreadable(f"a text is longer than {MAX_UNBROKEN_BYTES >> 20} MiB")
        return chunk


def _events(stream: BinaryIO) -> Iterator[_Event]:
    metered = _Metered(stream)
    try:
        for event in ijson.basic_parse(metered):
            metered.unbroken_bytes = 0
            yield event
    except ijson.JSONError as error:
        raise Unreadable(f"not JSON: {_first_line(error)}") from error
    except (ValueError, ArithmeticError) as error:  # bytes that are not UTF-8; numbers of thousands of digits
        raise Unreadable(f"not readable as JSON: {_first_line(error)}") from error


def _whole(event: str, value: Any, events: Iterator[_Event]) -> Any:
    """The value that begins with this event, the rest of its events taken from `events`."""
    if event not in _STARTS:
        return _plain(value)
    root: Any = {} if event == "start_map" else []
    open_values, keys = [root], [""]
    parts = characters = 0
    while open_values:
        event, value = next(events)
        if event in _ENDS:
            open_values.pop()
            keys.pop()
            continue
        parts += 1
        characters += len(value) if isinstance(value, str) else 0
        if parts > MAX_PARTS or characters > MAX_CHARACTERS:
            raise Unreadable(f"a single entry has more than {MAX_PARTS} parts, or {MAX_CHARACTERS >> 20} MiB of text")
        if event == "map_key":
            keys[-1] = value
            continue
        if len(open_values) >= MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH}")
        holder = open_values[-1]
        child = {} if event == "start_map" else [] if event == "start_array" else _plain(value)
        if isinstance(holder, dict):
            holder[keys[-1]] = child
        else:
            holder.append(child)
        if event in _STARTS:
            open_values.append(child)
            keys.append("")
    return root


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__
