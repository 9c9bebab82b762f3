"""
From the tasks that a user wrote to one draft for each task that will run.

A draft is still a tree with places: its matrix is expanded, its defaults are filled in, and its type is known. What
stands in it has not been checked yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fleetest.common.kinds.kind import Kind
from fleetest.common.limits import MAX_TASKS
from fleetest.common.suite.completion import completed
from fleetest.common.suite.document import MAX_WEIGHT
from fleetest.common.suite.fields import NAME_PATTERN, describe
from fleetest.common.suite.matrix import Combination, combinations, expanded_name
from fleetest.common.suite.placeholders import settled, substitute
from fleetest.common.suite.problems import Findings, Place
from fleetest.common.suite.tree import Entry, Node, mapping, plain, without

__all__ = ["Draft", "read_drafts"]

_EMPTY: Final = mapping(Place(), {})
_ONCE: Final[Sequence[Combination]] = ({},)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    A task to be.

    Args:
        name: matrix values included.
        written_name: the key in the file.
        node: all its keys but `matrix`, `needs` and `inputs`, as far as their values are known; `None` when the file
            has no mapping there.
        needs: what stands under `needs`.
        inputs: what stands under `inputs`.
        kind: of test; `None` when nothing tells it.
    """

    name: str
    written_name: str
    node: Node | None
    needs: Node | None = None
    inputs: Node | None = None
    kind: Kind | None = None


def read_drafts(root: Node, findings: Findings) -> list[Draft]:
    """All tasks of a suite, in the order of the file and of their matrices."""
    drafting = _Drafting(defaults=root.get("defaults") or _EMPTY, findings=findings)
    tasks = root.get("tasks")
    if tasks and isinstance(tasks.content, dict) and not tasks.content:
        findings.add(tasks.place, "tasks: must not be empty", "A suite has at least one task.")
    for name, entry in tasks.entries.items() if tasks else ():
        drafting.add(name, entry)
    return drafting.drafts


@dataclass(slots=True)
class _Drafting:
    defaults: Node
    findings: Findings
    drafts: list[Draft] = field(default_factory=list)
    weight: int = 0
    full: bool = False

    def add(self, name: str, written: Entry) -> None:
        if not re.fullmatch(NAME_PATTERN, name):
            hint = "Letters, digits and _ . - make one; it begins with none of . and -."
            self.findings.add(written.key, f"'{name[:60]}' is not a name of a task", hint)
        if not isinstance(written.value.content, dict):
            what = describe(plain(written.value))
            self.findings.add(written.key, f"{name[:60]}: must be a mapping, not {what}", "As in {args: [tests]}.")
            self.drafts.append(Draft(name=name, written_name=name, node=None))
            return
        own, defaults = without(written.value, "matrix"), without(self.defaults, "matrix", "needs", "inputs")
        matrix = written.value.get("matrix") or self.defaults.get("matrix")
        found = combinations(matrix, self.findings) if matrix else _ONCE
        if not self._has_room(written.key, len(found or _ONCE), own.weight + defaults.weight):
            self.drafts.append(Draft(name=name, written_name=name, node=None))
            return
        if found is None:
            self._add_one(name, name, *completed(own, defaults, written.key, self.findings))
        for combination in found or ():
            mine = substitute(own, combination, self.findings)
            rest = substitute(defaults, combination, self.findings)
            self._add_one(name, expanded_name(name, combination), *completed(mine, rest, written.key, self.findings))

    def _has_room(self, name: Place, tasks: int, weight: int) -> bool:
        self.weight += tasks * weight
        too_many, too_heavy = len(self.drafts) + tasks > MAX_TASKS, self.weight > MAX_WEIGHT
        if (too_many or too_heavy) and not self.full:
            what = f"there are more than {MAX_TASKS} tasks" if too_many else "the suite becomes too large"
            self.findings.add(name, f"with this task, {what}", "Split the suite.")
            self.full = True
        return not self.full

    def _add_one(self, written_name: str, name: str, node: Node, kind: Kind | None) -> None:
        node = settled(node)
        own, needs, inputs = without(node, "needs", "inputs"), node.get("needs"), node.get("inputs")
        self.drafts.append(Draft(name=name, written_name=written_name, node=own, needs=needs, inputs=inputs, kind=kind))
