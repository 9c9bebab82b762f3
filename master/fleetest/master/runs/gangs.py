"""
The rules of gangs: tasks whose shards begin together.

Before the common start, whatever is lost makes all of them begin again. After it, the task says what a lost shard
means: `abort` lets all begin again, `end` ends all, and `continue` lets the others go on: then the task says at its end
that one is missing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fleetest.common.states import ShardKind, Verdict
from fleetest.common.tasks import OnLost
from fleetest.master.runs.events import CancelRequested, GangBroken
from fleetest.master.runs.task_status import ShardStatus, TaskStatus

__all__ = ["BROKEN_GANG", "GANG_NOTICE", "begins_again", "gang_is_ready", "goes_on_without", "missing", "stop_of"]

BROKEN_GANG: Final = "gang"
"""The value of `CancelRequested.by` when a shard was lost that nobody can make again."""

GANG_NOTICE: Final = timedelta(seconds=1)
"""Between the moment when all are ready and their start: so long may a word take to the last worker."""


def gang_is_ready(status: TaskStatus) -> bool:
    """Whether all its shards have their environments ready, and nobody told them to begin yet."""
    return (
        status.gang_start is None
        and status.gang_break is None
        and status.live == status.open_shards
        and all(shard.attempt is not None and shard.attempt.running for shard in status.live_attempts)
    )


def goes_on_without(status: TaskStatus) -> bool:
    """Whether the other shards of the gang go on when one is lost."""
    return status.task.gang is OnLost.CONTINUE and status.gang_start is not None


def begins_again(status: TaskStatus) -> bool:
    """Whether all shards of the gang begin again when one is lost."""
    return status.task.gang is OnLost.ABORT or status.gang_start is None


def missing(status: TaskStatus) -> list[ShardStatus]:
    """The shards that a gang went on without; none when nothing came of the others either."""
    if status.task.gang is not OnLost.CONTINUE:
        return []
    shards = [shard for shard in status.shards.values() if shard.kind is ShardKind.EXECUTE]
    survived = any(shard.verdict is Verdict.COMPLETED for shard in shards)
    return [shard for shard in shards if shard.verdict in {Verdict.LOST, Verdict.ERRORED}] if survived else []


def stop_of(broken: GangBroken) -> CancelRequested:
    """What the workers of a broken gang are told."""
    return CancelRequested(
        at=broken.at, task_id=broken.task_id, by=BROKEN_GANG, reason=broken.reason, grace=broken.grace
    )
