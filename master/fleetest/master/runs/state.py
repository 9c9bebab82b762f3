"""
What a run has come to: the fold of its events.

`RunStatus.apply` is the only place that changes it, and knows no rules: which events may follow is decided in
`decisions`. It refuses nothing, so that every log that was ever written can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fleetest.common.results import Artifact, CaseResult, Counts, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import RetryOn, Task
from fleetest.master.runs.events import (
    ArtifactsSaved,
    AttemptEnded,
    AttemptRunning,
    AttemptStarted,
    CancelRequested,
    CasesFinished,
    Event,
    RunEnded,
    RunSubmitted,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
)

__all__ = ["Attempt", "CaseStatus", "RunStatus", "ShardStatus", "TaskStatus", "plan_shard_id", "shard_id"]


def plan_shard_id(task_id: str) -> str:
    """The id of the shard that collects a task's cases."""
    return f"{task_id}#plan"


def shard_id(task_id: str, index: int) -> str:
    """The id of a shard that runs a part of a task."""
    return f"{task_id}#{index}"


_RETRY_WORD = {
    Outcome.FAILED: RetryOn.FAILED,
    Outcome.ERROR: RetryOn.FAILED,
    Outcome.TIMED_OUT: RetryOn.TIMED_OUT,
}


@dataclass(slots=True)
class CaseStatus:
    """A case, what became of it so far, and in how many attempts."""

    planned: PlannedCase
    index: int
    shard_id: str = ""
    outcome: Outcome | None = None
    flaky: bool = False
    tries: int = 0
    duration: timedelta = timedelta()
    worker_id: str = ""

    def may_retry(self, task: Task) -> bool:
        """Whether the suite grants this case one more try after what became of it."""
        return (
            self.outcome is not None
            and self.outcome.bad
            and _RETRY_WORD[self.outcome] in task.retry_on
            and self.tries <= task.retries
        )


@dataclass(slots=True)
class Attempt:
    """
    A live attempt.

    Args:
        awaited: the cases that have no accepted result in this attempt yet; of a command: none are known.
        seen: the cases that have one.
    """

    token: int
    number: int
    worker_id: str
    instance: str
    started_at: datetime
    awaited: set[str]
    running: bool = False
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True)
class ShardStatus:
    """A shard: waiting (no attempt, no verdict), with an attempt, or done (a verdict)."""

    shard_id: str
    task_id: str
    kind: ShardKind
    index: int
    case_ids: tuple[str, ...] = ()
    predicted: timedelta | None = None
    queued_at: datetime | None = None
    retry_at: datetime | None = None
    attempt: Attempt | None = None
    attempts: int = 0
    mishaps: int = 0
    timeouts: int = 0
    verdict: Verdict | None = None
    reason: str = ""

    @property
    def waiting(self) -> bool:
        return self.attempt is None and self.verdict is None


@dataclass(slots=True)
class TaskStatus:
    """A task with its cases in the order of the plan, and its shards."""

    task: Task
    state: TaskState = TaskState.BLOCKED
    reason: str = ""
    planned: bool = False
    cases: dict[str, CaseStatus] = field(default_factory=dict)
    shards: dict[str, ShardStatus] = field(default_factory=dict)
    counts: Counts = Counts()
    deselected: int = 0
    collection_errors: int = 0
    predicted: timedelta | None = None
    stop: CancelRequested | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    usage: ResourceUsage = ResourceUsage()
    dependents: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        return sum(shard.attempts for shard in self.shards.values())

    @property
    def live_attempts(self) -> Iterator[ShardStatus]:
        return (shard for shard in self.shards.values() if shard.attempt is not None)

    @property
    def final_failures(self) -> int:
        """Cases that ended badly and will not be tried again."""
        if not self.counts.bad:
            return 0
        return sum(
            1
            for case in self.cases.values()
            if case.outcome is not None and case.outcome.bad and not case.may_retry(self.task)
        )


class RunStatus:
    """
    A run as its log tells it.

    Attributes:
        position: of the last applied commit; 0 before the first.
        touched: tasks that an event concerned since somebody last emptied the set.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.position = 0
        self.submitted: RunSubmitted | None = None
        self.state = RunState.RUNNING
        self.reason = ""
        self.ended_at: datetime | None = None
        self.stop: CancelRequested | None = None
        self.tasks: dict[str, TaskStatus] = {}
        self.touched: dict[str, None] = {}
        self.live_tasks = 0

    @property
    def request(self) -> RunSubmitted:
        """What was submitted; a run without it has no log."""
        assert self.submitted is not None
        return self.submitted

    @property
    def counts(self) -> Counts:
        return sum((task.counts for task in self.tasks.values()), Counts())

    def shard(self, wanted: str) -> ShardStatus | None:
        task = self.tasks.get(wanted.rpartition("#")[0])
        return task.shards.get(wanted) if task else None

    def apply(self, event: Event, position: int) -> None:  # noqa: C901 - a flat table, one line for each event
        """Take in an event of the commit at `position`."""
        self.position = position
        match event:
            case RunSubmitted():
                self._submit(event)
            case TaskQueued(task_id=task_id):
                self._queue(self.tasks[task_id], event)
            case TaskPlanned(task_id=task_id):
                self._plan(self.tasks[task_id], event)
            case AttemptStarted(task_id=task_id):
                self._start(self.tasks[task_id], event, position)
            case AttemptRunning():
                self._run(event)
            case CasesFinished(task_id=task_id):
                self._finish_cases(self.tasks[task_id], event)
            case ArtifactsSaved(task_id=task_id):
                for artifact in event.artifacts:
                    self.tasks[task_id].artifacts[event.shard_id, artifact.path] = artifact
            case AttemptEnded(task_id=task_id):
                self._end_attempt(self.tasks[task_id], event)
            case CancelRequested():
                self._cancel(event)
            case TaskEnded(task_id=task_id):
                self._end_task(self.tasks[task_id], event)
            case RunEnded():
                self.state, self.reason, self.ended_at = event.state, event.reason, event.at

    def _touch(self, task_id: str) -> None:
        self.touched[task_id] = None

    def _submit(self, event: RunSubmitted) -> None:
        self.submitted = event
        self.tasks = {task.name: TaskStatus(task) for task in event.tasks}
        self.live_tasks = len(self.tasks)
        for task in event.tasks:
            self._touch(task.name)
            for need in task.needs:
                self.tasks[need.task].dependents.append(task.name)

    def _queue(self, status: TaskStatus, event: TaskQueued) -> None:
        status.state, status.queued_at = TaskState.QUEUED, event.at
        name = status.task.name
        if status.task.type.planned:
            first = ShardStatus(plan_shard_id(name), name, ShardKind.PLAN, 0, queued_at=event.at)
            status.shards[first.shard_id] = first
        else:
            status.planned = True
            for index in range(status.task.shards or 1):
                shard = ShardStatus(shard_id(name, index), name, ShardKind.EXECUTE, index, queued_at=event.at)
                status.shards[shard.shard_id] = shard

    def _plan(self, status: TaskStatus, event: TaskPlanned) -> None:
        self._touch(event.task_id)
        status.planned, status.predicted, status.deselected = True, event.predicted, event.deselected
        first = len(status.cases)
        for index, case in enumerate(event.cases, first):
            status.cases[case.case_id] = CaseStatus(case, index)
        for index, plan in enumerate(event.shards):
            case_ids = tuple(event.cases[each].case_id for each in plan.cases)
            for case_id in case_ids:
                status.cases[case_id].shard_id = plan.shard_id
            status.shards[plan.shard_id] = ShardStatus(
                plan.shard_id,
                event.task_id,
                ShardKind.EXECUTE,
                index,
                case_ids=case_ids,
                predicted=plan.predicted,
                queued_at=event.at,
            )
        status.counts += Counts(planned=len(event.cases))

    def _start(self, status: TaskStatus, event: AttemptStarted, token: int) -> None:
        self._touch(event.task_id)
        shard = status.shards[event.shard_id]
        shard.attempts, shard.retry_at = event.number, None
        shard.attempt = Attempt(
            token, event.number, event.worker_id, event.instance, event.at, awaited=set(shard.case_ids)
        )
        if status.state is TaskState.QUEUED:
            status.state = TaskState.LEASED
        if status.started_at is None:
            status.started_at = event.at

    def _run(self, event: AttemptRunning) -> None:
        shard = self.shard(event.shard_id)
        if shard is not None and shard.attempt is not None and shard.attempt.token == event.token:
            shard.attempt.running = True
            self.tasks[shard.task_id].state = TaskState.RUNNING

    def _finish_cases(self, status: TaskStatus, event: CasesFinished) -> None:
        self._touch(event.task_id)
        shard = status.shards[event.shard_id]
        for result in event.results:
            self._finish_case(status, shard, result, event.worker_id)

    def _finish_case(self, status: TaskStatus, shard: ShardStatus, result: CaseResult, worker_id: str) -> None:
        case = status.cases.get(result.case_id)
        if case is None:
            planned = PlannedCase(case_id=result.case_id, file=result.file, line=result.line)
            case = CaseStatus(planned, len(status.cases))
            status.cases[result.case_id] = case
            status.counts += Counts(planned=1)
            if shard.kind is ShardKind.PLAN and result.outcome.bad:
                status.collection_errors += 1
        if shard.attempt is not None:
            shard.attempt.awaited.discard(result.case_id)
            shard.attempt.seen.add(result.case_id)
        before, flaky = case.outcome, case.flaky
        case.flaky = flaky or (before is not None and before.bad != result.outcome.bad)
        case.outcome, case.duration, case.worker_id = result.outcome, result.duration, worker_id
        case.shard_id = shard.shard_id
        case.tries += 1
        status.counts = _recount(status.counts, before, result.outcome, flaked=case.flaky and not flaky)

    def _end_attempt(self, status: TaskStatus, event: AttemptEnded) -> None:
        self._touch(event.task_id)
        shard = status.shards[event.shard_id]
        shard.attempt, shard.reason = None, event.reason
        shard.mishaps += event.verdict in {Verdict.ERRORED, Verdict.LOST}
        shard.timeouts += event.verdict is Verdict.TIMED_OUT
        status.usage = _add_usage(status.usage, event.usage)
        if event.will_retry:
            shard.retry_at = event.retry_at
            shard.case_ids = event.case_ids or shard.case_ids
        else:
            shard.verdict = event.verdict

    def _cancel(self, event: CancelRequested) -> None:
        if not event.task_id:
            self.stop = event
        for task_id, status in self.tasks.items():
            if status.state.ended or (event.task_id and event.task_id != task_id):
                continue
            status.stop = event
            self._touch(task_id)

    def _end_task(self, status: TaskStatus, event: TaskEnded) -> None:
        status.state, status.reason, status.ended_at = event.state, event.reason, event.at
        self.live_tasks -= 1
        for dependent in status.dependents:
            self._touch(dependent)


def _recount(counts: Counts, before: Outcome | None, after: Outcome, *, flaked: bool) -> Counts:
    change = {after.value: 1}
    if before is not None:
        change[before.value] = change.get(before.value, 0) - 1
    return counts + Counts(flaky=int(flaked), **change)


def _add_usage(total: ResourceUsage, more: ResourceUsage) -> ResourceUsage:
    return ResourceUsage(
        cpu_time=total.cpu_time + more.cpu_time,
        peak_memory_bytes=max(total.peak_memory_bytes, more.peak_memory_bytes),
        disk_read_bytes=total.disk_read_bytes + more.disk_read_bytes,
        disk_written_bytes=total.disk_written_bytes + more.disk_written_bytes,
    )
