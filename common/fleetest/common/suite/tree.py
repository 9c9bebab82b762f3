"""A document as a tree that remembers where everything stands, and how numbers were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetest.common.suite.problems import Place

__all__ = [
    "Entry",
    "Node",
    "Scalar",
    "WrittenFloat",
    "WrittenInt",
    "mapping",
    "plain",
    "scalar",
    "sequence",
    "without",
]

_NODE_WEIGHT: Final = 8


class WrittenInt(int):
    """A whole number, with the text it was written as."""

    text: str


class WrittenFloat(float):
    """A number, with the text it was written as: a matrix over `3.10` means that, not `3.1`."""

    text: str


Scalar = str | WrittenInt | WrittenFloat | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key's place, and its value."""

    key: Place
    value: Node


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """
    A value and its place. Keys of mappings are texts, as written.

    Args:
        weight: characters, and a fixed amount for each node below.
    """

    place: Place
    content: Scalar | tuple[Node, ...] | dict[str, Entry]
    weight: int

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Of a mapping; else empty."""
        return self.content if isinstance(self.content, dict) else {}

    @property
    def items(self) -> tuple[Node, ...]:
        """Of a list; else empty."""
        return self.content if isinstance(self.content, tuple) else ()

    @property
    def text(self) -> str | None:
        """Of a scalar, as written; `None` for a null and for what is no scalar."""
        match self.content:
            case bool():
                return str(self.content).lower()
            case WrittenInt() | WrittenFloat():
                return self.content.text
            case str():
                return self.content
            case _:
                return None

    def get(self, *path: str) -> Node | None:
        """The value under these keys; `None` when there is none."""
        node: Node | None = self
        for key in path:
            entry = node.entries.get(key) if node else None
            node = entry.value if entry else None
        return node


def scalar(place: Place, content: Scalar) -> Node:
    """A node for a scalar."""
    weight = _NODE_WEIGHT + (len(content) if isinstance(content, str) else 0)
    return Node(place=place, content=content, weight=weight)


def sequence(place: Place, items: Sequence[Node]) -> Node:
    """A node for a list."""
    return Node(place=place, content=tuple(items), weight=_NODE_WEIGHT + sum(item.weight for item in items))


def mapping(place: Place, entries: Mapping[str, Entry]) -> Node:
    """A node for a mapping."""
    weight = sum(_NODE_WEIGHT + len(key) + entry.value.weight for key, entry in entries.items())
    return Node(place=place, content=dict(entries), weight=_NODE_WEIGHT + weight)


def without(node: Node, *keys: str) -> Node:
    """The same mapping, less these keys."""
    return mapping(node.place, {key: entry for key, entry in node.entries.items() if key not in keys})


def plain(node: Node) -> Any:
    """The tree as lists, dictionaries and scalars."""
    match node.content:
        case tuple():
            return [plain(item) for item in node.content]
        case dict():
            return {key: plain(entry.value) for key, entry in node.content.items()}
        case _:
            return node.content
