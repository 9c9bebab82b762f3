"""
What tasks, shards, attempts and cases of a run have come to. `RunStatus` alone changes them, as events tell.

There may be half a million cases and thousands of shards, so these are structs: quick to make. None of them leads
back to itself, so those of which there are many are no work for the garbage collector (`gc=False`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from fleetest.common.results import Artifact, CacheOrigin, Counts, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, ShardKind, TaskState, Verdict
from fleetest.common.tasks import Need, Resources, RetryOn, Task
from fleetest.master.runs.events import CancelRequested, CasesAskedBack, GangBroken
from fleetest.master.runs.measuring import Measurement
from fleetest.master.runs.results import KeptResult

__all__ = ["Attempt", "CaseStatus", "Ran", "ShardStatus", "TaskStatus", "plan_shard_id", "shard_id"]


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


class Ran(msgspec.Struct, gc=False):
    """How many results there are of something, and how long they took all together."""

    results: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.results += 1
        self.seconds += seconds

    @property
    def mean_seconds(self) -> float:
        """Of one; a second as long as nothing is known."""
        return self.seconds / self.results if self.results else 1.0


class CaseStatus(msgspec.Struct, gc=False):
    """
    A case, what became of it so far, and in how many attempts.

    Args:
        planned: `None` when no plan has it: a part of a command, or a file that could not be collected.
        predicted: how many seconds it should take on a worker of speed 1; `None` when its task was planned without any
            history.
        repeatable: whether an attempt could run it again; a file that could not be collected is no case of any shard.
    """

    planned: PlannedCase | None
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
    def file(self) -> str:
        """Where its plan has it; empty when that is not known."""
        return self.planned.file if self.planned is not None else ""

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


class Attempt(msgspec.Struct, gc=False):
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
    since: datetime
    awaited: set[str]
    running: bool = False
    seen: set[str] = msgspec.field(default_factory=set)
    asked_back: CasesAskedBack | None = None
    gave_nothing_at: datetime | None = None
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)


class ShardStatus(msgspec.Struct, gc=False):
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


class TaskStatus(msgspec.Struct):
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
        ran: how long the results so far took, all together.
        ran_by_file: the same of each file.
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
    cases: dict[str, CaseStatus] = msgspec.field(default_factory=dict)
    shards: dict[str, ShardStatus] = msgspec.field(default_factory=dict)
    tally: dict[str, int] = msgspec.field(default_factory=dict)
    deselected: int = 0
    collection_errors: int = 0
    final_failures: int = 0
    attempts: int = 0
    ran: Ran = msgspec.field(default_factory=Ran)
    ran_by_file: dict[str, Ran] = msgspec.field(default_factory=dict)
    live: int = 0
    open_shards: int = 0
    open_needs: int = 0
    served_by: tuple[str, ...] = ()
    unmet: Need | None = None
    predicted: timedelta | None = None
    speeds: Mapping[str, float] = msgspec.field(default_factory=dict)
    stop: CancelRequested | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    artifacts: dict[tuple[str, str], Artifact] = msgspec.field(default_factory=dict)
    not_kept: tuple[str, ...] = ()
    usage: ResourceUsage = ResourceUsage()
    dependents: list[tuple[str, Need]] = msgspec.field(default_factory=list)
    cache_keys: Mapping[str, str] = msgspec.field(default_factory=dict)
    sampled: dict[str, CacheOrigin] = msgspec.field(default_factory=dict)
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

    def planned_cases(self, case_ids: Iterable[str]) -> list[PlannedCase]:
        """As its plan has them; all shards with cases were planned."""
        return [planned for case_id in case_ids if (planned := self.cases[case_id].planned) is not None]

    @property
    def may_be_queued(self) -> bool:
        """Whether its waiting shards may be given to workers: those of a gang when all of them wait."""
        return self.task.gang is None or self.live == 0

    @property
    def is_plain(self) -> bool:
        """Whether nothing follows from the end of an attempt that went well but that its shard is done."""
        task = self.task
        simple = task.service is None and task.gang is None and task.load is None
        return simple and self.stop is None and not self.sampled

    @property
    def next_index(self) -> int:
        """Of one more shard."""
        return len(self.shards) - self.task.planned

    def expected_seconds(self, case_id: str, *, speed: float) -> float:
        """How long a case should take at that speed: without history, as long as others of its file, or of all."""
        case = self.cases[case_id]
        if case.predicted is not None:
            return case.predicted / speed
        return self.ran_by_file.get(case.file, self.ran).mean_seconds

    def open(self, shard: ShardStatus) -> None:
        """Have one more shard, which waits."""
        self.shards[shard.shard_id] = shard
        self.open_shards += 1

    def count(self, name: str, change: int) -> None:
        """Have more, or fewer, cases of a kind: a name of `Counts`."""
        self.tally[name] = self.tally.get(name, 0) + change

    def take(self, shard: ShardStatus, results: Sequence[KeptResult], worker_id: str) -> None:
        """What became of cases of a shard; of each the last result counts."""
        for result in results:
            case = self.cases.get(result.case_id) or self._add_case(shard, result)
            case.shard_id, case.worker_id = shard.shard_id, worker_id
            seconds, file = result.duration.total_seconds(), case.file
            self.ran.add(seconds)
            if file:
                self.ran_by_file.setdefault(file, Ran()).add(seconds)
            self._finish(case, result)

    def _add_case(self, shard: ShardStatus, result: KeptResult) -> CaseStatus:
        case = self.cases[result.case_id] = CaseStatus(None, len(self.cases))
        self.count("planned", 1)
        if shard.kind is ShardKind.PLAN:
            case.repeatable = False
            self.collection_errors += result.outcome.bad
        return case

    def _finish(self, case: CaseStatus, result: KeptResult) -> None:
        before, bad, failed_before = case.outcome, result.outcome.bad, False
        if before is not None:
            failed_before = case.failed_for_good(self.task)
            self.count(before, -1)
            if before.bad != bad and not case.flaky:
                case.flaky = True
                self.count("flaky", 1)
        self.count(result.outcome, 1)
        case.outcome, case.duration = result.outcome, result.duration
        case.cached = result.cached_from is not None
        case.tries += not case.cached
        if case.cached:
            self.count("cached", 1)
        if bad or failed_before:
            self.final_failures += case.failed_for_good(self.task) - failed_before
