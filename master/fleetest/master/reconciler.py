"""
Makes coordination agree with the log again.

Whatever a master that died, or a Redis that lost its memory, left undone is found here by looking: shards that wait
but are in no queue, attempts whose worker is gone, time limits that passed, projections that lag. Every repair is an
ordinary request to the run's keeper, so two masters may reconcile at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError, LeaseLost
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.master.dispatcher import Dispatcher
from fleetest.master.queue.ports import SecretStore, ShardQueue, WorkerRegistry
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import CancelRequested
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.state import RunStatus, ShardStatus
from fleetest.master.sessions import Sessions
from fleetest.master.store.ports import RunQuery, RunRow, Store

__all__ = ["Reconciler"]

_log = structlog.get_logger()

STOP_MARGIN: Final = timedelta(seconds=15)
"""How much longer than its grace an attempt may take to stop before it is ended without its worker's word."""

_PAGE: Final = 200


class Reconciler:
    """
    Args:
        interval: between two looks.
        lease_ttl: how long a worker may be unknown to the registry before its attempts are lost.
    """

    def __init__(
        self,
        *,
        store: Store,
        queue: ShardQueue,
        registry: WorkerRegistry,
        secrets: SecretStore,
        book: RunBook,
        projector: Projector,
        dispatcher: Dispatcher,
        sessions: Sessions,
        clock: Clock,
        interval: timedelta,
        lease_ttl: timedelta,
    ) -> None:
        self._store = store
        self._queue = queue
        self._registry = registry
        self._secrets = secrets
        self._book = book
        self._projector = projector
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._clock = clock
        self._interval = interval
        self._lease_ttl = lease_ttl
        self._missing_since: dict[tuple[str, str], datetime] = {}
        self._soon = asyncio.Event()

    def look_soon(self) -> None:
        """Something happened that makes a look worth while now: a worker came back as another instance."""
        self._soon.set()

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            self._soon.clear()
            try:
                await self.look()
            except FleetestError as error:
                _log.warning("reconciliation_failed", error=str(error))
            try:
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._soon.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """
        One look at everything that lives.

        Raises:
            DependencyUnavailable: the store or Redis does not answer.
        """
        if await self._queue.return_expired():
            self._dispatcher.wake()
        living = {worker.worker_id: worker.instance for worker in await self._registry.list() if not worker.offline}
        for session in self._sessions:
            living[session.presence.worker_id] = session.presence.instance
        before = ""
        while rows := await self._store.list_runs(RunQuery(state=RunState.RUNNING, before_run_id=before, limit=_PAGE)):
            for row in rows:
                await self._look_at(row, living)
            before = rows[-1].run_id

    async def _look_at(self, row: RunRow, living: Mapping[str, str]) -> None:
        keeper = self._book.keeper(row.run_id)
        status = await keeper.status()
        if row.position < status.position:
            await self._projector.flush(row.run_id)
            current = await self._store.get_run(row.run_id)
            if current is not None and current.position < status.position:
                await self._projector.rebuild(status)
        if status.state.ended:
            await self._secrets.drop(row.run_id)
            return
        await self._requeue(status)
        now = self._clock.now()
        lost = [shard for shard in _live(status) if self._is_lost(shard, living, now)]
        stuck = [shard for shard in _live(status) if _is_stuck(status, shard, now)]
        tired = [task_id for task_id in status.tasks if _waited_too_long(status, task_id, now)]
        if lost or stuck or tired:
            await keeper.ask(partial(_end, lost, stuck, tired))

    async def _requeue(self, status: RunStatus) -> None:
        waiting = [
            shard
            for task in status.tasks.values()
            if not task.state.ended and task.stop is None
            for shard in task.shards.values()
            if shard.waiting
        ]
        queued = await self._queue.waiting(status.run_id)
        wanted = {shard.shard_id for shard in waiting}
        if wanted - queued:
            await self._book.enqueue(status, [shard for shard in waiting if shard.shard_id not in queued])
            self._dispatcher.wake()
        if leftover := queued - wanted:
            await self._queue.remove(status.run_id, sorted(leftover))

    def _is_lost(self, shard: ShardStatus, living: Mapping[str, str], now: datetime) -> bool:
        """
        A worker that came back as another instance has lost its attempts at once. One that is unknown has them
        until its lease must have run out: the registry itself may just have been emptied.
        """
        assert shard.attempt is not None
        key = (shard.attempt.worker_id, shard.attempt.instance)
        instance = living.get(shard.attempt.worker_id)
        if instance == shard.attempt.instance:
            self._missing_since.pop(key, None)
            return False
        if instance is not None:
            return True
        return now - self._missing_since.setdefault(key, now) >= self._lease_ttl


def _live(status: RunStatus) -> list[ShardStatus]:
    return [shard for task in status.tasks.values() for shard in task.live_attempts]


def _is_stuck(status: RunStatus, shard: ShardStatus, now: datetime) -> bool:
    stop: CancelRequested | None = status.tasks[shard.task_id].stop
    if stop is None or stop.finish_running_case:
        return False
    return now - stop.at > stop.grace + STOP_MARGIN


def _waited_too_long(status: RunStatus, task_id: str, now: datetime) -> bool:
    task = status.tasks[task_id]
    limit = task.task.timeouts.queue
    return (
        limit is not None
        and task.state is TaskState.QUEUED
        and task.queued_at is not None
        and now - task.queued_at > limit
    )


def _end(lost: list[ShardStatus], stuck: list[ShardStatus], tired: list[str], decider: Decider) -> None:
    for shard in lost:
        _end_attempt(decider, shard, Verdict.LOST, "its worker is gone")
    for shard in stuck:
        _end_attempt(decider, shard, Verdict.CANCELLED, "its worker did not confirm the stop")
    for task_id in tired:
        decider.give_up_waiting(task_id)


def _end_attempt(decider: Decider, shard: ShardStatus, verdict: Verdict, reason: str) -> None:
    """`shard` was looked at before; the decider's own state tells whether its attempt still lives."""
    current = decider.status.shard(shard.shard_id)
    if current is None or current.attempt is None or shard.attempt is None:
        return
    if current.attempt.token == shard.attempt.token:
        try:
            decider.attempt_ended(current.shard_id, current.attempt.token, verdict, reason)
        except LeaseLost:  # ended by an end before it in this very request
            return
