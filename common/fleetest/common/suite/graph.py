"""Dependencies between the tasks of a suite: that each exists, and that they do not run in circles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fleetest.common.limits import MAX_NEEDS
from fleetest.common.suite.drafts import Draft
from fleetest.common.suite.model import NeedsModel
from fleetest.common.suite.problems import Findings, Place, closest
from fleetest.common.suite.tree import Node
from fleetest.common.suite.validation import validated
from fleetest.common.tasks import Need

__all__ = ["resolve_needs", "targets_of"]

_MAX_CYCLES: Final = 20
_MAX_NAMES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    need: Need
    place: Place


_Edges = Mapping[str, Mapping[str, _Edge]]
_Targets = Mapping[str, Sequence[str]]
_NOTHING: Final[Mapping[str, Mapping[str, Place]]] = MappingProxyType({})


def resolve_needs(
    drafts: Sequence[Draft], findings: Findings, implied: Mapping[str, Mapping[str, Place]] = _NOTHING
) -> Mapping[str, Sequence[Need]]:
    """
    What each draft needs, by its name; in the order in which it is written.

    The name of a task with a matrix means all the tasks that it became; the name of one of these, just that one.

    Args:
        implied: of a draft, by its name, whom it needs without saying how, and where that stands.
    """
    targets = targets_of(drafts)
    edges: dict[str, Mapping[str, _Edge]] = {draft.name: {} for draft in drafts}
    total = 0
    for draft in drafts:
        if draft.needs is None and draft.name not in implied:
            continue
        written = _edges_of(draft.needs, targets, findings) if draft.needs is not None else {}
        others = {task: _Edge(need=Need(task=task), place=at) for task, at in implied.get(draft.name, {}).items()}
        edges[draft.name] = {**written, **{task: edge for task, edge in others.items() if task not in written}}
        total += len(edges[draft.name])
        if total > MAX_NEEDS:
            place = next(iter(others.values())).place if draft.needs is None else draft.needs.place
            message = f"with these, the suite has more than {MAX_NEEDS} needs"
            findings.add(place, message, "Let one task stand between many and many.")
            return {}
    _report_cycles(edges, findings)
    return {name: [edge.need for edge in needed.values()] for name, needed in edges.items()}


def targets_of(drafts: Sequence[Draft]) -> _Targets:
    """The drafts that are meant by a name in the file."""
    targets: dict[str, list[str]] = {}
    for draft in drafts:
        targets.setdefault(draft.written_name, []).append(draft.name)
    return targets | {draft.name: [draft.name] for draft in drafts if draft.name != draft.written_name}


def _edges_of(needs: Node, targets: _Targets, findings: Findings) -> Mapping[str, _Edge]:
    model = validated(NeedsModel, needs, findings, subject="needs")
    places = {name: entry.key for name, entry in needs.entries.items()}
    places |= {item.text or "": item.place for item in reversed(needs.items)}
    edges: dict[str, _Edge] = {}
    for name, needed in model.root.items() if model else ():
        place = places.get(name, needs.place)
        if name not in targets:
            findings.add(place, f"no task is called '{name[:100]}'", closest(name, targets))
        for target in targets.get(name, ()):
            edge = _Edge(need=Need(task=target, when=needed.when), place=place)
            if edges.setdefault(target, edge).need != edge.need:
                findings.add(place, f"'{target}' is needed twice, and not in the same way", "Take one out.")
    return edges


def _report_cycles(edges: _Edges, findings: Findings) -> None:
    places: set[Place] = set()
    for cycle in _cycles(edges):
        steps = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        place, first = min((edges[task][needed].place, index) for index, (task, needed) in enumerate(steps))
        if place in places:
            continue  # the same line of a matrix, once more
        places.add(place)
        names = [*cycle[first:], *cycle[:first], cycle[first]]
        if len(names) > _MAX_NAMES:
            names[_MAX_NAMES - 1 : -1] = [f"… ({len(names) - _MAX_NAMES} more)"]
        what = "task needs itself" if len(cycle) == 1 else "tasks need one another in a circle"
        findings.add(place, f"{what}: {' → '.join(names)}", "Take one of these needs out.")
        if len(places) == _MAX_CYCLES:
            return


def _cycles(edges: _Edges) -> Iterator[Sequence[str]]:
    """At least one cycle of every group of tasks that need one another; each begins at a task of no cycle before."""
    done: set[str] = set()
    in_cycle: set[str] = set()
    for root in edges:
        path: dict[str, Iterator[str]] = {} if root in done else {root: iter(edges[root])}
        while path:
            task, remaining = next(reversed(path.items()))
            target = next(remaining, None)
            if target is None:
                del path[task]
                done.add(task)
            elif target not in path:
                if target not in done:
                    path[target] = iter(edges[target])
            elif target not in in_cycle:
                names = list(path)
                cycle = names[names.index(target) :]
                in_cycle.update(cycle)
                yield cycle
