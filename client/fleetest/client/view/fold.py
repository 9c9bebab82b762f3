"""
What there is to show of a run: the fold of its log.

`RunView.apply` takes commits in order and answers what is news. It knows nothing of terminals, and of the time only
what the log says or the caller hands in.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from fleetest.client.events import (
    ArtifactsSaved,
    AttemptEnded,
    AttemptRunning,
    AttemptStarted,
    CancelRequested,
    CasesAskedBack,
    CasesFinished,
    CasesHandedBack,
    Commit,
    CoverageUpdated,
    GangBroken,
    GangStarted,
    PerformanceMeasured,
    RunEnded,
    RunEvent,
    RunSubmitted,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
    WrongHit,
)
from fleetest.client.values import TaskStatus
from fleetest.client.view.attempts import Attempt, LiveAttempts
from fleetest.client.view.news import (
    AttemptFailed,
    CancelAsked,
    CaseFailed,
    CaseRecovered,
    News,
    RunOver,
    RunStarted,
    TaskChanged,
    WronglyCached,
)
from fleetest.common.results import CaseResult, Counts
from fleetest.common.states import Outcome, RunState, TaskState, Verdict

__all__ = ["Eta", "RunView", "SlowCase", "TaskView"]

_SLOWEST: Final = 5
_KEPT_DETAILS: Final = 4000

_NOT_YET_STARTED: Final = frozenset({TaskState.BLOCKED, TaskState.QUEUED})
_LOUD_VERDICTS: Final = frozenset({Verdict.ERRORED, Verdict.LOST, Verdict.TIMED_OUT})


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SlowCase:
    """A case and how long it took."""

    duration: timedelta
    task_id: str
    case_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """What is left of a run; not the `whole` when of some tasks it is not known how long they take."""

    left: timedelta
    whole: bool


class _Case(msgspec.Struct, kw_only=True, gc=False):
    outcome: Outcome
    duration: timedelta
    tries: int = 1
    cached: bool = False
    earlier: tuple[CaseResult, ...] = ()


@dataclass(slots=True)
class TaskView:
    """
    A task as shown.

    Args:
        collects: whether its cases are collected before they run.
        imported: its results were obtained elsewhere.
        predicted: of all its cases together; `None` when nothing is known.
        failures: the last result of each case that is bad now.
        cached: how many of its cases did not run.
        serves: whether it is a service, which others need while it runs.
        load: what a load test measured in its last seconds.
    """

    task_id: str
    collects: bool = True
    imported: bool = False
    state: TaskState = TaskState.BLOCKED
    reason: str = ""
    needs: tuple[str, ...] = ()
    planned: int = 0
    predicted: timedelta | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    failures: dict[str, CaseResult] = field(default_factory=dict)
    cases: dict[str, _Case] = field(default_factory=dict)
    tally: Counter[Outcome] = field(default_factory=Counter)
    flaky: int = 0
    cached: int = 0
    serves: bool = False
    load: PerformanceMeasured | None = None
    work_done: timedelta = timedelta()

    @property
    def counts(self) -> Counts:
        """A finished task has planned at least what it has done, whether or not it was planned."""
        done = len(self.cases)
        return Counts(
            planned=max(self.planned, done),
            flaky=self.flaky,
            cached=self.cached,
            **{outcome.value: count for outcome, count in self.tally.items()},
        )

    def duration(self, now: datetime) -> timedelta | None:
        """From its first attempt to its end, or until now; `None` before."""
        if self.started_at is None:
            return None
        return max(timedelta(), (self.ended_at or now) - self.started_at)

    def remaining(self) -> timedelta | None:
        """
        Work that is still to do, all slots together; `None` when there is nothing to tell it from.

        The recorded durations predict it, in proportion to the cases that are left; without them the cases that
        ended in this run do. Cached ones are no work.
        """
        if self.state.ended:
            return timedelta()
        done, planned = len(self.cases) - self.cached, self.planned - self.cached
        if self.predicted is not None:
            return self.predicted * (1 - done / planned) if planned > 0 else self.predicted
        if not done or planned <= 0:
            return None
        return self.work_done / done * max(0, planned - done)

    def record(self, result: CaseResult) -> _Case:
        """Take a result; the one before of the same case counts no longer."""
        before = self.cases.get(result.case_id)
        case = _Case(outcome=result.outcome, duration=result.duration, cached=result.cached_from is not None)
        if before is not None:
            case.tries = before.tries + 1
            case.earlier = before.earlier
            self.tally[before.outcome] -= 1
            if earlier := self.failures.pop(result.case_id, None):
                case.earlier = (*before.earlier, earlier)
        was_flaky = before is not None and before.earlier and not before.outcome.bad
        is_flaky = bool(case.earlier) and not result.outcome.bad
        self.flaky += is_flaky - bool(was_flaky)
        self.cases[result.case_id] = case
        self.tally[result.outcome] += 1
        self.cached += case.cached
        self.work_done += timedelta() if case.cached else result.duration
        if result.outcome.bad:
            self.failures[result.case_id] = replace(
                result, stdout="", stderr="", log="", details=result.details[-_KEPT_DETAILS:]
            )
        return case


class RunView:
    """A run as its log has told it so far."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.project = ""
        self.suite_name = ""
        self.state = RunState.RUNNING
        self.reason = ""
        self.position = 0
        self.cancelling = False
        self.submitted_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.tasks: dict[str, TaskView] = {}
        self.wrong_hits: list[WrongHit] = []
        self.not_kept: list[ArtifactsSaved] = []
        self.coverage: dict[str, CoverageUpdated] = {}
        self.attempts = LiveAttempts()

    def apply(self, commit: Commit) -> list[News]:
        """Take the next commit; answers what is worth a word, in order."""
        self.position = commit.position
        return [news for event in commit.events for news in self._apply(event)]

    @property
    def counts(self) -> Counts:
        return sum((task.counts for task in self.tasks.values()), Counts())

    @property
    def slots_in_use(self) -> int:
        """How many slots of the cluster the run occupies."""
        return sum(1 for _ in self.attempts.occupying())

    @property
    def retried(self) -> int:
        """Cases that ran more than once."""
        return sum(case.tries > 1 for task in self.tasks.values() for case in task.cases.values())

    @property
    def slowest(self) -> list[SlowCase]:
        """The slowest cases that ran, slowest first."""
        return heapq.nlargest(
            _SLOWEST,
            (
                SlowCase(duration=case.duration, task_id=task.task_id, case_id=case_id)
                for task in self.tasks.values()
                for case_id, case in task.cases.items()
                if not case.cached
            ),
        )

    def failures(self) -> Iterator[tuple[TaskView, CaseResult]]:
        """The cases that are bad now."""
        for task in self.tasks.values():
            for result in task.failures.values():
                yield task, result

    def flaky_cases(self) -> Iterator[tuple[TaskView, str]]:
        """The cases that ended well after they had not."""
        for task in self.tasks.values():
            for case_id, case in task.cases.items():
                if case.earlier and not case.outcome.bad:
                    yield task, case_id

    def earlier_failures(self, task_id: str, case_id: str) -> tuple[CaseResult, ...]:
        """The bad results of a case that a later try replaced."""
        task = self.tasks.get(task_id)
        case = task.cases.get(case_id) if task else None
        return case.earlier if case else ()

    def elapsed(self, now: datetime) -> timedelta:
        """Since the submission; after the end, how long the run took."""
        if self.submitted_at is None:
            return timedelta()
        return max(timedelta(), (self.ended_at or now) - self.submitted_at)

    def eta(self) -> Eta | None:
        """How long it goes on with the slots in use now; `None` when nothing is known of it."""
        slots = self.slots_in_use
        live = [task.remaining() for task in self.tasks.values() if not task.state.ended]
        known = [each for each in live if each is not None]
        if not slots or not known:
            return None
        return Eta(left=sum(known, timedelta()) / slots, whole=len(known) == len(live))

    def served_by(self, service: str) -> int:
        """How many tasks that need the service have not ended."""
        return sum(service in task.needs and not task.state.ended for task in self.tasks.values())

    def _task(self, task_id: str) -> TaskView:
        task = self.tasks.get(task_id)
        if task is None:
            task = self.tasks[task_id] = TaskView(task_id)
        return task

    def _apply(self, event: RunEvent) -> Iterator[News]:  # noqa: C901 - a flat table, one line for each event
        match event:
            case RunSubmitted():
                yield from self._submitted(event)
            case TaskQueued() | TaskPlanned() | TaskEnded():
                yield from self._task_event(event)
            case AttemptStarted() | AttemptRunning() | AttemptEnded():
                yield from self._attempt_event(event)
            case CasesFinished():
                yield from self._finished(event)
            case WrongHit():
                self.wrong_hits.append(event)
                yield WronglyCached(
                    task_id=event.task_id,
                    case_id=event.case_id,
                    file=event.file,
                    outcome=event.outcome,
                    cached_from=event.cached_from,
                )
            case ArtifactsSaved(problems=problems):
                self.not_kept += [event] if problems else []
            case CoverageUpdated():
                self.coverage[event.task_id] = event
            case CasesAskedBack() | CasesHandedBack() | GangStarted() | GangBroken():
                pass  # where cases run is no news, nor when exactly
            case PerformanceMeasured():
                self._task(event.task_id).load = event
            case CancelRequested(by="served"):
                pass  # a service has done what it was for
            case CancelRequested():
                self.cancelling = self.cancelling or not event.task_id
                yield CancelAsked(task_id=event.task_id, by=event.by, reason=event.reason)
            case RunEnded():
                self.state, self.reason, self.ended_at = event.state, event.reason, event.at
                yield RunOver(state=event.state, reason=event.reason)

    def _submitted(self, event: RunSubmitted) -> Iterator[News]:
        run = event.run
        self.project, self.suite_name, self.submitted_at = run.project, run.suite_name, event.at
        self.tasks = {task.task_id: _task_view(task) for task in run.tasks}
        yield RunStarted(run_id=self.run_id, suite_name=run.suite_name, tasks=len(self.tasks))

    def _changed(self, task: TaskView, state: TaskState, reason: str = "") -> Iterator[News]:
        before, task.state, task.reason = task.state, state, reason
        if before is not state:
            yield TaskChanged(task_id=task.task_id, before=before, state=state, reason=reason)

    def _task_event(self, event: TaskQueued | TaskPlanned | TaskEnded) -> Iterator[News]:
        task = self._task(event.task_id)
        match event:
            case TaskQueued():
                yield from self._changed(task, TaskState.QUEUED)
            case TaskPlanned():
                task.planned, task.predicted = len(event.cases), event.predicted
            case TaskEnded():
                task.ended_at = event.at
                self.attempts.end_all_of(event.task_id)
                yield from self._changed(task, event.state, event.reason)

    def _attempt_event(self, event: AttemptStarted | AttemptRunning | AttemptEnded) -> Iterator[News]:
        match event:
            case AttemptStarted():
                yield from self._attempt_started(event)
            case AttemptRunning():
                if attempt := self.attempts.run(event.shard_id):
                    yield from self._changed(self._task(attempt.task_id), TaskState.RUNNING)
            case AttemptEnded():
                yield from self._attempt_ended(event)

    def _attempt_started(self, event: AttemptStarted) -> Iterator[News]:
        self.attempts.start(event.shard_id, Attempt(task_id=event.task_id, worker_id=event.worker_id, since=event.at))
        task = self._task(event.task_id)
        task.started_at = task.started_at or event.at
        if task.state in _NOT_YET_STARTED:
            yield from self._changed(task, TaskState.LEASED)

    def _finished(self, event: CasesFinished) -> Iterator[News]:
        task = self._task(event.task_id)
        for result in event.results:
            case = task.record(result)
            if result.outcome.bad:
                yield CaseFailed(task_id=task.task_id, result=result, number=case.tries)
            elif case.earlier:
                yield CaseRecovered(task_id=task.task_id, case_id=result.case_id, number=case.tries)

    def _attempt_ended(self, event: AttemptEnded) -> Iterator[News]:
        self.attempts.end(event.shard_id)
        if event.verdict in _LOUD_VERDICTS:
            yield AttemptFailed(
                task_id=event.task_id,
                shard_id=event.shard_id,
                verdict=event.verdict,
                reason=event.reason,
                will_retry=event.will_retry,
            )


def _task_view(task: TaskStatus) -> TaskView:
    return TaskView(
        task_id=task.task_id,
        imported=task.type == "import",
        collects=task.planned,
        serves=task.type == "service",
        state=task.state,
        reason=task.reason,
        needs=task.needs,
        planned=task.counts.planned,
        predicted=task.predicted,
        started_at=task.started_at,
        ended_at=task.ended_at,
    )
