"""
What a run has come to: the fold of its events.

`RunStatus.apply` is the only place that changes it, and knows no rules: which events may follow is decided in
`decisions`. It refuses nothing, so that every log that was ever written can be read. Whatever is asked for at each
commit is counted here as it changes, since a run may have half a million cases in thousands of shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from fleetest.common.results import Artifact, CacheOrigin, Counts, PlannedCase, ResourceUsage
from fleetest.common.serving import follows, seen_from_outside
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import Need, Resources, RetryOn, Task, When
from fleetest.master.runs.coverage import CoverageTable
from fleetest.master.runs.environment import environment_key, supplied_task
from fleetest.master.runs.events import (
    ArtifactsSaved,
    AttemptDone,
    AttemptEnded,
    AttemptRunning,
    AttemptStarted,
    CancelRequested,
    CasesAskedBack,
    CasesFinished,
    CasesHandedBack,
    CoverageUpdated,
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
from fleetest.master.runs.measuring import Measurement, measurement_of
from fleetest.master.runs.results import KeptResult

__all__ = ["Attempt", "CaseStatus", "RunStatus", "ShardStatus", "TaskStatus", "plan_shard_id", "shard_id"]


def plan_shard_id(task_id: str) -> str:
    """The id of the shard that collects a task's cases."""
    return f"{task_id}#plan"


def shard_id(task_id: str, index: int) -> str:
    """The id of a shard that runs a part of a task."""
    return f"{task_id}#{index}"


_UNMEASURED = ResourceUsage()

_RETRY_WORD = {
    Outcome.FAILED: RetryOn.FAILED,
    Outcome.ERROR: RetryOn.FAILED,
    Outcome.TIMED_OUT: RetryOn.TIMED_OUT,
}


@dataclass(slots=True)
class CaseStatus:
    """
    A case, what became of it so far, and in how many attempts.

    Args:
        predicted: how many seconds it should take on a worker of speed 1; `None` when its task was planned without any
            history.
        repeatable: whether an attempt could run it again; a file that could not be collected is no case of any shard.
    """

    planned: PlannedCase
    index: int
    shard_id: str = ""
    outcome: Outcome | None = None
    flaky: bool = False
    tries: int = 0
    duration: timedelta = timedelta()
    worker_id: str = ""
    predicted: float | None = None
    repeatable: bool = True
    cached: bool = False

    @property
    def bad(self) -> bool:
        return self.outcome is not None and self.outcome.bad

    def may_retry(self, task: Task) -> bool:
        """Whether the suite grants this case one more try after what became of it."""
        return (
            self.repeatable
            and self.outcome is not None
            and self.outcome.bad
            and _RETRY_WORD[self.outcome] in task.retry_on
            and self.tries <= task.retries
        )

    def failed_for_good(self, task: Task) -> bool:
        """Whether it ended badly and will not be tried again."""
        return self.bad and not self.may_retry(task)


@dataclass(slots=True)
class Attempt:
    """
    A live attempt.

    Args:
        awaited: the cases that have no accepted result in this attempt yet; of a command: none are known.
        seen: the cases that have one.
        since: when its present case began, as far as results tell.
        asked_back: cases that its worker was asked to hand back and has not answered for, and when that was.
        gave_nothing_at: when its worker last answered so with nothing.
        variables: of a service that is ready, what those that it serves are told of it.
    """

    token: int
    number: int
    worker_id: str
    instance: str
    started_at: datetime
    awaited: set[str]
    running: bool = False
    seen: set[str] = field(default_factory=set)
    since: datetime = field(init=False)
    asked_back: CasesAskedBack | None = None
    gave_nothing_at: datetime | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.since = self.started_at


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
    """
    A task with its cases in the order of the plan, and its shards.

    Args:
        packed: what a shard takes of a worker's free room.
        final_failures: cases that ended badly and will not be tried again.
        tally: of cases, by the names of `Counts`.
        attempts: that have begun, of all shards.
        live: shards with an attempt.
        open_shards: those without a verdict: waiting, or with an attempt.
        open_needs: needed tasks that have not ended, services left out.
        served_by: the services that must be ready while it runs.
        unmet: the first need whose task did not end as it asks.
        ran_seconds: how long the results so far took, all together.
        speeds: how fast workers are that were there when it was planned; 1 where nothing is known.
        cache_keys: under which results are cached, by file.
        sampled: cases that are run although the cache has a result, until they are seen to end otherwise.
        gang_start: of its shards, once all were ready.
        gang_break: while shards of a gang are being stopped so that all can begin again.
        measured: of a load test, since its generators began together.
    """

    task: Task
    packed: Resources
    state: TaskState = TaskState.BLOCKED
    reason: str = ""
    planned: bool = False
    cases: dict[str, CaseStatus] = field(default_factory=dict)
    shards: dict[str, ShardStatus] = field(default_factory=dict)
    tally: dict[str, int] = field(default_factory=dict)
    deselected: int = 0
    collection_errors: int = 0
    final_failures: int = 0
    attempts: int = 0
    ran_seconds: float = 0.0
    live: int = 0
    open_shards: int = 0
    open_needs: int = 0
    served_by: tuple[str, ...] = ()
    unmet: Need | None = None
    predicted: timedelta | None = None
    speeds: Mapping[str, float] = field(default_factory=dict)
    stop: CancelRequested | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    usage: ResourceUsage = ResourceUsage()
    dependents: list[tuple[str, Need]] = field(default_factory=list)
    cache_keys: Mapping[str, str] = field(default_factory=dict)
    sampled: dict[str, CacheOrigin] = field(default_factory=dict)
    wrong_hits: int = 0
    gang_start: datetime | None = None
    gang_break: GangBroken | None = None
    measured: Measurement | None = None

    @property
    def counts(self) -> Counts:
        return Counts(**self.tally)

    @property
    def live_attempts(self) -> Iterator[ShardStatus]:
        return (shard for shard in self.shards.values() if shard.attempt is not None)

    @property
    def may_be_queued(self) -> bool:
        """Whether its waiting shards may be given to workers: those of a gang when all of them wait."""
        return self.task.gang is None or self.live == 0

    @property
    def next_index(self) -> int:
        """Of one more shard."""
        return len(self.shards) - self.task.planned

    def open(self, shard: ShardStatus) -> None:
        """Have one more shard, which waits."""
        self.shards[shard.shard_id] = shard
        self.open_shards += 1


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
        self.tally: dict[str, int] = {}
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
        return Counts(**self.tally)

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

    def apply(self, event: Event, position: int) -> None:  # noqa: C901, PLR0912 - a flat table, one line for each event
        """Take in an event of the commit at `position`."""
        self.position = position
        match event:  # what there is most of comes first
            case CasesFinished(task_id=task_id):
                self._finish_cases(self.tasks[task_id], event)
            case AttemptDone(task_id=task_id):
                self._finish_attempt(self.tasks[task_id], event)
            case AttemptStarted(task_id=task_id):
                self._start(self.tasks[task_id], event, position)
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
                kept = self.tasks[task_id].artifacts
                kept |= {(event.shard_id, artifact.path): artifact for artifact in event.artifacts}
            case CancelRequested():
                self._cancel(event)
            case TaskEnded(task_id=task_id):
                self._end_task(self.tasks[task_id], event)
            case RunEnded():
                self.state, self.reason, self.ended_at = event.state, event.reason, event.at

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
        self._count(status, "planned", len(status.cases) - known)

    def _start(self, status: TaskStatus, event: AttemptStarted, token: int) -> None:
        shard = status.shards[event.shard_id]
        status.attempts += event.number - shard.attempts
        shard.attempts, shard.retry_at = event.number, None
        shard.attempt = Attempt(
            token, event.number, event.worker_id, event.instance, event.at, awaited=set(shard.case_ids)
        )
        status.live += 1
        if status.state is TaskState.QUEUED:
            status.state = TaskState.LEASED
        if status.started_at is None:
            status.started_at = event.at

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

    def _finish_cases(self, status: TaskStatus, event: CasesFinished | AttemptDone) -> None:
        shard = status.shards[event.shard_id]
        attempt = shard.attempt
        if attempt is not None:
            attempt.since = event.at
        for result in event.results:
            case = status.cases.get(result.case_id)
            if case is None:
                case = _add_case(status, shard, result)
                self._count(status, "planned", 1)
            if attempt is not None:
                attempt.awaited.discard(result.case_id)
                attempt.seen.add(result.case_id)
            status.ran_seconds += result.duration.total_seconds()
            self._finish_case(status, case, result)
            case.shard_id, case.worker_id = shard.shard_id, event.worker_id

    def _finish_case(self, status: TaskStatus, case: CaseStatus, result: KeptResult) -> None:
        before, failed_before = case.outcome, case.failed_for_good(status.task)
        if before is not None:
            self._count(status, before.value, -1)
            if before.bad != result.outcome.bad and not case.flaky:
                case.flaky = True
                self._count(status, "flaky", 1)
        self._count(status, result.outcome.value, 1)
        case.outcome, case.duration = result.outcome, result.duration
        case.cached = result.cached_from is not None
        case.tries += not case.cached
        if case.cached:
            self._count(status, "cached", 1)
        status.final_failures += case.failed_for_good(status.task) - failed_before

    def _count(self, status: TaskStatus, name: str, change: int) -> None:
        for tally in (status.tally, self.tally):
            tally[name] = tally.get(name, 0) + change

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

    def _finish_attempt(self, status: TaskStatus, event: AttemptDone) -> None:
        status.state = TaskState.RUNNING
        self._finish_cases(status, event)
        shard = status.shards[event.shard_id]
        shard.attempt, shard.reason, shard.verdict = None, event.reason, Verdict.COMPLETED
        status.open_shards -= 1
        status.live -= 1
        if not status.live:  # else it goes on, as it did before
            self._touch(event.task_id)
        if event.usage != _UNMEASURED:
            status.usage += event.usage

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


def _add_case(status: TaskStatus, shard: ShardStatus, result: KeptResult) -> CaseStatus:
    """A case that no plan has: a part of a command, or a file that could not be collected."""
    planned = PlannedCase(case_id=result.case_id, file=result.file, line=result.line)
    case = status.cases[result.case_id] = CaseStatus(planned, len(status.cases))
    if shard.kind is ShardKind.PLAN:
        case.repeatable = False
        status.collection_errors += result.outcome.bad
    return case


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
