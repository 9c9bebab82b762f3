"""
What a run has come to: the fold of its events.

`RunStatus.apply` is the only place that changes it, but for attempts that begin or end while their event is still
growing. It knows no rules: which events may follow is decided in `decisions`. It refuses nothing, so that every log
that was ever written can be read. Whatever is asked for at each commit is counted as it changes, since a run may have
half a million cases in thousands of shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fleetest.common.results import Counts, ResourceUsage
from fleetest.common.serving import follows, seen_from_outside
from fleetest.common.states import RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import Task, When
from fleetest.master.runs.coverage import CoverageTable
from fleetest.master.runs.environment import environment_key, supplied_task
from fleetest.master.runs.events import (
    ArtifactsSaved,
    AttemptDone,
    AttemptEnded,
    AttemptRunning,
    AttemptsDone,
    AttemptsStarted,
    AttemptStarted,
    CancelRequested,
    CasesAskedBack,
    CasesFinished,
    CasesHandedBack,
    CoverageUpdated,
    DoneAttempt,
    Event,
    GangBroken,
    GangStarted,
    LoadSampled,
    RunEnded,
    RunSubmitted,
    TaskEnded,
    TaskPlanned,
    TaskQueued,
    WrongHit,
)
from fleetest.master.runs.measuring import measurement_of
from fleetest.master.runs.task_status import Attempt, CaseStatus, ShardStatus, TaskStatus, plan_shard_id, shard_id

__all__ = ["RunStatus"]

_UNMEASURED: Final = ResourceUsage()
_MOST_NOT_KEPT: Final = 100


class RunStatus:
    """
    A run as its log tells it.

    Attributes:
        position: of the last applied commit; 0 before the first.
        dealt: those of its tasks whose cases are dealt to shards.
        coverage: what its tests have executed, by the tasks that combine it.
        touched: tasks of which an event may have decided the next step, since somebody last emptied the set. Not part
            of what the log says: whoever decides draws every consequence into the same commit.
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
        self.dealt: list[TaskStatus] = []
        self.coverage: dict[str, CoverageTable] = {}
        self.touched: dict[str, None] = {}
        self.live_tasks = 0
        self._environment_keys: dict[str, str] = {}
        self._takers: dict[str, TaskStatus] = {}

    @property
    def request(self) -> RunSubmitted:
        """What was submitted; a run without it has no log."""
        assert self.submitted is not None
        return self.submitted

    @property
    def counts(self) -> Counts:
        """Of all its tasks."""
        return Counts.total([task.counts for task in self.tasks.values()])

    def environment_key(self, task: TaskStatus) -> str:
        """See `environment_key`; its shards, of which there may be thousands, share it."""
        if task.served_by:
            return environment_key(self.run_id, self.request, self.as_served(task))
        name = task.task.name
        if name not in self._environment_keys:
            self._environment_keys[name] = environment_key(self.run_id, self.request, task.task)
        return self._environment_keys[name]

    def serving(self, service: str) -> Attempt | None:
        """The attempt of a service that is ready."""
        attempts = (shard.attempt for shard in self.tasks[service].live_attempts)
        return next((attempt for attempt in attempts if attempt is not None and attempt.running), None)

    def is_served(self, task: TaskStatus) -> bool:
        """Whether all services that it needs are ready; true without any."""
        return all(self.serving(service) is not None for service in task.served_by)

    def is_needed(self, service: TaskStatus) -> bool:
        """Whether a task that needs the service has not ended."""
        return any(not self.tasks[name].state.ended for name, need in service.dependents if need.when is When.READY)

    def may_be_queued(self, task: TaskStatus) -> bool:
        """Whether what waits of it may be handed to a worker."""
        free = not task.state.ended and task.stop is None and task.unmet is None
        return free and task.may_be_queued and self.is_served(task)

    def followed(self, task: TaskStatus) -> tuple[str, ...]:
        """Those of its services on whose worker it must run; it reaches the others from anywhere."""
        return tuple(service for service in task.served_by if follows(task.task, self.tasks[service].task))

    def awaits_inputs(self, task: TaskStatus) -> bool:
        """Whether it could be queued, were what it takes of others in its workspace."""
        waits = task.state is TaskState.BLOCKED and task.stop is None and task.unmet is None
        return bool(task.task.inputs) and waits and not task.open_needs and self.is_served(task)

    @property
    def awaiting_inputs(self) -> Sequence[str]:
        """The tasks that do."""
        return [name for name, task in self._takers.items() if self.awaits_inputs(task)]

    def worker_of(self, task: TaskStatus) -> str:
        """The only worker that may run it, the one of the services that it follows; empty: any may."""
        attempts = map(self.serving, self.followed(task))
        return next((attempt.worker_id for attempt in attempts if attempt is not None), "")

    def network_of(self, task: TaskStatus) -> str:
        """Which run's network its container is in, where its services are, or itself is one; empty: none."""
        is_in_one = task.task.image and (task.task.service is not None or self.followed(task))
        return self.run_id if is_in_one else ""

    def as_served(self, task: TaskStatus) -> Task:
        """The task, with what its services say of themselves among its variables; its own come first."""
        told: dict[str, str] = {}
        for service in task.served_by:
            attempt = self.serving(service)
            variables = attempt.variables if attempt is not None else {}
            is_near = follows(task.task, self.tasks[service].task)
            told |= variables if is_near else seen_from_outside(service, variables)
        return replace(task.task, env={**told, **task.task.env}) if told else task.task

    def shard(self, wanted: str) -> ShardStatus | None:
        task = self.tasks.get(wanted.rpartition("#")[0])
        return task.shards.get(wanted) if task else None

    def apply(self, event: Event, position: int) -> None:  # noqa: C901, PLR0912, PLR0915 - a flat table, one line for each event
        """Take in an event of the commit at `position`."""
        self.position = position
        match event:  # what there is most of comes first
            case CasesFinished(task_id=task_id):
                self._finish_cases(self.tasks[task_id], event)
            case AttemptsDone(task_id=task_id):
                task = self.tasks[task_id]
                for done in event.attempts:
                    self.finish(task, task.shards[done.shard_id], done, event.worker_id, position)
            case AttemptsStarted(task_id=task_id):
                task = self.tasks[task_id]
                for started, number in zip(event.shard_ids, event.numbers, strict=True):
                    self.start(task, task.shards[started], event, number, position)
            case AttemptDone(task_id=task_id):
                task = self.tasks[task_id]
                self.finish(task, task.shards[event.shard_id], event, event.worker_id, position)
            case AttemptStarted(task_id=task_id):
                task = self.tasks[task_id]
                self.start(task, task.shards[event.shard_id], event, event.number, position)
            case AttemptRunning():
                self._run(event)
            case AttemptEnded(task_id=task_id):
                self._end_attempt(self.tasks[task_id], event)
            case RunSubmitted():
                self._submit(event)
            case TaskQueued(task_id=task_id):
                self._queue(self.tasks[task_id], event)
            case TaskPlanned(task_id=task_id):
                self._plan(self.tasks[task_id], event)
            case WrongHit(task_id=task_id):
                self.tasks[task_id].sampled.pop(event.case_id, None)
                self.tasks[task_id].wrong_hits += 1
            case CasesAskedBack(shard_id=shard_id):
                if (attempt := self._attempt(shard_id, event.token)) is not None:
                    attempt.asked_back = event
            case CasesHandedBack(task_id=task_id):
                self._hand_back(self.tasks[task_id], event)
            case GangStarted(task_id=task_id):
                self.tasks[task_id].gang_start = event.start_at
                self.tasks[task_id].measured = measurement_of(self.tasks[task_id].task)
            case LoadSampled(task_id=task_id):
                self._sample(self.tasks[task_id], event)
            case GangBroken(task_id=task_id):
                self.tasks[task_id].gang_break = event
            case CoverageUpdated(task_id=task_id):
                self.coverage.setdefault(task_id, CoverageTable()).take(event)
            case ArtifactsSaved(task_id=task_id):
                task = self.tasks[task_id]
                task.artifacts |= {(event.shard_id, artifact.path): artifact for artifact in event.artifacts}
                task.not_kept = (*task.not_kept, *event.problems)[:_MOST_NOT_KEPT]
            case CancelRequested():
                self._cancel(event)
            case TaskEnded(task_id=task_id):
                self._end_task(self.tasks[task_id], event)
            case RunEnded():
                self.state, self.reason, self.ended_at = event.state, event.reason, event.at

    def start(
        self, task: TaskStatus, shard: ShardStatus, event: AttemptsStarted | AttemptStarted, number: int, position: int
    ) -> None:
        """One of the attempts that an event of the commit at `position` begins."""
        self.position = position
        task.attempts += number - shard.attempts
        shard.attempts, shard.retry_at = number, None
        shard.attempt = Attempt(
            position, number, event.worker_id, event.instance, event.at, since=event.at, awaited=set(shard.case_ids)
        )
        task.live += 1
        if task.state is TaskState.QUEUED:
            task.state = TaskState.LEASED
        if task.started_at is None:
            task.started_at = event.at

    def finish(
        self, task: TaskStatus, shard: ShardStatus, done: DoneAttempt | AttemptDone, worker_id: str, position: int
    ) -> None:
        """One of the attempts that an event of the commit at `position` ends."""
        self.position = position
        task.state = TaskState.RUNNING
        task.take(shard, done.results, worker_id)
        shard.attempt, shard.reason, shard.verdict = None, done.reason, Verdict.COMPLETED
        task.open_shards -= 1
        task.live -= 1
        if not task.live:  # else it goes on, as it did before
            self._touch(task.task.name)
        if done.usage is not None and done.usage != _UNMEASURED:
            task.usage += done.usage

    def _sample(self, status: TaskStatus, event: LoadSampled) -> None:
        shard = status.shards[event.shard_id]
        if status.measured is not None and self._attempt(event.shard_id, event.token) is not None:
            status.measured.take(shard.index, event.sample)

    def _touch(self, task_id: str) -> None:
        self.touched[task_id] = None

    def _submit(self, event: RunSubmitted) -> None:
        self.submitted = event
        self.tasks = {task.name: TaskStatus(task, event.packed.get(task.name, task.resources)) for task in event.tasks}
        self.live_tasks = len(self.tasks)
        self.dealt = [status for status in self.tasks.values() if status.task.planned]
        self._takers = {name: status for name, status in self.tasks.items() if status.task.inputs}
        for task in event.tasks:
            self._touch(task.name)
            self.tasks[task.name].served_by = task.served_by
            self.tasks[task.name].open_needs = len(task.needs) - len(task.served_by)
            for need in task.needs:
                self.tasks[need.task].dependents.append((task.name, need))

    def _queue(self, status: TaskStatus, event: TaskQueued) -> None:
        status.state, status.queued_at = TaskState.QUEUED, event.at
        name = status.task.name
        self._takers.pop(name, None)
        if event.supplied is not None:
            status.task = supplied_task(status.task, event.supplied)
            self._environment_keys.pop(name, None)
        if status.task.planned:
            status.open(ShardStatus(plan_shard_id(name), name, ShardKind.PLAN, 0, queued_at=event.at))
            return
        status.planned = True
        for index in range(status.task.shards or 1):
            status.open(ShardStatus(shard_id(name, index), name, ShardKind.EXECUTE, index, queued_at=event.at))

    def _plan(self, status: TaskStatus, event: TaskPlanned) -> None:
        status.planned, status.predicted, status.deselected = True, event.predicted, event.deselected
        status.speeds = event.speeds
        status.cache_keys, status.sampled = event.cache_keys, dict(event.sampled)
        known = len(status.cases)
        for case in event.cases:
            status.cases.setdefault(case.case_id, CaseStatus(case, len(status.cases)))
        for case, predicted_us in zip(event.cases, event.predicted_us, strict=False):
            status.cases[case.case_id].predicted = predicted_us / 1e6
        for index, plan in enumerate(event.shards):
            case_ids = tuple(event.cases[each].case_id for each in plan.cases)
            for case_id in case_ids:
                status.cases[case_id].shard_id = plan.shard_id
            shard = ShardStatus(
                plan.shard_id, event.task_id, ShardKind.EXECUTE, index, case_ids, plan.predicted, event.at
            )
            status.open(shard)
        status.count("planned", len(status.cases) - known)

    def _run(self, event: AttemptRunning) -> None:
        attempt = self._attempt(event.shard_id, event.token)
        if attempt is not None:
            attempt.running, attempt.since, attempt.variables = True, event.at, event.variables
            status = self.tasks[event.shard_id.rpartition("#")[0]]
            status.state = TaskState.RUNNING
            if status.task.service is not None:
                for name, _ in status.dependents:
                    self._touch(name)

    def _attempt(self, shard_id: str, token: int) -> Attempt | None:
        shard = self.shard(shard_id)
        return shard.attempt if shard is not None and shard.attempt and shard.attempt.token == token else None

    def _finish_cases(self, status: TaskStatus, event: CasesFinished) -> None:
        shard = status.shards[event.shard_id]
        if shard.attempt is not None:
            case_ids = [result.case_id for result in event.results]
            shard.attempt.since = event.at
            shard.attempt.awaited.difference_update(case_ids)
            shard.attempt.seen.update(case_ids)
        status.take(shard, event.results, event.worker_id)

    def _hand_back(self, status: TaskStatus, event: CasesHandedBack) -> None:
        """What is known against the shard holds against the new ones, so that no case is repeated for ever."""
        shard, given = status.shards[event.shard_id], set(event.case_ids)
        shard.case_ids = tuple(case_id for case_id in shard.case_ids if case_id not in given)
        if shard.attempt is not None:
            shard.attempt.awaited -= given
            shard.attempt.asked_back = None
            shard.attempt.gave_nothing_at = None if given else event.at
        for plan in event.shards:
            case_ids = tuple(event.case_ids[each] for each in plan.cases)
            for case_id in case_ids:
                status.cases[case_id].shard_id = plan.shard_id
            if shard.predicted is not None and plan.predicted is not None:
                shard.predicted = max(timedelta(), shard.predicted - plan.predicted)
            index = status.next_index
            status.open(
                ShardStatus(
                    plan.shard_id,
                    event.task_id,
                    ShardKind.EXECUTE,
                    index,
                    case_ids,
                    plan.predicted,
                    shard.queued_at,
                    mishaps=shard.mishaps,
                    timeouts=shard.timeouts,
                )
            )

    def _end_attempt(self, status: TaskStatus, event: AttemptEnded) -> None:
        self._touch(event.task_id)
        shard = status.shards[event.shard_id]
        shard.attempt, shard.reason = None, event.reason
        status.live -= 1
        shard.mishaps += event.verdict in {Verdict.ERRORED, Verdict.LOST}
        shard.timeouts += event.verdict is Verdict.TIMED_OUT
        if event.usage != _UNMEASURED:
            status.usage += event.usage
        if event.will_retry:
            shard.retry_at = event.retry_at
            shard.case_ids = event.case_ids or shard.case_ids
        else:
            shard.verdict = event.verdict
            status.open_shards -= 1
        if not status.live:
            status.gang_start = status.gang_break = None

    def _cancel(self, event: CancelRequested) -> None:
        if not event.task_id and _supersedes(event, self.stop):
            self.stop = event
        for task_id in [event.task_id] if event.task_id else self.tasks:
            status = self.tasks[task_id]
            if not event.task_id and status.task.service is not None and status.live and self.is_needed(status):
                continue  # whom it serves may need it to come to an end
            stop = event.for_task(task_id)
            if not status.state.ended and _supersedes(stop, status.stop):
                status.stop = stop
                self._touch(task_id)

    def _end_task(self, status: TaskStatus, event: TaskEnded) -> None:
        status.state, status.reason, status.ended_at = event.state, event.reason, event.at
        self.live_tasks -= 1
        if status.measured is not None:
            status.measured.forget_seconds()
        self._takers.pop(event.task_id, None)
        for name in status.served_by:
            self._touch(name)
        for name, need in status.dependents:
            dependent = self.tasks[name]
            dependent.open_needs -= need.when is not When.READY
            if dependent.unmet is None and not dependent.state.ended and not _meets(event.state, need.when):
                dependent.unmet = need
            self._touch(name)


def _supersedes(event: CancelRequested, standing: CancelRequested | None) -> bool:
    """A stop stands, except that one which lets running cases finish gives way to one which does not."""
    return standing is None or (standing.waits and not event.waits)


def _meets(state: TaskState, when: When) -> bool:
    if when is When.ALWAYS:
        return True
    if when is When.READY:
        return False  # whoever still needs it has lost it
    if when is When.PASSED:
        return state is TaskState.PASSED
    return state in {TaskState.FAILED, TaskState.ERRORED, TaskState.TIMED_OUT}
