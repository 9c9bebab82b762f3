"""What of a run is repeated by `fleetest retry`, and on which files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from fleetest.common.errors import WrongState
from fleetest.common.states import TaskState
from fleetest.common.tasks import Task
from fleetest.master.input_workspaces import InputWorkspaces
from fleetest.master.runs.environment import supplied_task
from fleetest.master.runs.inputs import InputsMissing
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["tasks_to_repeat"]


async def tasks_to_repeat(status: RunStatus, workspaces: InputWorkspaces) -> tuple[Task, ...]:
    """
    Those that did not pass; what they needed and what passed is not repeated, nor what would be skipped again because
    of that. What they have taken, or would take, of others is among the files that they run on; if that cannot be had,
    those others are repeated, too.

    Raises:
        WrongState: there is something that cannot be had even so.
    """
    also: set[str] = set()
    while True:
        chosen = _chosen(status, also)
        try:
            return tuple([await _repeated(status, task_id, chosen, workspaces) for task_id in chosen])
        except _LeftNothing as error:
            if not error.leavers - also:
                hint = f"to run all of it again: fleetest retry --all {status.run_id}"
                raise WrongState(f"{error.taker} cannot be repeated: {error.reason}", hint=hint) from error
            also |= error.leavers


class _LeftNothing(Exception):
    """What a task takes of these others cannot be had."""

    def __init__(self, taker: str, leavers: Collection[str], reason: str) -> None:
        super().__init__(taker, leavers, reason)
        self.taker = taker
        self.leavers = set(leavers)
        self.reason = reason


def _chosen(status: RunStatus, also: Collection[str]) -> list[str]:
    """The tasks, in the order of the run."""
    repeated = {task_id for task_id, task in status.tasks.items() if task.state is not TaskState.PASSED} | {*also}
    repeated |= {service for name in repeated for service in _services_under(status, name)}
    while skipped := {task_id for task_id in repeated if _stays_skipped(status.tasks[task_id], repeated)}:
        repeated -= skipped
    return [task_id for task_id in status.tasks if task_id in repeated]


async def _repeated(status: RunStatus, task_id: str, chosen: Collection[str], workspaces: InputWorkspaces) -> Task:
    done = status.tasks[task_id]
    task = replace(
        done.task,
        needs=tuple(need for need in done.task.needs if need.task in chosen),
        inputs=tuple(each for each in done.task.inputs if each.task in chosen),
        only_cases=_cases_to_repeat(done),
    )
    if not done.task.inputs or (not task.inputs and done.queued_at is not None):
        return task  # it runs on the same files
    files = next(each for each in status.request.tasks if each.name == task_id)
    kept = [each for each in done.task.inputs if each.task not in chosen]
    if kept:
        try:
            files = supplied_task(files, await workspaces.make(status, files, kept))
        except InputsMissing as error:
            raise _LeftNothing(task_id, [each.task for each in kept], error.message) from error
    return replace(task, workspace_digest=files.workspace_digest, setup_digest=files.setup_digest)


def _services_under(status: RunStatus, task_id: str) -> Iterator[str]:
    for service in status.tasks[task_id].served_by:
        yield service
        yield from _services_under(status, service)


def _stays_skipped(task: TaskStatus, repeated: Collection[str]) -> bool:
    return task.unmet is not None and task.state is TaskState.SKIPPED and task.unmet.task not in repeated


def _cases_to_repeat(task: TaskStatus) -> tuple[str, ...]:
    """Those without a good outcome; all, when there is none of which we know."""
    if not task.task.planned or task.collection_errors:
        return task.task.only_cases
    return (
        tuple(case_id for case_id, case in task.cases.items() if case.outcome is None or case.outcome.bad)
        or task.task.only_cases
    )
