"""
What the client answers: a run and its parts as they were when asked. Times are aware UTC, sizes bytes.

Structs of msgspec, since dataclasses take ten times as long to make, while whoever ran the command waits; but for those
of which something is not to be shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from fleetest.common.coverage import CoverageTotals
from fleetest.common.load import LoadRow
from fleetest.common.results import Artifact, CaseResult, Counts, ResourceSample, ResourceUsage
from fleetest.common.states import RunState, TaskState, WorkerState
from fleetest.common.tasks import Resources
from fleetest.common.version_control import VersionControl

__all__ = [
    "CaseRecord",
    "LogChunk",
    "Reason",
    "ReasonKind",
    "Run",
    "RunCoverage",
    "ServerInfo",
    "TaskArtifact",
    "TaskExplanation",
    "TaskStatus",
    "Token",
    "TokenAccess",
    "TokenKind",
    "Worker",
]


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    A task of a run.

    Args:
        task_id: its name in the suite, matrix values included.
        reason: why it ended so, or why it waits; one line.
        predicted: work still to do, from recorded durations; `None` when nothing is known.
        not_kept: what should have been kept as an artifact and was not, and why; the first of them.
        usage: of all its attempts so far; the peak of memory is the highest of one.
        requested: what a worker must have in all for one shard.
        packed: what one shard takes of a worker's free room: as requested, or by what earlier runs used.
        wrong_hits: cases that ended otherwise than the cache had said of them.
        planned: whether its cases are collected before they run.
        load: of a load test, what was measured so far, by the names of requests; that of all together comes last.
    """

    task_id: str
    type: str
    state: TaskState
    reason: str = ""
    needs: tuple[str, ...] = ()
    priority: int = 0
    counts: Counts = Counts()
    shards: int = 0
    shards_done: int = 0
    attempts: int = 0
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    predicted: timedelta | None = None
    artifacts: tuple[Artifact, ...] = ()
    not_kept: tuple[str, ...] = ()
    usage: ResourceUsage = ResourceUsage()
    requested: Resources = Resources()
    packed: Resources = Resources()
    wrong_hits: int = 0
    planned: bool = True
    load: tuple[LoadRow, ...] = ()


class RunCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run's tests have executed.

    Args:
        task_id: of the task that combines it.
        combined: whether that has worked it out; before, it is what running tests have told so far, without branches.
        files: how many there are.
        worst: those with the most that was not executed, by path; at most 10.
    """

    task_id: str
    totals: CoverageTotals
    combined: bool = False
    files: int = 0
    worst: Mapping[str, CoverageTotals] = msgspec.field(default_factory=dict)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run.

    Args:
        retry_of: the run that this one repeats; empty for a first one.
        position: of the last commit that this answer contains; `watch` goes on from there.
        suite: the suite's text as submitted; empty in lists.
        environment: which of the suite's environments it is in; empty without one.
        coverage: what its tests have executed; nothing when that is not measured, or not yet known.
    """

    run_id: str
    project: str
    suite_name: str
    state: RunState
    submitted_at: datetime
    ended_at: datetime | None = None
    reason: str = ""
    tasks: tuple[TaskStatus, ...] = ()
    counts: Counts = Counts()
    version_control: VersionControl = VersionControl()
    workspace_digest: str = ""
    user: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    retry_of: str = ""
    position: int = 0
    suite: str = ""
    environment: str = ""
    coverage: tuple[RunCoverage, ...] = ()


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A case of a run with its last accepted result. `flaky` when its attempts disagreed and the last was good."""

    task_id: str
    result: CaseResult
    flaky: bool = False
    attempts: int = 1
    worker_id: str = ""
    shard_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of what an attempt's processes wrote; `truncated`: output past the limit was dropped here."""

    shard_id: str
    token: int
    offset_bytes: int
    content: bytes = field(repr=False)
    truncated: bool = False


class ReasonKind(StrEnum):
    """What keeps a task from running; `unknown` is one that a newer master knows."""

    UNKNOWN = "unknown"
    WAITS_FOR_TASK = "waits_for_task"
    NO_WORKERS = "no_workers"
    MISSING_CAPABILITY = "missing_capability"
    TOO_LARGE = "too_large"
    WORKERS_BUSY = "workers_busy"
    WORKERS_DRAINING = "workers_draining"
    WORKERS_NOT_READY = "workers_not_ready"
    BEHIND_OTHERS = "behind_others"
    RETRY_WAIT = "retry_wait"
    RUNS = "runs"
    ENDED = "ended"
    STOPPING = "stopping"
    WAITS_FOR_RESOURCE = "waits_for_resource"
    WAITS_FOR_INPUTS = "waits_for_inputs"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that keeps a task from running.

    Args:
        message: a sentence for people.
        workers: how many of `workers_total` workers this concerns.
        constraint: `browser=chromium`, `memory 64 GiB`, a task's or a resource's name.
        queue_position: 1 is next; 0 when it is not queued.
    """

    kind: ReasonKind
    message: str
    workers: int = 0
    workers_total: int = 0
    constraint: str = ""
    queue_position: int = 0


class TaskExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task is not running, or where it does."""

    task_id: str
    state: TaskState
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskArtifact:
    """
    A file that a task left behind, and which shard did.

    Args:
        url: by which anybody can read it, for a while; empty when none was asked for, or the store has none.
    """

    task_id: str
    shard_id: str
    artifact: Artifact
    run_id: str = ""
    url: str = field(default="", repr=False)


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """
    An agent of the cluster.

    Args:
        attempts: what it runs, as `(run id, shard id)`.
        ready: false when its infrastructure failed repeatedly; `not_ready_reason` says how.
        speed: of its tests, compared with other workers'; 1 is usual, `None` when it is not known.
    """

    worker_id: str
    state: WorkerState
    version: str = ""
    hostname: str = ""
    capabilities: Mapping[str, str] = msgspec.field(default_factory=dict)
    capacity: Resources = Resources()
    free: Resources = Resources()
    slots: int = 0
    slots_used: int = 0
    host: ResourceSample | None = None
    attempts: tuple[tuple[str, str], ...] = ()
    registered_at: datetime | None = None
    last_seen_at: datetime | None = None
    ready: bool = True
    not_ready_reason: str = ""
    speed: float | None = None


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers at the master's address."""

    version: str
    protocol: int
    oldest_protocol: int
    active_runs: int = 0
    workers: int = 0


class TokenKind(StrEnum):
    """Whom a token lets in: clients, or workers that join."""

    CLIENT = "client"
    JOIN = "join"


class TokenAccess(StrEnum):
    """How much a client's token allows; each includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the master keeps of a token; nothing of it is secret.

    Args:
        expires_at: `None` means never.
        project: of a client: the only one that it has to do with; empty means all.
        access: of a client; `None` for those who join.
        worker_id_prefix: of workers: how their ids begin.
        required_labels: of workers: capabilities that they must offer.
        most_workers: how many different ones may join; 0 means any number, and then they are not counted.
    """

    token_id: str
    kind: TokenKind
    description: str = ""
    created_at: datetime | None = None
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str = ""
    project: str = ""
    access: TokenAccess | None = None
    worker_id_prefix: str = ""
    required_labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    most_workers: int = 0
    workers_joined: int = 0
