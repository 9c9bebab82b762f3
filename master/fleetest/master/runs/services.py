"""
What one worker must have for a service and all that follow it there.

The first service of a group decides for the rest: who needs it runs where it runs, unless it is published. So it is
given only to a worker that has what any of them requires, and so much free room that, of whatever was started there, at
least the newest group can go on: it ends, and makes room for the one before. The group does not hold that room
meanwhile; see ADR 17.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleetest.common.serving import follows
from fleetest.common.tasks import Resources, When
from fleetest.master.runs.environment import requirements_of
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["WORKER", "asked_by", "packed_by", "required_by"]

WORKER = "fleetest.worker"
"""The capability that each worker has by its own id."""


def required_by(status: RunStatus, task: TaskStatus) -> dict[str, str]:
    """Capabilities that the worker must have which is to run the task."""
    if status.followed(task):
        return {**requirements_of(task.task), WORKER: status.worker_of(task)}
    required: dict[str, str] = {}
    for each in reversed(_group(status, task)):
        required |= requirements_of(each.task)
    return required


def asked_by(status: RunStatus, task: TaskStatus) -> Resources:
    """What that worker must have in all."""
    return task.task.resources + _for_others(status, task)


def packed_by(status: RunStatus, task: TaskStatus) -> Resources:
    """What must be free there."""
    return task.packed + _for_others(status, task)


def _for_others(status: RunStatus, task: TaskStatus) -> Resources:
    """For all other services of the group, and the largest of those that they serve."""
    if task.task.service is None or status.followed(task):
        return Resources()
    others = [each.task for each in _group(status, task)[1:]]
    served = [each.resources for each in others if each.service is None]
    largest = Resources(
        cpu_millis=max((each.cpu_millis for each in served), default=0),
        memory_bytes=max((each.memory_bytes for each in served), default=0),
        disk_bytes=max((each.disk_bytes for each in served), default=0),
    )
    return sum((each.resources for each in others if each.service is not None), largest)


def _group(status: RunStatus, task: TaskStatus) -> Sequence[TaskStatus]:
    """The task, and all that follow it, or follow one of those."""
    found = {task.task.name: task}
    waiting = [task] if task.task.service is not None else []
    while waiting:
        leader = waiting.pop()
        for name, need in leader.dependents:
            if need.when is When.READY and name not in found and follows(status.tasks[name].task, leader.task):
                found[name] = status.tasks[name]
                waiting.append(status.tasks[name])
    return list(found.values())
