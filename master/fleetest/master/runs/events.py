"""
The facts of a run's log.

An event is a small frozen record; a commit holds several that became true together. They are stored as MessagePack
with a type tag. Fields are only ever added, with a default: an old log must stay readable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fleetest.common.coverage import CoverageTotals, FileCoverage
from fleetest.common.load import LoadSample
from fleetest.common.results import Artifact, CacheOrigin, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict
from fleetest.common.tasks import Resources, Task
from fleetest.common.version_control import VersionControl
from fleetest.master.runs.results import KeptResult

__all__ = [
    "ArtifactsSaved",
    "AttemptDone",
    "AttemptEnded",
    "AttemptRunning",
    "AttemptStarted",
    "AttemptsDone",
    "AttemptsStarted",
    "CancelRequested",
    "CasesAskedBack",
    "CasesFinished",
    "CasesHandedBack",
    "CoverageUpdated",
    "DoneAttempt",
    "Event",
    "Finished",
    "GangBroken",
    "GangStarted",
    "LoadSampled",
    "PerformanceMeasured",
    "RunEnded",
    "RunSubmitted",
    "ShardPlan",
    "Supplied",
    "TaskEnded",
    "TaskPlanned",
    "TaskQueued",
    "WrongHit",
    "decode",
    "encode",
    "results_of",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    at: datetime


class RunSubmitted(_Event, frozen=True, kw_only=True):
    """
    The first event of every run: all that was asked for. Secrets are not here.

    Args:
        packed: what a shard takes of a worker's free room, for the tasks of which earlier runs have shown it.
        lasting: the tasks that lasted long enough, when they last ran, for several slots to have a share in them.
        environment: which of the suite's environments it is in; what that means is in the tasks.
        imported: its results come from elsewhere; no worker has anything to do with it.
    """

    project: str
    suite_name: str
    tasks: tuple[Task, ...]
    suite_text: str = ""
    workspace_digest: str = ""
    version_control: VersionControl = VersionControl()
    user: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    fail_fast: bool = False
    retry_of: str = ""
    packed: Mapping[str, Resources] = msgspec.field(default_factory=dict)
    lasting: tuple[str, ...] = ()
    imported: bool = False
    environment: str = ""

    @property
    def secret_names(self) -> frozenset[str]:
        """Of the secrets that its tasks are to see."""
        return frozenset([name for task in self.tasks for name in task.secret_variables.values()])


class Supplied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What a task runs on that takes artifacts of others: a workspace of its own, and what follows from it. See `Task`.
    """

    workspace_digest: str
    setup_digest: str = ""
    inputs_digest: str = ""


class TaskQueued(_Event, frozen=True, kw_only=True):
    """
    What the task needs has ended well; its first shard waits for a worker.

    Args:
        supplied: what is put into its workspace is there; `None`: it takes nothing of others.
    """

    task_id: str
    supplied: Supplied | None = None


class ShardPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a task: indexes into its planned cases, and how long they should take."""

    shard_id: str
    cases: tuple[int, ...] = ()
    predicted: timedelta | None = None


class TaskPlanned(_Event, frozen=True, kw_only=True):
    """
    The task's cases are known and dealt to shards, but for those that the cache has a result of.

    Args:
        cache_keys: under which results are cached, by file; empty without a cache.
        sampled: cases that are run although the cache has a result, and where that comes from.
    """

    task_id: str
    cases: tuple[PlannedCase, ...]
    shards: tuple[ShardPlan, ...]
    predicted: timedelta | None = None
    deselected: int = 0
    predicted_us: tuple[int, ...] = ()
    """Of each case, in microseconds on a worker of speed 1; empty without any history."""
    speeds: Mapping[str, float] = msgspec.field(default_factory=dict)
    """How fast the workers that were there are, by id; 1 where nothing is known."""
    cache_keys: Mapping[str, str] = msgspec.field(default_factory=dict)
    sampled: Mapping[str, CacheOrigin] = msgspec.field(default_factory=dict)


class AttemptStarted(_Event, frozen=True, kw_only=True):
    """
    A worker has the shard, in logs of earlier versions. The position of this event's commit is the
    attempt's token.

    `instance` names the worker's process: a restarted worker does not hold the leases of its former life.
    """

    shard_id: str
    task_id: str
    number: int
    worker_id: str
    instance: str
    kind: ShardKind


class AttemptsStarted(_Event, frozen=True, kw_only=True):
    """
    A worker has shards of a task. The position of this event's commit is the token of their attempts.

    There may be hundreds in a commit: both lists grow while it is made.

    Args:
        instance: as in `AttemptStarted`.
        numbers: of each shard's attempt, from 1.
    """

    task_id: str
    worker_id: str
    instance: str
    kind: ShardKind
    shard_ids: list[str]
    numbers: list[int]


class AttemptRunning(_Event, frozen=True, kw_only=True):
    """
    The attempt's environment is ready; of a service: it serves.

    Args:
        variables: of a service, what those that it serves are told of it.
    """

    shard_id: str
    token: int
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)


class CasesFinished(_Event, frozen=True, kw_only=True):
    """Cases whose results were accepted; without a worker those of the cache."""

    shard_id: str
    task_id: str
    token: int
    worker_id: str
    results: tuple[KeptResult, ...]


class WrongHit(_Event, frozen=True, kw_only=True):
    """A sampled case did not end as the cache has it: what is cached of its file under the same key is wrong."""

    task_id: str
    case_id: str
    file: str
    outcome: Outcome
    cached_from: CacheOrigin


class CasesAskedBack(_Event, frozen=True, kw_only=True):
    """
    Slots are idle that could run these cases of a running shard: its worker is asked for those it has not started.

    Args:
        parts: over how many slots what comes back is to be dealt.
    """

    shard_id: str
    task_id: str
    token: int
    case_ids: tuple[str, ...]
    parts: int = 1


class CasesHandedBack(_Event, frozen=True, kw_only=True):
    """
    The worker's answer: cases that the attempt will not run, perhaps none. From now on they belong to new shards.

    Args:
        shards: their `cases` are indexes into `case_ids`.
    """

    shard_id: str
    task_id: str
    token: int
    case_ids: tuple[str, ...] = ()
    shards: tuple[ShardPlan, ...] = ()


class GangStarted(_Event, frozen=True, kw_only=True):
    """Every shard of a gang is ready; all of them begin at `start_at`."""

    task_id: str
    start_at: datetime


class GangBroken(_Event, frozen=True, kw_only=True):
    """A shard of a gang was lost: the others are stopped, and all of them begin again together."""

    task_id: str
    reason: str = ""
    grace: timedelta = timedelta(seconds=10)


class LoadSampled(_Event, frozen=True, kw_only=True):
    """What one generator of a load test did in one second."""

    shard_id: str
    task_id: str
    token: int
    sample: LoadSample


class PerformanceMeasured(_Event, frozen=True, kw_only=True):
    """
    What all generators of a load test measured over the last seconds: for those who watch.

    Args:
        second: how many seconds have been measured.
        window: over how long the figures go.
        offered: arrivals in a second, in the open model.
        throughput: requests that ended in a second.
        error_rate: the share of them that failed.
    """

    task_id: str
    second: int
    window: timedelta
    users: int = 0
    offered: float = 0.0
    throughput: float = 0.0
    error_rate: float = 0.0
    p50: timedelta = timedelta()
    p95: timedelta = timedelta()
    p99: timedelta = timedelta()


class CoverageUpdated(_Event, frozen=True, kw_only=True):
    """
    More has been executed than was known.

    Args:
        task_id: of the task that combines it.
        files: by path, all that is known of those of which more is known now; `combined`: all that there are, as that
            task has worked it out.
        totals: of all files so far.
    """

    task_id: str
    files: Mapping[str, FileCoverage]
    totals: CoverageTotals
    combined: bool = False


class ArtifactsSaved(_Event, frozen=True, kw_only=True):
    """Files that an attempt left behind."""

    shard_id: str
    task_id: str
    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...] = ()


class AttemptEnded(_Event, frozen=True, kw_only=True):
    """An attempt is over. With `will_retry` its shard is queued again, not before `retry_at`."""

    shard_id: str
    task_id: str
    token: int
    verdict: Verdict
    reason: str = ""
    usage: ResourceUsage = ResourceUsage()
    will_retry: bool = False
    retry_at: datetime | None = None
    case_ids: tuple[str, ...] = ()
    """With `will_retry`: the cases that the next attempt runs; empty means those that the shard was planned with."""


class DoneAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A short attempt that went well, as its worker told of it at once. Only earlier versions wrote a `reason`."""

    shard_id: str
    token: int
    results: tuple[KeptResult, ...]
    reason: str = ""
    usage: ResourceUsage | None = None


class AttemptsDone(_Event, frozen=True, kw_only=True):
    """
    Short attempts that went well: of each what `AttemptRunning`, `CasesFinished` and `AttemptEnded` say.

    There may be hundreds in a commit: the list grows while it is made.
    """

    task_id: str
    worker_id: str
    attempts: list[DoneAttempt]


class AttemptDone(_Event, frozen=True, kw_only=True):
    """A short attempt that went well, in logs of earlier versions."""

    shard_id: str
    task_id: str
    token: int
    worker_id: str
    results: tuple[KeptResult, ...]
    reason: str = ""
    usage: ResourceUsage = ResourceUsage()


class TaskEnded(_Event, frozen=True, kw_only=True):
    """A task has come to one of its six ends."""

    task_id: str
    state: TaskState
    reason: str = ""


class CancelRequested(_Event, frozen=True, kw_only=True):
    """
    Somebody, or `fail_fast`, wants a task (or with an empty `task_id` the run) stopped.

    Args:
        spares: the task of the run whose running cases may finish, whatever becomes of the others'.
    """

    task_id: str = ""
    by: str = ""
    reason: str = ""
    grace: timedelta = timedelta(seconds=10)
    finish_running_case: bool = False
    spares: str = ""

    @property
    def waits(self) -> bool:
        """Whether some running case may finish."""
        return self.finish_running_case or bool(self.spares)

    def for_task(self, task_id: str) -> CancelRequested:
        """What it means for one task."""
        return msgspec.structs.replace(
            self, spares="", finish_running_case=self.finish_running_case or self.spares == task_id
        )


class RunEnded(_Event, frozen=True, kw_only=True):
    """The last event of every run."""

    state: RunState
    reason: str = ""


Event = (
    RunSubmitted
    | TaskQueued
    | TaskPlanned
    | AttemptStarted
    | AttemptsStarted
    | AttemptRunning
    | CasesFinished
    | WrongHit
    | CasesAskedBack
    | CasesHandedBack
    | GangStarted
    | GangBroken
    | CoverageUpdated
    | LoadSampled
    | PerformanceMeasured
    | ArtifactsSaved
    | AttemptEnded
    | AttemptDone
    | AttemptsDone
    | TaskEnded
    | CancelRequested
    | RunEnded
)

Finished = AttemptDone | AttemptsDone | CasesFinished
"""Events with results of cases."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Event, ...])


def results_of(event: Event) -> Iterator[tuple[str, KeptResult]]:
    """The results of cases that an event tells, each with its shard's id."""
    told = event.attempts if isinstance(event, AttemptsDone) else (event,) if isinstance(event, Finished) else ()
    return ((each.shard_id, result) for each in told for result in each.results)


def encode(events: Sequence[Event]) -> bytes:
    """The stored form of a commit."""
    return _ENCODER.encode(tuple(events))


def decode(data: bytes) -> tuple[Event, ...]:
    """
    The events of a commit.

    Raises:
        msgspec.DecodeError: `data` is no commit, or from a newer version that this one cannot read.
    """
    return _DECODER.decode(data)
