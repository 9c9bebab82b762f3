"""
A commit in the making.

Attempts begin and end by the hundred, so what a worker begins or ends of a task one after the other is told in one
event, which grows. Each is applied at once all the same: the next decision follows from it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from fleetest.common.errors import LeaseLost
from fleetest.master.runs.events import AttemptsDone, AttemptsStarted, CancelRequested, DoneAttempt, Event
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import Attempt, ShardStatus, TaskStatus

__all__ = ["Draft"]

_Growing = TypeVar("_Growing", AttemptsDone, AttemptsStarted)


class Draft:
    """
    What is decided is collected here, and applied at once.

    Attributes:
        events: what the commit will hold, in order; applied to `status` already.
        facts: how many things were decided so far; the newest event may tell of several.
        position: of the commit.
        enqueue: shards that wait for a worker once the commit is durable.
        stop: shards whose attempts must be told to stop then, and why.
        ask_back: shards whose workers must be asked then for cases that they have not started.
        start: gangs whose shards must be told then when to begin.
    """

    def __init__(self, status: RunStatus, now: datetime) -> None:
        self.status = status
        self.now = now
        self.position = status.position + 1
        self.events: list[Event] = []
        self.facts = 0
        self.enqueue: list[ShardStatus] = []
        self.stop: list[tuple[ShardStatus, CancelRequested]] = []
        self.ask_back: list[ShardStatus] = []
        self.start: list[TaskStatus] = []

    def attempt(self, shard_id: str, token: int) -> tuple[ShardStatus, Attempt]:
        """
        A live attempt, with its shard.

        Raises:
            LeaseLost: it is over.
        """
        shard = self.status.shard(shard_id)
        if shard is None or shard.attempt is None or shard.attempt.token != token:
            raise LeaseLost(f"attempt {token} at {shard_id} of run {self.status.run_id} is over")
        return shard, shard.attempt

    def emit(self, event: Event) -> None:
        """This has become true."""
        self.events.append(event)
        self.facts += 1
        self.status.apply(event, self.position)

    def add_done(self, status: TaskStatus, shard: ShardStatus, done: DoneAttempt, worker_id: str) -> None:
        """A short attempt has gone well."""
        event = self._growing(AttemptsDone, status, worker_id)
        if event is None:
            event = AttemptsDone(at=self.now, task_id=status.task.name, worker_id=worker_id, attempts=[])
            self.events.append(event)
        event.attempts.append(done)
        self.facts += 1
        self.status.finish(status, shard, done, worker_id, self.position)

    def add_started(self, status: TaskStatus, shard: ShardStatus, worker_id: str, instance: str) -> None:
        """A worker is given a shard."""
        event = self._growing(AttemptsStarted, status, worker_id)
        if event is None or event.instance != instance or event.kind is not shard.kind:
            event = AttemptsStarted(
                at=self.now,
                task_id=status.task.name,
                worker_id=worker_id,
                instance=instance,
                kind=shard.kind,
                shard_ids=[],
                numbers=[],
            )
            self.events.append(event)
        number = shard.attempts + 1
        event.shard_ids.append(shard.shard_id)
        event.numbers.append(number)
        self.facts += 1
        self.status.start(status, shard, event, number, self.position)

    def _growing(self, kind: type[_Growing], status: TaskStatus, worker_id: str) -> _Growing | None:
        """The newest event, when it can tell of one more attempt at a task by a worker."""
        newest = self.events[-1] if self.events else None
        if isinstance(newest, kind) and newest.task_id == status.task.name and newest.worker_id == worker_id:
            return newest
        return None
