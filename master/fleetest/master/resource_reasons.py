"""Which named resources a waiting task cannot have now, and who has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetest.common.tasks import CLUSTER_WIDE, Access, Use
from fleetest.master.queue.ports import ResourceHold, ResourceView
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["Obstacle", "obstacles"]

_NAMED = 3
"""So many holders are named; of more, only their number is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A resource that the task waits for."""

    resource: str
    message: str


def obstacles(status: RunStatus, task: TaskStatus, view: ResourceView) -> Sequence[Obstacle]:
    """In the order of the task's uses."""
    if not view.known:
        message = "it waits until it is known again who has what it uses: Redis has lost that, or has just started"
        return [Obstacle(resource=use.resource, message=message) for use in task.task.uses[:1]]
    return [
        Obstacle(resource=use.resource, message=message)
        for use in task.task.uses
        if (message := _message(status, task, use, view))
    ]


def _message(status: RunStatus, task: TaskStatus, use: Use, view: ResourceView) -> str:
    project = "" if use.resource.startswith(CLUSTER_WIDE) else status.request.project
    me = (status.run_id, task.task.name)
    held = [
        (hold, its)
        for hold in view.holds
        for its in hold.uses
        if its.resource == use.resource and (not project or hold.project == project)
    ]
    others = [(hold, its) for hold, its in held if (hold.run_id, hold.task_id) != me]
    alone = [hold for hold, its in others if its.access is Access.EXCLUSIVE]
    if alone:
        return f"it waits for {use.resource}, held exclusively by {_holders(alone)}"
    if use.access is Access.EXCLUSIVE and others:
        return f"it waits to have {use.resource} to itself, used by {_holders([hold for hold, _ in others])}"
    used = sum(its.amount for _, its in held)
    if use.access is Access.COUNTED and used + use.amount > use.size:
        taken = f"{used} of {use.size} are in use, by {_holders([hold for hold, its in held if its.amount])}"
        return f"it waits for {use}: {taken}"
    first = view.first_in_line.get((project, use.resource))
    if first is not None and first != me:
        return (
            f"it waits for {use.resource}, which task {first[1]} of run {first[0]} gets first: it has waited for longer"
        )
    return ""


def _holders(holds: Sequence[ResourceHold]) -> str:
    tasks = list(dict.fromkeys((hold.run_id, hold.task_id) for hold in holds))
    named = [f"task {task_id} of run {run_id}" for run_id, task_id in tasks[:_NAMED]]
    more = len(tasks) - len(named)
    if more:
        return f"{', '.join(named)} and {more} more"
    return " and ".join([*([", ".join(named[:-1])] if named[1:] else []), named[-1]])
