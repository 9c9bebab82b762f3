"""
A run in one document, as it is listed and shown: derived from `RunStatus`, kept as a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from fleetest.common.coverage import CoverageTotals
from fleetest.common.load import LoadRow
from fleetest.common.results import Artifact, Counts, ResourceUsage
from fleetest.common.states import RunState, TaskState
from fleetest.common.tasks import Resources
from fleetest.common.version_control import VersionControl
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import TaskStatus
from fleetest.master.store.ports import RunRow

__all__ = ["CoverageSummary", "RunSummary", "ShardArtifact", "TaskSummary", "row_of", "summary_of", "summary_of_row"]


class ShardArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact and the shard that left it."""

    shard_id: str
    artifact: Artifact


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as listed."""

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
    artifacts: tuple[ShardArtifact, ...] = ()
    not_kept: tuple[str, ...] = ()
    usage: ResourceUsage = ResourceUsage()
    requested: Resources = Resources()
    packed: Resources = Resources()
    wrong_hits: int = 0
    planned: bool = False
    load: tuple[LoadRow, ...] = ()


class CoverageSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What tests have executed.

    Args:
        task_id: of the task that combines it.
        combined: whether that has worked it out.
        files: how many there are.
        worst: those with the most that was not executed.
    """

    task_id: str
    totals: CoverageTotals
    combined: bool = False
    files: int = 0
    worst: tuple[tuple[str, CoverageTotals], ...] = ()


class RunSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as listed."""

    run_id: str
    project: str
    suite_name: str
    state: RunState
    position: int
    submitted_at: datetime
    reason: str = ""
    ended_at: datetime | None = None
    tasks: tuple[TaskSummary, ...] = ()
    counts: Counts = Counts()
    version_control: VersionControl = VersionControl()
    workspace_digest: str = ""
    user: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    retry_of: str = ""
    suite: str = ""
    environment: str = ""
    coverage: tuple[CoverageSummary, ...] = ()


def summary_of(status: RunStatus) -> RunSummary:
    """The summary of what has been applied so far."""
    request = status.request
    return RunSummary(
        run_id=status.run_id,
        project=request.project,
        suite_name=request.suite_name,
        state=status.state,
        position=status.position,
        submitted_at=request.at,
        reason=status.reason,
        ended_at=status.ended_at,
        tasks=tuple(_task_summary(task) for task in status.tasks.values()),
        counts=status.counts,
        version_control=request.version_control,
        workspace_digest=request.workspace_digest,
        user=request.user,
        labels=request.labels,
        retry_of=request.retry_of,
        suite=request.suite_text,
        environment=request.environment,
        coverage=tuple(
            CoverageSummary(
                task_id=task_id,
                totals=table.totals,
                combined=table.combined,
                files=len(table.files),
                worst=tuple(table.worst()),
            )
            for task_id, table in status.coverage.items()
        ),
    )


def row_of(summary: RunSummary) -> RunRow:
    """The stored form."""
    body = msgspec.to_builtins(summary)
    return RunRow(
        run_id=summary.run_id,
        project=summary.project,
        suite_name=summary.suite_name,
        branch=summary.version_control.branch,
        state=summary.state,
        submitted_at=summary.submitted_at,
        ended_at=summary.ended_at,
        position=summary.position,
        body=body,
    )


def summary_of_row(row: RunRow) -> RunSummary:
    """
    Raises:
        msgspec.ValidationError: the row was written by a newer version.
    """
    return msgspec.convert(row.body, RunSummary)


def _task_summary(status: TaskStatus) -> TaskSummary:
    return TaskSummary(
        task_id=status.task.name,
        type=status.task.type,
        planned=status.task.planned,
        state=status.state,
        reason=status.reason,
        needs=tuple(need.task for need in status.task.needs),
        priority=status.task.priority,
        counts=status.counts,
        shards=len(status.shards),
        shards_done=len(status.shards) - status.open_shards,
        attempts=status.attempts,
        queued_at=status.queued_at,
        started_at=status.started_at,
        ended_at=status.ended_at,
        predicted=status.predicted,
        artifacts=tuple(
            ShardArtifact(shard_id=shard_id, artifact=artifact) for (shard_id, _), artifact in status.artifacts.items()
        ),
        not_kept=status.not_kept,
        usage=status.usage,
        requested=status.task.resources,
        packed=status.packed,
        wrong_hits=status.wrong_hits,
        load=status.measured.rows() if status.measured is not None else (),
    )
