"""
The rules of an imported run: its results come from elsewhere.

Its log has the same events as any other, so that whatever shows, reports or remembers runs does so with it. But no
shard of it ever waits: a task is queued, started and ended by whoever writes the run, which no worker hears of.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from fleetest.common.errors import NotFound, WrongState
from fleetest.common.states import Outcome, ShardKind, TaskState, Verdict
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.endings import end_of_run, end_of_task
from fleetest.master.runs.events import (
    AttemptEnded,
    AttemptRunning,
    AttemptsStarted,
    CasesFinished,
    RunSubmitted,
    TaskEnded,
    TaskQueued,
)
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import Attempt, TaskStatus, shard_id

__all__ = ["begin_import", "break_off_import", "end_imported_task", "import_cases", "last_written"]

_BROKEN_OFF: Final = "the import was broken off"


def begin_import(decider: Decider, event: RunSubmitted) -> None:
    """Begin the run. Repeating it changes nothing."""
    if decider.status.submitted is None:
        decider.record(event)


def import_cases(
    decider: Decider, task_id: str, results: Sequence[KeptResult], flaky: Collection[str] = frozenset()
) -> None:
    """
    Take results of a task. Those of cases that it has are left out.

    Args:
        flaky: ids of cases that passed after they had not.

    Raises:
        NotFound: there is no such task.
        WrongState: the run, or its task, has ended.
    """
    status, attempt = _attempt(decider, task_id)
    fresh = {result.case_id: result for result in results if result.case_id not in attempt.seen}
    failures = tuple(_failed_before(result) for case_id, result in fresh.items() if case_id in flaky)
    for part in (failures, tuple(fresh.values())):
        if part:
            decider.record(
                CasesFinished(
                    at=decider.now,
                    shard_id=shard_id(task_id, 0),
                    task_id=status.task.name,
                    token=attempt.token,
                    worker_id="",
                    results=part,
                )
            )


def end_imported_task(decider: Decider, task_id: str) -> None:
    """
    The task has no more results; with the last one, the run ends. Raises as `import_cases` does.
    """
    status, attempt = _attempt(decider, task_id)
    _end_attempt(decider, status, attempt, Verdict.COMPLETED, "")
    state, reason = end_of_task(status)
    _end_task(decider, status, state, reason)


def break_off_import(decider: Decider) -> None:
    """Nobody writes the run any more: it ends as it is. Once it has ended, nothing happens."""
    for status in decider.status.tasks.values():
        if status.state.ended:
            continue
        for shard in list(status.live_attempts):
            assert shard.attempt is not None
            _end_attempt(decider, status, shard.attempt, Verdict.LOST, _BROKEN_OFF)
        _end_task(decider, status, TaskState.ERRORED, _BROKEN_OFF)


def last_written(status: RunStatus) -> datetime:
    """When something was last added to an imported run."""
    times = [status.request.at]
    for task in status.tasks.values():
        times += [task.ended_at] if task.ended_at is not None else []
        times += [shard.attempt.since for shard in task.live_attempts if shard.attempt is not None]
    return max(times)


def _attempt(decider: Decider, task_id: str) -> tuple[TaskStatus, Attempt]:
    """The one attempt of a task, which is begun when it is first asked for."""
    status = decider.status.tasks.get(task_id)
    if status is None:
        raise NotFound(f"run {decider.status.run_id} has no task {task_id!r}")
    if status.state.ended:
        raise WrongState(f"{task_id} of run {decider.status.run_id} has ended")
    shard = shard_id(task_id, 0)
    if status.state is TaskState.BLOCKED:
        decider.record(TaskQueued(at=decider.now, task_id=task_id))
        decider.record(
            AttemptsStarted(
                at=decider.now,
                task_id=task_id,
                worker_id="",
                instance="",
                kind=ShardKind.EXECUTE,
                shard_ids=[shard],
                numbers=[1],
            )
        )
        decider.record(AttemptRunning(at=decider.now, shard_id=shard, token=decider.position))
    attempt = status.shards[shard].attempt
    assert attempt is not None
    return status, attempt


def _end_attempt(decider: Decider, status: TaskStatus, attempt: Attempt, verdict: Verdict, reason: str) -> None:
    name = status.task.name
    decider.record(
        AttemptEnded(
            at=decider.now,
            shard_id=shard_id(name, 0),
            task_id=name,
            token=attempt.token,
            verdict=verdict,
            reason=reason,
        )
    )


def _end_task(decider: Decider, status: TaskStatus, state: TaskState, reason: str) -> None:
    decider.record(TaskEnded(at=decider.now, task_id=status.task.name, state=state, reason=reason))
    if not decider.status.live_tasks:
        decider.record(end_of_run(decider.status, decider.now))


def _failed_before(result: KeptResult) -> KeptResult:
    """What became of a flaky case at first: that alone is known of it."""
    return KeptResult(
        case_id=result.case_id,
        outcome=Outcome.FAILED,
        file=result.file,
        line=result.line,
        message="failed at first, and passed when it was repeated",
    )
