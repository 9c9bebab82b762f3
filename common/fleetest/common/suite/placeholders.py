"""`${matrix.python}` in the texts of a task: put the value there, or take the text out until it is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleetest.common.suite.problems import Findings, Place, closest
from fleetest.common.suite.tree import Entry, Node, mapping, scalar, sequence

__all__ = ["PLACEHOLDER", "settled", "substitute"]

PLACEHOLDER: Final = re.compile(r"\$\{matrix\.([^}]*)\}")


def substitute(node: Node, values: Mapping[str, Node], findings: Findings) -> Node:
    """
    The same tree with each placeholder replaced by its axis' value, in keys and texts; places stay.

    A text that is nothing but a placeholder becomes the value as it was written, so a number stays one.
    """
    match node.content:
        case tuple():
            return sequence(node.place, [substitute(item, values, findings) for item in node.content])
        case dict():
            entries = {
                _replaced(key, entry.key, values, findings): Entry(
                    key=entry.key, value=substitute(entry.value, values, findings)
                )
                for key, entry in node.content.items()
            }
            return mapping(node.place, entries)
        case str() if whole := PLACEHOLDER.fullmatch(node.content):
            if whole[1] in values:
                return replace(values[whole[1]], place=node.place)
            return scalar(node.place, _replaced(whole[0], node.place, values, findings))
        case str() if PLACEHOLDER.search(node.content):
            return scalar(node.place, _replaced(node.content, node.place, values, findings))
        case _:
            return node


def settled(node: Node) -> Node:
    """The same tree without the entries and items that still wait for a value, so that the rest can be checked."""
    match node.content:
        case tuple():
            return sequence(node.place, [settled(item) for item in node.content if not _waits(item)])
        case dict():
            entries = {
                key: Entry(key=entry.key, value=settled(entry.value))
                for key, entry in node.content.items()
                if not PLACEHOLDER.search(key) and not _waits(entry.value)
            }
            return mapping(node.place, entries)
        case _:
            return node


def _waits(node: Node) -> bool:
    return isinstance(node.content, str) and PLACEHOLDER.search(node.content) is not None


def _replaced(text: str, place: Place, values: Mapping[str, Node], findings: Findings) -> str:
    def value_of(match: re.Match[str]) -> str:
        if value := values.get(match[1]):
            return value.text or ""
        hint = closest(match[1], values) if values else "A task gets axes by its key `matrix`."
        findings.add(place, f"no matrix axis '{match[1][:60]}' here", hint)
        return match[0]

    return PLACEHOLDER.sub(value_of, text)
