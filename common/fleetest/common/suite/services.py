"""Services among the tasks of a suite: who may need what of them, and that one worker can run them with those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

from fleetest.common.suite.drafts import Draft
from fleetest.common.suite.model import TaskModel
from fleetest.common.suite.problems import Findings, Place
from fleetest.common.tasks import Need, RunnerType, When, variable_prefix

__all__ = ["check_services"]

_SERVICE: Final = RunnerType.SERVICE.value
_Problem = tuple[Place, str, str]


def check_services(
    drafts: Sequence[Draft],
    models: Sequence[TaskModel | None],
    needs: Mapping[str, Sequence[Need]],
    findings: Findings,
) -> None:
    """Every problem of services goes to `findings`."""
    services = {draft.name for draft in drafts if draft.kind is not None and draft.kind.name == _SERVICE}
    if not services and not any(need.when is When.READY for needed in needs.values() for need in needed):
        return
    known = {draft.name: (draft, model) for draft, model in zip(drafts, models, strict=True)}
    served_by = {name: _beneath(name, needs, services) for name in known}
    for name, (draft, model) in known.items():
        place = _place(draft)
        problems = [*_wrong_needs(name, needs.get(name, ()), services), *_wrong_company(name, served_by, known)]
        if name in services:
            problems += _wrong_service(name, model, served_by, services)
        for message, hint in problems:
            findings.add(place, message, hint)


def _place(draft: Draft) -> Place:
    if draft.needs is not None:
        return draft.needs.place
    return draft.node.place if draft.node is not None else Place()


def _beneath(name: str, needs: Mapping[str, Sequence[Need]], services: set[str]) -> dict[str, None]:
    """The services that must be ready while the task runs, and those that these need, and so on."""
    found: dict[str, None] = {}
    waiting = [name]
    while waiting:
        for need in needs.get(waiting.pop(), ()):
            if need.when is When.READY and need.task in services and need.task not in found:
                found[need.task] = None
                waiting.append(need.task)
    return found


def _wrong_needs(name: str, needs: Sequence[Need], services: set[str]) -> Iterator[tuple[str, str]]:
    for need in needs:
        if need.task in services and need.when is not When.READY:
            end = need.when.value
            message = f"'{name}' needs '{need.task}' {end}, a service, which ends only when nobody needs it"
            yield message, f"Write `needs: {{{need.task}: ready}}`."
        elif need.task not in services and need.when is When.READY:
            message = f"'{name}' needs '{need.task}' ready, which is no service"
            yield message, f"Give '{need.task}' `type: service`, or need how it ends: passed, failed or always."


def _wrong_company(
    name: str, served_by: Mapping[str, Mapping[str, None]], known: Mapping[str, tuple[Draft, TaskModel | None]]
) -> Iterator[tuple[str, str]]:
    """A task and all its services run on one worker."""
    mine = list(served_by[name])
    for one, other in combinations(mine, 2):
        if one not in served_by[other] and other not in served_by[one]:
            message = f"'{name}' needs the services '{one}' and '{other}', which could start on two workers"
            yield message, f"Let '{other}' have `needs: {{{one}: ready}}`: they will run on one."
    wanted: dict[str, tuple[str, str]] = {}
    for task in [*mine, name]:
        model = known[task][1]
        for key, value in (model.requires.capabilities if model is not None else {}).items():
            before, by = wanted.setdefault(key, (value, task))
            if before != value:
                message = (
                    f"'{name}' runs on the worker of '{by}', but one requires {key}={value} and the other {before}"
                )
                yield message, "Let them require the same."


def _wrong_service(
    name: str, model: TaskModel | None, served_by: Mapping[str, Mapping[str, None]], services: set[str]
) -> Iterator[tuple[str, str]]:
    if not any(name in beneath for task, beneath in served_by.items() if task not in services):
        yield f"no task needs the service '{name}'", f"Give one `needs: {{{name}: ready}}`, or take the service out."
    if model is not None and (model.shards or 1) > 1:
        yield f"the service '{name}' cannot have shards", "Take `shards` out."
    twins = [other for other in sorted(services) if other < name and variable_prefix(other) == variable_prefix(name)]
    if twins:
        yield f"'{name}' and '{twins[0]}' would tell their addresses by the same variables", "Rename one of them."
