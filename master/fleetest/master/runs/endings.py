"""What an end comes to, and what is done again: pure functions of what is known, which `decisions` asks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import RetryOn
from fleetest.master.runs.events import RunEnded
from fleetest.master.runs.gangs import BROKEN_GANG, begins_again, missing
from fleetest.master.runs.load_verdicts import ABORTED
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import Attempt, ShardStatus, TaskStatus

__all__ = [
    "DESERTED",
    "MAX_MISHAPS",
    "NOBODY_NEEDS_IT",
    "SERVED",
    "STOPPED_BY_FAILURE",
    "cases_to_retry",
    "count",
    "end_of_run",
    "end_of_task",
    "gone",
    "not_collected",
    "past",
    "settle",
]

MAX_MISHAPS: Final = 3
"""How often a shard is repeated that the infrastructure failed; once more, and its task is *errored*."""

SERVED: Final = "served"
"""Value of `CancelRequested.by`: all that needed the service have ended."""

DESERTED: Final = "deserted"
"""Value of `CancelRequested.by`: a service that the task needs has ended."""

STOPPED_BY_FAILURE: Final = frozenset({"fail_fast", "maxfail", "failed", ABORTED, BROKEN_GANG, SERVED, DESERTED})
"""Values of `CancelRequested.by` after which a task that failed itself is not *cancelled*."""


NOBODY_NEEDS_IT: Final = "no task needs it any more"


def past(state: TaskState) -> str:
    """How a task ended, as part of a sentence."""
    return {TaskState.SKIPPED: "was skipped", TaskState.CANCELLED: "was cancelled"}.get(
        state, state.value.replace("_", " ")
    )


def gone(case_id: str) -> KeptResult:
    """The result of a case that was asked for, but not collected."""
    return KeptResult(
        case_id=case_id, outcome=Outcome.ERROR, message="was asked for, but is not in the suite (any more)"
    )


def not_collected(case_id: str, worker_id: str) -> KeptResult:
    """The result of a case that was planned, but not collected by a later session."""
    return KeptResult(
        case_id=case_id,
        outcome=Outcome.ERROR,
        message=f"was planned, but not collected by the session on {worker_id}",
        details="The ids of cases must be the same in every session. Typical causes: parameters that come from a "
        "set, from the clock, or from object addresses.",
    )


def settle(
    verdict: Verdict, reason: str, shard: ShardStatus, attempt: Attempt, status: TaskStatus
) -> tuple[Verdict, str]:
    """What an end really means: a worker's word is checked against what it delivered."""
    if verdict is Verdict.CANCELLED and status.stop is None:
        return Verdict.ERRORED, reason or "the worker stopped it unasked"
    delivered = status.planned if shard.kind is ShardKind.PLAN else bool(shard.case_ids) and not attempt.awaited
    if delivered and verdict in {Verdict.ERRORED, Verdict.LOST, Verdict.TIMED_OUT}:
        return Verdict.COMPLETED, ""  # it has done what it was for; a case that timed out says so itself
    if verdict is Verdict.COMPLETED and shard.kind is ShardKind.PLAN and not delivered:
        return Verdict.ERRORED, "the worker ended the plan without any"
    if verdict is Verdict.COMPLETED and attempt.awaited:
        return Verdict.ERRORED, f"the worker left out {count(len(attempt.awaited), 'case')} that it was given"
    return verdict, reason


def cases_to_retry(
    shard: ShardStatus, attempt: Attempt, status: TaskStatus, verdict: Verdict
) -> tuple[str, ...] | None:
    """
    The cases that the shard's next attempt runs; `None` when there is none.

    A command, and a plan, are done again whole: an empty tuple. Cases that the attempt left without a result are
    either repeated with those that failed, or end the shard: a later attempt must not make them forgotten.
    """
    if status.stop is not None:
        return None
    task = status.task
    granted = verdict in {Verdict.ERRORED, Verdict.LOST} and shard.mishaps < MAX_MISHAPS
    if verdict is Verdict.TIMED_OUT:
        granted = RetryOn.TIMED_OUT in task.retry_on and shard.timeouts < task.retries
    if task.gang is not None:  # its cases are not repeated one by one
        return () if granted and begins_again(status) else None
    if not granted and (attempt.awaited or verdict is not Verdict.COMPLETED):
        return None
    if not shard.case_ids:
        return () if granted or any(status.cases[each].may_retry(task) for each in attempt.seen) else None
    again = [each for each in shard.case_ids if each in attempt.awaited or status.cases[each].may_retry(task)]
    return tuple(again) or None


def end_of_task(status: TaskStatus) -> tuple[TaskState, str]:  # noqa: PLR0911 - the rules, in order of precedence
    """How a task ends of which nothing is left to do, and why."""
    counts = status.counts
    if (cut_short := _end_when_stopped(status)) is not None:
        return cut_short
    if status.collection_errors:
        return TaskState.FAILED, f"{count(status.collection_errors, 'error')} during collection"
    if counts.failed or counts.error:
        return TaskState.FAILED, f"{counts.bad} of {count(counts.done, 'case')} failed"
    lost = missing(status)
    bad = [shard for shard in status.shards.values() if shard.verdict is not Verdict.COMPLETED and shard not in lost]
    for verdict, state in _SHARD_ENDS if bad else ():
        reason = next((shard.reason for shard in bad if shard.verdict is verdict), None)
        if reason is not None:
            return state, reason
    if counts.timed_out:
        return TaskState.TIMED_OUT, f"{count(counts.timed_out, 'case')} timed out"
    if not status.cases and status.task.planned:
        left_out = f" ({status.deselected} deselected)" if status.deselected else ""
        return TaskState.FAILED, f"no tests ran{left_out}"
    return TaskState.PASSED, f"without {count(len(lost), 'shard')}: {lost[0].reason}" if lost else ""


def _end_when_stopped(status: TaskStatus) -> tuple[TaskState, str] | None:
    """`None` when nobody stopped it, or that made no difference."""
    stop = status.stop
    if stop is None:
        return None
    if not status.counts.bad and all(shard.verdict is Verdict.COMPLETED for shard in status.shards.values()):
        return None
    failed = status.final_failures or any(shard.verdict is Verdict.FAILED for shard in status.shards.values())
    if stop.by == SERVED and not failed:
        return (TaskState.PASSED, "") if status.state is TaskState.RUNNING else (TaskState.CANCELLED, stop.reason)
    if stop.by == DESERTED and not failed and not status.attempts:
        return TaskState.SKIPPED, stop.reason
    state = _end_of_stopped(stop.by, failed=bool(failed))
    return None if state is None else (state, stop.reason)


def _end_of_stopped(by: str, *, failed: bool) -> TaskState | None:
    """`None` when the stop says nothing of the task's own failures."""
    if not failed:
        return TaskState.ERRORED if by in {BROKEN_GANG, DESERTED} else TaskState.CANCELLED
    if by not in STOPPED_BY_FAILURE:
        return TaskState.CANCELLED
    return None if by in _NO_WORD_OF_ITSELF else TaskState.FAILED


_NO_WORD_OF_ITSELF: Final = frozenset({"fail_fast", SERVED, DESERTED})
"""Values of `CancelRequested.by` that say nothing of the task's own failures."""

_SHARD_ENDS: Final = (
    (Verdict.FAILED, TaskState.FAILED),
    (Verdict.TIMED_OUT, TaskState.TIMED_OUT),
    (Verdict.ERRORED, TaskState.ERRORED),
    (Verdict.LOST, TaskState.ERRORED),
)


def end_of_run(status: RunStatus, now: datetime) -> RunEnded:
    """How a run ends, all of whose tasks have ended."""
    ended: dict[TaskState, list[str]] = {}
    for task_id, task in status.tasks.items():
        ended.setdefault(task.state, []).append(task_id)
    if status.stop is not None and status.stop.by not in STOPPED_BY_FAILURE:
        return RunEnded(at=now, state=RunState.CANCELLED, reason=status.stop.reason)
    for states, result in _RUN_ENDS:
        tasks = [task_id for state in states for task_id in ended.get(state, ())]
        if tasks:
            return RunEnded(at=now, state=result, reason=f"{_listed(tasks)} {result.value}")
    return RunEnded(at=now, state=RunState.PASSED)


_RUN_ENDS: Final = (
    ((TaskState.FAILED, TaskState.TIMED_OUT), RunState.FAILED),
    ((TaskState.ERRORED,), RunState.ERRORED),
    ((TaskState.CANCELLED,), RunState.CANCELLED),
)


def _listed(names: Iterable[str]) -> str:
    first, *rest = names
    return f"{first} and {len(rest)} more" if len(rest) > 1 else " and ".join([first, *rest])


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
