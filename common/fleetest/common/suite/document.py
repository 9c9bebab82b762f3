"""
YAML text to a tree.

What is read is the core schema of YAML 1.2: `yes`, `on`, dates and `1:30` are texts; `true` and `3.10` are not, but
remember how they were written. Anchors, aliases and merge keys (`<<`) work; tags do not. A tree is bounded in depth
and, aliases counted as often as they are used, in weight, so that a small text cannot become a huge suite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from fleetest.common.limits import MAX_SUITE_BYTES
from fleetest.common.suite.problems import Findings, Place
from fleetest.common.suite.tree import Entry, Node, Scalar, WrittenFloat, WrittenInt, mapping, scalar, sequence

__all__ = ["MAX_WEIGHT", "SUITE", "DocumentKind", "read_document"]

MAX_WEIGHT: Final = 8 * MAX_SUITE_BYTES
"""The heaviest tree, before and after expansion; see `Node.weight`."""

_MAX_DEPTH: Final = 20
_TOO_DEEP: Final = f"nested more than {_MAX_DEPTH} levels deep"
# The parser looks ahead, and has a bound of its own, far above ours.
_LIBYAML_TOO_DEEP: Final = "exceeded maximum nesting depth"

# libyaml reads a suite of the largest size in half a second; the parser written in Python takes a while.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# https://yaml.org/spec/1.2.2/#51-character-set, without the byte order mark, which may only come first.
_UNPRINTABLE: Final = re.compile(
    "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

# https://yaml.org/spec/1.2.2/#1032-tag-resolution; a whole number of more digits than any key takes becomes a float.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentKind:
    """
    How messages speak of a document.

    Args:
        name: what it is: `suite`.
        beginning: what one begins with, as a hint.
    """

    name: str
    beginning: str


SUITE: Final = DocumentKind(name="suite", beginning="Begin with the lines `version: 1` and `name:`.")


class _Mark(Protocol):
    """A place as the parsers give it, from 0; libyaml's and Python's have no common class."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


def read_document(text: str, findings: Findings, kind: DocumentKind = SUITE) -> Node:
    """
    Read the one mapping that a file holds. Duplicate keys go to `findings`; the first of them counts.

    Raises:
        SuiteInvalid: it cannot be read at all.
    """
    text = text.removeprefix("\ufeff")
    _check_characters(text, findings, kind)
    try:
        return _Reader(yaml.parse(text, Loader=_LOADER), findings, kind).read()
    except yaml.MarkedYAMLError as error:
        if error.problem == _LIBYAML_TOO_DEEP:
            findings.add(_place_of_error(error), _TOO_DEEP, f"No {kind.name} needs that.")
            raise findings.error() from error
        findings.add(_place_of_error(error), f"not valid YAML: {error.problem}", _hint_for(error, text))
    raise findings.error()


def _check_characters(text: str, findings: Findings, kind: DocumentKind) -> None:
    if len(text) > MAX_SUITE_BYTES or len(text.encode(errors="surrogatepass")) > MAX_SUITE_BYTES:
        hint = f"Split it into several {kind.name}s."
        findings.add(Place(), f"the {kind.name} is larger than {MAX_SUITE_BYTES} bytes", hint)
    elif match := _UNPRINTABLE.search(text):
        before = text[: match.start()]
        place = Place(line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))
        hint = "Save the file as UTF-8 text; inside double quotes such a character is written as \\xNN."
        findings.add(place, f"character U+{ord(match[0]):04X} cannot stand in YAML", hint)
    findings.raise_if_any()


def _place_of_error(error: yaml.MarkedYAMLError) -> Place:
    # A key without its colon is noticed one line too late.
    late = error.context == "while scanning a simple key"
    return _place(error.context_mark if late else error.problem_mark)


def _place(mark: _Mark | None) -> Place:
    return Place(line=mark.line + 1, column=mark.column + 1) if mark else Place()


def _hint_for(error: yaml.MarkedYAMLError, text: str) -> str:
    line = text.split("\n")[error.problem_mark.line :][:1] if error.problem_mark else []
    if line and "\t" in line[0][: len(line[0]) - len(line[0].lstrip())]:
        return "YAML is indented with spaces; this line begins with a tab."
    if error.problem and "mapping values are not allowed" in error.problem:
        return "A text that contains ': ' needs quotes; or the line is indented too far."
    if error.problem and "cannot start any token" in error.problem:
        return "A text that begins with this character needs quotes."
    if error.problem and "Unicode character escape" in error.problem:
        return "Write the character itself; YAML has no surrogate pairs, unlike JSON."
    context = _place(error.context_mark)
    return f"This happened {error.context} that begins in line {context.line}." if error.context else ""


class _Reader:
    """Builds the tree from the parser's events, by recursive descent; depth and weight are checked on the way."""

    def __init__(self, events: Iterator[Event], findings: Findings, kind: DocumentKind) -> None:
        self._events = events
        self._findings = findings
        self._kind = kind
        self._anchors: dict[str, Node] = {}

    def read(self) -> Node:
        next(self._events)
        name, beginning = self._kind.name, self._kind.beginning
        if not isinstance(next(self._events), DocumentStartEvent):
            self._refuse(Place(line=1, column=1), f"the {name} is empty", beginning)
        root = self._node(next(self._events), depth=0)
        next(self._events)
        if isinstance(following := next(self._events), DocumentStartEvent):
            self._refuse(_place(following.start_mark), "a second document begins here", f"A {name} is one document.")
        if root.content is None:
            self._refuse(root.place, f"the {name} is empty", beginning)
        if not isinstance(root.content, dict):
            self._refuse(root.place, f"a {name} is a mapping", beginning)
        return root

    def _refuse(self, place: Place, message: str, hint: str) -> NoReturn:
        self._findings.add(place, message, hint)
        raise self._findings.error()

    def _node(self, event: Event, depth: int) -> Node:
        assert isinstance(event, NodeEvent)
        place = _place(event.start_mark)
        if isinstance(event, AliasEvent):
            return self._aliased(event, place)
        self._check_tag(event, place)
        if depth > _MAX_DEPTH:
            self._refuse(place, _TOO_DEEP, f"No {self._kind.name} needs that.")
        if isinstance(event, ScalarEvent):
            node = scalar(place, _resolve(event.value) if not event.style else event.value)
        elif isinstance(event, MappingStartEvent):
            node = self._mapping(place, depth)
        else:
            node = sequence(place, list(self._items(depth)))
        if node.weight > MAX_WEIGHT:
            self._refuse(place, "this becomes too large", f"Repeat less by aliases, or split the {self._kind.name}.")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, event: AliasEvent, place: Place) -> Node:
        if event.anchor not in self._anchors:
            self._refuse(place, f"no anchor '&{event.anchor}' before this alias", "Quote a text that begins with '*'.")
        return self._anchors[event.anchor]

    def _check_tag(self, event: NodeEvent, place: Place) -> None:
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        if event.tag is not None:
            hint = "Take it out; quotes make a value a text."
            self._findings.add(place, f"tag '{event.tag}' is not used in a {self._kind.name}", hint)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, place: Place, depth: int) -> Node:
        entries: dict[str, Entry] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if key.content == "<<":
                merged += value.items or [value]
            else:
                self._add_entry(entries, key, value)
        for node in merged:
            if not isinstance(node.content, dict):
                self._findings.add(node.place, "'<<' merges mappings only")
            entries = {**node.entries, **entries}
        return mapping(place, entries)

    def _add_entry(self, entries: dict[str, Entry], key: Node, value: Node) -> None:
        if isinstance(key.content, dict | tuple):
            self._findings.add(key.place, "a key must be a text", "Quote it, if brackets or braces are part of it.")
            return
        name = key.text or ""
        if name in entries:
            hint = f"It stands in line {entries[name].key.line} already."
            self._findings.add(key.place, f"key '{name}' is given twice", hint)
            return
        entries[name] = Entry(key=key.place, value=value)


def _resolve(text: str) -> Scalar:
    """The value of a scalar without quotes."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        number = WrittenInt(text, 0 if text[:2] in {"0o", "0x"} else 10)
        number.text = text
        return number
    if _FLOAT.fullmatch(text):
        fraction = WrittenFloat(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        fraction.text = text
        return fraction
    return text
