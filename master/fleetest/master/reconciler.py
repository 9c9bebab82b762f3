"""
Makes coordination agree with the log again.

Whatever a master that died, or a Redis that lost its memory, left undone is found here by looking: shards that wait
but are in no queue, attempts whose worker is gone, time limits that passed, projections that lag. Every repair is an
ordinary request to the run's keeper, so two masters may reconcile at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError, LeaseLost
from fleetest.common.states import RunState, TaskState, Verdict
from fleetest.master.dispatcher import Dispatcher
from fleetest.master.queue.ports import (
    Presence,
    ResourceLedger,
    SecretStore,
    ShardQueue,
    WorkerRegistry,
)
from fleetest.master.resources import ResourceAudit
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import CancelRequested
from fleetest.master.runs.importing import break_off_import, last_written
from fleetest.master.runs.keeper import RunKeeper
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import ShardStatus
from fleetest.master.sessions import AttemptRef, Sessions
from fleetest.master.store.ports import RunQuery, RunRow, Store

__all__ = ["Reconciler"]

_log = structlog.get_logger()

STOP_MARGIN: Final = timedelta(seconds=15)
"""How much longer than its grace an attempt may take to stop before it is ended without its worker's word."""

IMPORT_PATIENCE: Final = timedelta(minutes=1)
"""How long after its last commit an import that has not ended is given up: its master has died."""

_REPEAT_BEGIN: Final = timedelta(minutes=1)
"""For so long the shards of a gang are told that they have begun: a worker may have been between two masters."""

_PAGE: Final = 200

_THOROUGH: Final = 10
"""Of so many looks, one compares queue and log shard by shard; the others do when there are too few in the queue."""


class Reconciler:
    """
    Args:
        interval: between two looks.
        lease_ttl: how long a worker may be away before its attempts are lost.
        on_look: told what each run that goes on has come to.
    """

    def __init__(
        self,
        *,
        store: Store,
        queue: ShardQueue,
        resources: ResourceLedger,
        registry: WorkerRegistry,
        secrets: SecretStore,
        book: RunBook,
        projector: Projector,
        dispatcher: Dispatcher,
        sessions: Sessions,
        clock: Clock,
        interval: timedelta,
        lease_ttl: timedelta,
        on_look: Callable[[RunStatus], None] = lambda _status: None,
    ) -> None:
        self._store = store
        self._queue = queue
        self._on_look = on_look
        self._resources = ResourceAudit(resources, book)
        self._registry = registry
        self._secrets = secrets
        self._book = book
        self._projector = projector
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._clock = clock
        self._interval = interval
        self._lease_ttl = lease_ttl
        self._missing_since: dict[_Life, datetime] = {}
        self._undisturbed_since = clock.now()
        self._looks = 0
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
                self._undisturbed_since = self._clock.now()
                _log.warning("reconciliation_failed", error=str(error))
            try:
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._soon.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """
        One look at everything that lives. What is wrong with one run does not keep it from the others.

        Raises:
            DependencyUnavailable: the store or Redis does not answer.
        """
        self._looks += 1
        await self._queue.return_expired()
        self._dispatcher.wake()  # room that was kept for a shard may be free again, of which no word comes
        roll = await self._call_roll()
        await self._resources.begin()
        before = ""
        while rows := await self._store.list_runs(RunQuery(state=RunState.RUNNING, before_run_id=before, limit=_PAGE)):
            for row in rows:
                try:
                    await self._look_at(row, roll)
                except FleetestError as error:
                    self._resources.miss()
                    _log.warning("run_not_reconciled", run_id=row.run_id, error=str(error))
            before = rows[-1].run_id
        self._missing_since = roll.missing
        await self._resources.settle()
        await self._drop_secrets()

    async def _call_roll(self) -> _Roll:
        now = self._clock.now()
        before = set(self._sessions)  # of a stream that begins while we read, the registry's answer knows nothing
        workers = {worker.worker_id: worker for worker in await self._registry.list()}
        for session in self._sessions:
            known = workers.get(session.presence.worker_id)
            if known is not None and session in before:
                session.hear_from_registry(known)
            # What we hear ourselves counts, also when Redis was just emptied.
            if not session.over and now - session.presence.last_seen_at < self._lease_ttl:
                workers[session.presence.worker_id] = session.presence
        return _Roll(workers, now, self._lease_ttl, self._undisturbed_since, self._missing_since)

    async def _look_at(self, row: RunRow, roll: _Roll) -> None:
        keeper = self._book.keeper(row.run_id)
        if (await keeper.status()).request.imported:
            await self._look_at_import(keeper)
            await self._project(row, keeper)
            return
        count = await self._queue.count(row.run_id)  # before the state: what is queued in between is in both
        status = await keeper.newest_status()
        absent = self._looks % _THOROUGH == 1 or count < _waiting(status)
        if absent and not self._book.enqueues(row.run_id):  # thousands of shards take a while
            queued = await self._queue.waiting(row.run_id)
            status = await keeper.newest_status()
            await self._requeue(status, queued)
        now = self._clock.now()
        live = _live(status)
        lost = [_Held.of(shard) for shard in live if roll.is_lost(shard)]
        stuck = [_Held.of(shard) for shard in live if _is_stuck(status, shard, now)]
        astray = [_Held.of(shard) for shard in live if self._went_astray(status, shard, now)]
        tired = [task_id for task_id in status.tasks if _waited_too_long(status, task_id, now)]
        self._repeat_stops(status, now)
        self._on_look(status)
        if lost or stuck or astray or tired:
            await keeper.ask(partial(_end, lost, stuck, astray, tired))
        self._resources.see(await keeper.status())
        await self._project(row, keeper)

    async def _look_at_import(self, keeper: RunKeeper) -> None:
        """No queue and no worker has to do with it; but the master that was writing it may have died."""
        now = self._clock.now()
        if now - last_written(await keeper.newest_status()) > IMPORT_PATIENCE:
            await keeper.ask(break_off_import)

    async def _project(self, row: RunRow, keeper: RunKeeper) -> None:
        """For a master that died, or the one that does it just now: to do it twice harms nothing."""
        if row.position < (await keeper.status()).position:
            await self._projector.current(keeper)

    async def _requeue(self, status: RunStatus, queued: frozenset[str]) -> None:
        waiting = {
            shard.shard_id: shard
            for task in status.tasks.values()
            if task.open_shards and status.may_be_queued(task)
            for shard in task.shards.values()
            if shard.waiting
        }
        # Of what waits for a worker where its services were once, nobody may have told the queue.
        moved = {shard_id for shard_id in queued & waiting.keys() if _may_have_moved(status, waiting[shard_id])}
        absent = [shard for shard_id, shard in waiting.items() if shard_id not in queued or shard_id in moved]
        leftover = sorted((queued - waiting.keys()) | moved)
        if leftover:
            await self._queue.remove(status.run_id, leftover)
        if absent:
            await self._book.enqueue(status, absent)
            self._dispatcher.wake()

    async def _drop_secrets(self) -> None:
        """Those of runs that ended while Redis was away, or whose master died. A run's secrets come before the run."""
        for run_id in await self._secrets.held():
            row = await self._store.get_run(run_id)
            if row is not None and row.state.ended:
                await self._secrets.drop(run_id)

    def _repeat_stops(self, status: RunStatus, now: datetime) -> None:
        """A stop may have been said to a stream that broke, or by a master that did not reach us."""
        tasks = [
            task
            for task in status.tasks.values()
            if task.live and (stop := task.stop or task.gang_break) is not None and now - stop.at > self._interval
        ]
        self._book.repeat_stops(status, tasks)
        begun = [
            task
            for task in status.tasks.values()
            if task.gang_start is not None and self._interval < now - task.gang_start < _REPEAT_BEGIN
        ]
        self._book.tell_to_begin(status, begun)

    def _went_astray(self, status: RunStatus, shard: ShardStatus, now: datetime) -> bool:
        """
        Whether a worker whose stream is here never got the attempt: another master gave it to a stream that had ended
        without its knowing.
        """
        attempt = shard.attempt
        session = self._sessions.get(attempt.worker_id) if attempt is not None else None
        if attempt is None or session is None or session.over or session.presence.instance != attempt.instance:
            return False
        ref = AttemptRef(run_id=status.run_id, shard_id=shard.shard_id, token=attempt.token)
        return not session.holds(ref) and now - attempt.started_at >= self._lease_ttl


_Life = tuple[str, str]
"""A worker's id and instance."""


class _Roll:
    """
    Who is there, and who has been away for too long.

    Args:
        workers: those that the registry knows, offline ones included.
        undisturbed_since: since when Redis has answered: before that, nobody could renew a lease.
        missing_since: since when workers have been missed of whom the registry knows nothing: it may have been emptied.
    """

    def __init__(
        self,
        workers: Mapping[str, Presence],
        now: datetime,
        lease_ttl: timedelta,
        undisturbed_since: datetime,
        missing_since: Mapping[_Life, datetime],
    ) -> None:
        self._workers = workers
        self._now = now
        self._lease_ttl = lease_ttl
        self._undisturbed_since = undisturbed_since
        self._missing_before = missing_since
        self.missing: dict[_Life, datetime] = {}

    def is_lost(self, shard: ShardStatus) -> bool:
        """
        Whether the shard's attempt has no worker any more: at once when the worker came back as another instance,
        otherwise when its lease must have run out.
        """
        assert shard.attempt is not None
        life = (shard.attempt.worker_id, shard.attempt.instance)
        worker = self._workers.get(shard.attempt.worker_id)
        if worker is None:
            since = self.missing[life] = self._missing_before.get(life, self._now)
        elif worker.instance != shard.attempt.instance:
            return True
        elif worker.offline:
            since = max(worker.last_seen_at, self._undisturbed_since)
        else:
            return False
        return self._now - since >= self._lease_ttl


class _Held(NamedTuple):
    """An attempt as it was seen; by the time of the decision its shard may have another."""

    shard_id: str
    token: int

    @classmethod
    def of(cls, shard: ShardStatus) -> _Held:
        assert shard.attempt is not None
        return cls(shard.shard_id, shard.attempt.token)


def _waiting(status: RunStatus) -> int:
    """How many shards have to be in the queue, at least: those that are being started may still be in it."""
    return sum(
        task.open_shards - task.live
        for task in status.tasks.values()
        if task.open_shards and status.may_be_queued(task)
    )


def _may_have_moved(status: RunStatus, shard: ShardStatus) -> bool:
    """Whether a service that the shard's task needs was started more than once."""
    return any(status.tasks[service].attempts > 1 for service in status.tasks[shard.task_id].served_by)


def _live(status: RunStatus) -> list[ShardStatus]:
    return [shard for task in status.tasks.values() if task.live for shard in task.live_attempts]


def _is_stuck(status: RunStatus, shard: ShardStatus, now: datetime) -> bool:
    task = status.tasks[shard.task_id]
    if task.stop is None and task.gang_break is not None:
        return now - task.gang_break.at > task.gang_break.grace + STOP_MARGIN
    stop: CancelRequested | None = task.stop
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


def _end(
    lost: Sequence[_Held], stuck: Sequence[_Held], astray: Sequence[_Held], tired: Sequence[str], decider: Decider
) -> None:
    for held in lost:
        _end_attempt(decider, held, Verdict.LOST, "its worker is gone")
    for held in stuck:
        _end_attempt(decider, held, Verdict.CANCELLED, "its worker did not confirm the stop")
    for held in astray:
        _end_attempt(decider, held, Verdict.LOST, "it never reached its worker")
    for task_id in tired:
        decider.give_up_waiting(task_id)


def _end_attempt(decider: Decider, held: _Held, verdict: Verdict, reason: str) -> None:
    with contextlib.suppress(LeaseLost):  # ended since we looked, perhaps by an end before it in this very request
        decider.attempt_ended(held.shard_id, held.token, verdict, reason)
