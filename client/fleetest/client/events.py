"""
The log of a run as a client sees it: commits, each with the events that became true together.

Events that this version does not know yet are left out of a commit; its position still counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from fleetest.client.values import Run
from fleetest.common.coverage import CoverageTotals
from fleetest.common.results import Artifact, CacheOrigin, CaseResult, PlannedCase, ResourceUsage
from fleetest.common.states import Outcome, RunState, ShardKind, TaskState, Verdict

__all__ = [
    "ArtifactsSaved",
    "AttemptEnded",
    "AttemptRunning",
    "AttemptStarted",
    "CancelRequested",
    "CasesAskedBack",
    "CasesFinished",
    "CasesHandedBack",
    "Commit",
    "CoverageUpdated",
    "GangBroken",
    "GangStarted",
    "PerformanceMeasured",
    "RunEnded",
    "RunEvent",
    "RunSubmitted",
    "TaskEnded",
    "TaskPlanned",
    "TaskQueued",
    "WrongHit",
]


class RunSubmitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The run as it was at the beginning, its tasks included."""

    at: datetime
    run: Run


class TaskQueued(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that the task needs has ended well."""

    at: datetime
    task_id: str


class TaskPlanned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The task's cases are known; `predicted` is how long all of them together should take."""

    at: datetime
    task_id: str
    cases: tuple[PlannedCase, ...]
    shards: int = 0
    predicted: timedelta | None = None
    deselected: int = 0


class AttemptStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker has the shard; the commit's position is the attempt's token."""

    at: datetime
    shard_id: str
    task_id: str
    number: int
    worker_id: str
    kind: ShardKind


class AttemptRunning(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The attempt's environment is ready; tests start."""

    at: datetime
    shard_id: str
    token: int


class CasesFinished(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Results that were accepted; without a worker those of the cache."""

    at: datetime
    shard_id: str
    task_id: str
    token: int
    worker_id: str
    results: tuple[CaseResult, ...]


class WrongHit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A case that was run as a check of the cache ended otherwise than that has it."""

    at: datetime
    task_id: str
    case_id: str
    file: str
    outcome: Outcome
    cached_from: CacheOrigin


class CasesAskedBack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Slots are idle: the worker of a running shard is asked for cases that it has not started."""

    at: datetime
    shard_id: str
    task_id: str
    token: int
    case_ids: tuple[str, ...]


class CasesHandedBack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the worker gave up, perhaps nothing; `shards` new shards run it."""

    at: datetime
    shard_id: str
    task_id: str
    token: int
    case_ids: tuple[str, ...] = ()
    shards: int = 0


class GangStarted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Every shard of a gang is ready; all of them begin at `start_at`, by the cluster's clock."""

    at: datetime
    task_id: str
    start_at: datetime


class GangBroken(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A shard of a gang was lost: the others are stopped, and all begin again together."""

    at: datetime
    task_id: str
    reason: str = ""


class PerformanceMeasured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What all generators of a load test measured together over the last seconds.

    Args:
        second: how many seconds have been measured.
        window: over how long the figures go.
        offered: arrivals in a second, in the open model.
        throughput: requests that ended in a second.
        error_rate: the share of them that failed, from 0 to 1.
    """

    at: datetime
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


class CoverageUpdated(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    More has been executed than was known.

    Args:
        task_id: of the task that combines it.
        combined: whether that has worked it out; before, running tests tell of lines alone.
    """

    at: datetime
    task_id: str
    totals: CoverageTotals
    combined: bool = False


class ArtifactsSaved(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    Files that can be downloaded now.

    Args:
        problems: what should have been kept and was not, and why.
    """

    at: datetime
    shard_id: str
    task_id: str
    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...] = ()


class AttemptEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An attempt is over; with `will_retry` its shard is queued again."""

    at: datetime
    shard_id: str
    task_id: str
    token: int
    verdict: Verdict
    reason: str = ""
    usage: ResourceUsage = ResourceUsage()
    will_retry: bool = False


class TaskEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task has come to one of its ends."""

    at: datetime
    task_id: str
    state: TaskState
    reason: str = ""


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Somebody wants a task, or with an empty `task_id` the run, stopped."""

    at: datetime
    task_id: str = ""
    by: str = ""
    reason: str = ""


class RunEnded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last event of every run."""

    at: datetime
    state: RunState
    reason: str = ""


RunEvent = (
    RunSubmitted
    | TaskQueued
    | TaskPlanned
    | AttemptStarted
    | AttemptRunning
    | CasesFinished
    | WrongHit
    | CasesAskedBack
    | CasesHandedBack
    | GangStarted
    | GangBroken
    | CoverageUpdated
    | PerformanceMeasured
    | ArtifactsSaved
    | AttemptEnded
    | TaskEnded
    | CancelRequested
    | RunEnded
)


class Commit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry of the log; positions grow by one, from 1."""

    position: int
    at: datetime
    events: tuple[RunEvent, ...]
