"""Services among the tasks of a suite: who may need what of them, and that one worker can run them with those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from fleetest.common.kinds.kind import Work
from fleetest.common.serving import address_variables, host_name, published_prefix
from fleetest.common.suite.drafts import Draft
from fleetest.common.suite.model import TaskModel
from fleetest.common.suite.problems import Findings, Place
from fleetest.common.tasks import Need, Network, RunnerType, When, variable_prefix

__all__ = ["check_services"]

_SERVICE: Final = RunnerType.SERVICE.value
_PROCESS: Final = "process"
_LOOPBACK: Final = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of a task; of one in which something else is wrong, less."""

    draft: Draft
    model: TaskModel | None
    work: Work | None

    @property
    def published(self) -> bool:
        return self.work is not None and self.work.service is not None and self.work.service.published

    @property
    def shut_in(self) -> bool:
        """Whether it could run in a container without a network. Which tasks do is the master's choice, too."""
        return self.model is not None and self.model.network is Network.NONE and self.model.executor != _PROCESS


def check_services(
    drafts: Sequence[Draft],
    models: Sequence[TaskModel | None],
    works: Sequence[Work | None],
    needs: Mapping[str, Sequence[Need]],
    findings: Findings,
) -> None:
    """Every problem of services goes to `findings`."""
    services = {draft.name for draft in drafts if draft.kind is not None and draft.kind.name == _SERVICE}
    if not services and not any(need.when is When.READY for needed in needs.values() for need in needed):
        return
    known = {
        draft.name: _Known(draft=draft, model=model, work=work)
        for draft, model, work in zip(drafts, models, works, strict=True)
    }
    ready = {
        name: [need.task for need in needs.get(name, ()) if need.when is When.READY and need.task in services]
        for name in known
    }
    near = {
        name: [each for each in needed if known[name].shut_in or not known[each].published]
        for name, needed in ready.items()
    }
    served_by = {name: _beneath(name, ready) for name in known}
    company = {name: _beneath(name, near) for name in known}
    for name, each in known.items():
        place = _place(each.draft)
        problems = [*_wrong_needs(name, needs.get(name, ()), services), *_wrong_company(name, company, known)]
        if name in services:
            problems += _wrong_service(name, each.model, served_by, services)
            problems += _wrong_names(name, known, services)
        for message, hint in problems:
            findings.add(place, message, hint)


def _place(draft: Draft) -> Place:
    if draft.needs is not None:
        return draft.needs.place
    return draft.node.place if draft.node is not None else Place()


def _beneath(name: str, needed: Mapping[str, Sequence[str]]) -> dict[str, None]:
    """The services that the task needs, and those that these need, and so on."""
    found: dict[str, None] = {}
    waiting = [name]
    while waiting:
        for service in needed[waiting.pop()]:
            if service not in found:
                found[service] = None
                waiting.append(service)
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
    name: str, company: Mapping[str, Mapping[str, None]], known: Mapping[str, _Known]
) -> Iterator[tuple[str, str]]:
    """A task and all services that it has to be beside run on one worker."""
    mine = list(company[name])
    for one, other in combinations(mine, 2):
        if one not in company[other] and other not in company[one]:
            message = f"'{name}' needs the services '{one}' and '{other}', which could start on two workers"
            yield message, f"Let '{other}' have `needs: {{{one}: ready}}`: they will run on one."
    wanted: dict[str, tuple[str, str]] = {}
    for task in [*mine, name]:
        model = known[task].model
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


def _wrong_names(name: str, known: Mapping[str, _Known], services: set[str]) -> Iterator[tuple[str, str]]:
    for other in sorted(services):
        if other < name and _variables(known[other]) & _variables(known[name]):
            yield f"'{name}' and '{other}' would tell their addresses by the same variables", "Rename one of them."
        elif other < name and host_name(other) == host_name(name):
            yield f"'{name}' and '{other}' would have the same name in a network", "Rename one of them."
    if host_name(name) == _LOOPBACK:
        yield f"a service cannot be called '{name}': to everybody that is the place where he is himself", "Rename it."


def _variables(service: _Known) -> set[str]:
    name, work = service.draft.name, service.work
    ports = dict(work.service.all_ports) if work is not None and work.service is not None else {"": 0}
    beginnings = (variable_prefix(name), published_prefix(name))
    return {variable for beginning in beginnings for variable in address_variables(beginning, "", ports)}
