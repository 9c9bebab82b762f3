"""`matrix`: one task for every combination of values."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fleetest.common.limits import MAX_TASKS
from fleetest.common.suite.model import MatrixModel
from fleetest.common.suite.problems import Findings, Hint, Place, closest
from fleetest.common.suite.tree import Node
from fleetest.common.suite.validation import validated

__all__ = ["Combination", "combinations", "expanded_name"]

Combination = Mapping[str, Node]
"""A value for each axis, in the order of the axes."""

_Axes = Mapping[str, Sequence[Node]]
_Finding = tuple[Place, str, Hint]

_AXIS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_EXCLUDE: Final = "exclude"
_INCLUDE: Final = "include"


def combinations(matrix: Node, findings: Findings) -> list[Combination] | None:
    """
    All combinations, in the order of the axes' values, those of `include` last.

    `None` when the matrix is wrong, and then `findings` says why. A matrix without axes has one combination: the
    empty one.
    """
    if validated(MatrixModel, matrix, findings, subject="matrix") is None:
        return None
    axes = _axes_of(matrix)
    if math.prod(len(values) for values in axes.values()) > MAX_TASKS:
        findings.add(matrix.place, f"this matrix makes more than {MAX_TASKS} tasks", "A suite has no more than that.")
        return None
    wrong = [*_wrong_axes(matrix, axes), *_wrong_entries(matrix, axes)]
    found: list[Combination] = []
    if not wrong:
        product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        found = [*_not_excluded(matrix, product), *_included(matrix)]
        wrong = [*_wrong_results(matrix, product, found)]
    for finding in wrong:
        findings.add(*finding)
    return None if wrong else found


def expanded_name(task: str, combination: Combination) -> str:
    """`unit[python=3.12,os=linux]`; just the task's name for the empty combination."""
    values = ",".join(f"{axis}={value.text}" for axis, value in combination.items())
    return f"{task}[{values}]" if values else task


def _axes_of(matrix: Node) -> _Axes:
    axes = {axis: entry.value.items for axis, entry in matrix.entries.items() if axis not in {_EXCLUDE, _INCLUDE}}
    included = _entries_under(matrix, _INCLUDE)
    return axes or (dict.fromkeys(included[0].entries, ()) if included else {})


def _entries_under(matrix: Node, key: str) -> Sequence[Node]:
    node = matrix.get(key)
    return node.items if node else ()


def _wrong_axes(matrix: Node, axes: _Axes) -> Iterator[_Finding]:
    for axis, values in axes.items():
        if not _AXIS.fullmatch(axis):
            place = matrix.entries[axis].key if axis in matrix.entries else matrix.place
            yield place, f"'{axis[:60]}' is not a name of a matrix axis", "Letters, digits and _ make one."
        seen: set[str | None] = set()
        for value in values:
            if value.text in seen:
                yield value.place, f"value '{value.text}' is twice on axis '{axis}'", "Take one out."
            seen.add(value.text)


def _wrong_entries(matrix: Node, axes: _Axes) -> Iterator[_Finding]:
    for entry in (*_entries_under(matrix, _EXCLUDE), *_entries_under(matrix, _INCLUDE)):
        for axis, named in entry.entries.items():
            if axis not in axes:
                yield named.key, f"no matrix axis '{axis[:60]}' here", closest(axis, axes)
    for entry in _entries_under(matrix, _INCLUDE):
        if missing := [axis for axis in axes if axis not in entry.entries]:
            yield entry.place, f"this entry has no value for axis '{missing[0]}'", "It needs one for every axis."


def _wrong_results(matrix: Node, product: Sequence[Combination], found: Sequence[Combination]) -> Iterator[_Finding]:
    for entry in _entries_under(matrix, _EXCLUDE):
        if not any(_matches(entry, combination) for combination in product):
            yield entry.place, "this entry excludes nothing", "No combination has these values."
    names = [expanded_name("", combination) for combination in found]
    included = _entries_under(matrix, _INCLUDE)
    for number, entry in enumerate(included, start=len(found) - len(included)):
        if names[number] in names[:number]:
            yield entry.place, "this combination is in the matrix already", "Take it out."
    if not found:
        yield matrix.place, "this matrix leaves no combination", ""


def _matches(entry: Node, combination: Combination) -> bool:
    return all(combination[axis].text == named.value.text for axis, named in entry.entries.items())


def _not_excluded(matrix: Node, product: Sequence[Combination]) -> Iterator[Combination]:
    excluded = _entries_under(matrix, _EXCLUDE)
    return (combination for combination in product if not any(_matches(entry, combination) for entry in excluded))


def _included(matrix: Node) -> Iterator[Combination]:
    axes = _axes_of(matrix)
    return ({axis: entry.entries[axis].value for axis in axes} for entry in _entries_under(matrix, _INCLUDE))
