"""
All runs that this master has to do with, and what their commits set in motion.

The log is written first; queues, workers and followers are told afterwards. If this process dies in between, or Redis
does not answer, the reconciler does it later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

import structlog
from msgspec.structs import replace

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError
from fleetest.common.states import ShardKind
from fleetest.master.queue.ports import (
    CommitNotice,
    QueueEntry,
    ResourceHold,
    ResourceLedger,
    SecretStore,
    ShardQueue,
)
from fleetest.master.runs.announcer import Announcer
from fleetest.master.runs.events import (
    AttemptEnded,
    AttemptRunning,
    AttemptsDone,
    CancelRequested,
    Event,
    RunEnded,
    TaskEnded,
    TaskPlanned,
)
from fleetest.master.runs.gangs import stop_of
from fleetest.master.runs.hub import Hub
from fleetest.master.runs.keeper import Committed, FirstCommit, Giver, RunKeeper, Turns
from fleetest.master.runs.projector import Projector
from fleetest.master.runs.services import asked_by, packed_by, required_by
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import ShardStatus, TaskStatus
from fleetest.master.sessions import AttemptRef, Begin, HandBack, Sessions, Stop
from fleetest.master.store.ports import Commit, Store

__all__ = ["STREAM_ENDED", "RunBook", "hold_of", "queue_entries"]

_log = structlog.get_logger()

_KEPT = 200
"""Ended runs whose state stays in memory, for those who still look at them."""


_UNQUEUING = (AttemptEnded, AttemptRunning, CancelRequested, TaskEnded)
_GIVING_BACK = (AttemptEnded, AttemptsDone)

STREAM_ENDED = "its stream ended before this was sent"
"""Why an attempt is declined that was never sent to its worker."""

_ENQUEUED_AT_ONCE = 1000
"""So many the run waits for."""


def queue_entries(status: RunStatus, shards: Iterable[ShardStatus]) -> Iterator[QueueEntry]:
    """
    What the queue must know of waiting shards. What those of a task have in common, and there may be thousands of them,
    is worked out once.
    """
    alike: dict[tuple[str, ShardKind], QueueEntry] = {}
    since: dict[str, Sequence[datetime]] = {}
    for shard in shards:
        key = shard.task_id, shard.kind
        if key not in alike:
            task = status.tasks[shard.task_id]
            alike[key] = _entry_like(status, task, shard.kind)
            since[shard.task_id] = _serves_since(status, task)
        waits_since = shard.queued_at
        if since[shard.task_id]:
            waits_since = min(since[shard.task_id] if waits_since is None else [*since[shard.task_id], waits_since])
        yield replace(
            alike[key],
            shard_id=shard.shard_id,
            enqueued_at=waits_since or status.request.at,
            not_before=shard.retry_at,
        )


def _entry_like(status: RunStatus, task: TaskStatus, kind: ShardKind) -> QueueEntry:
    """What the entries of a task's shards have in common."""
    return QueueEntry(
        run_id=status.run_id,
        shard_id="",
        enqueued_at=status.request.at,
        project=status.request.project,
        priority=task.task.priority,
        requirements=required_by(status, task),
        resources=asked_by(status, task),
        packed=packed_by(status, task),
        environment_key=status.environment_key(task),
        uses=task.task.uses if kind is ShardKind.EXECUTE else (),
        gang=task.open_shards if task.task.gang is not None else 0,
    )


def _serves_since(status: RunStatus, task: TaskStatus) -> Sequence[datetime]:
    """Whom a running service serves comes before services that were queued after it: those would wait beside it."""
    return [since for service in task.served_by if (since := status.tasks[service].queued_at) is not None]


def hold_of(status: RunStatus, shard: ShardStatus) -> ResourceHold | None:
    """What the shard's attempt has of named resources; `None` when it has nothing, or there is no attempt."""
    task = status.tasks[shard.task_id].task
    if shard.attempt is None or not task.uses or shard.kind is ShardKind.PLAN:
        return None
    return ResourceHold(
        run_id=status.run_id,
        shard_id=shard.shard_id,
        token=shard.attempt.token,
        project=status.request.project,
        uses=task.uses,
    )


def _with_their_gangs(status: RunStatus, shards: Iterable[ShardStatus]) -> Iterable[ShardStatus]:
    chosen = {shard.shard_id: shard for shard in shards}
    for task_id in {shard.task_id for shard in chosen.values() if status.tasks[shard.task_id].task.gang is not None}:
        chosen |= status.tasks[task_id].shards
    return chosen.values()


class RunBook:
    """
    Hands out the keeper of each run; there is one for each run in this process.

    Args:
        giver: gives what would be queued to workers that are idle.
        on_queue: told that something is about to be queued.
        on_commit: told of every commit of this master once it is durable, before its followers are woken.
        on_change: likewise, with what the run has come to by it.
    """

    def __init__(
        self,
        *,
        store: Store,
        queue: ShardQueue,
        resources: ResourceLedger,
        announcer: Announcer,
        secrets: SecretStore,
        projector: Projector,
        hub: Hub,
        sessions: Sessions,
        clock: Clock,
        backoff: Backoff,
        turns: Turns | None = None,
        giver: Giver | None = None,
        on_queue: Callable[[], None] = lambda: None,
        on_commit: Callable[[Commit, tuple[Event, ...]], None] = lambda _commit, _events: None,
        on_change: Callable[[RunStatus, tuple[Event, ...]], None] = lambda _status, _events: None,
    ) -> None:
        self._store = store
        self._queue = queue
        self._resources = resources
        self._announcer = announcer
        self._secrets = secrets
        self._projector = projector
        self._hub = hub
        self._sessions = sessions
        self._clock = clock
        self._backoff = backoff
        self._turns = turns
        self._giver = giver
        self._on_queue = on_queue
        self._on_commit = on_commit
        self._on_change = on_change
        self._keepers: dict[str, RunKeeper] = {}
        self._ended: set[str] = set()  # of these, those whose runs are known to have ended
        self._enqueuing = Counter[str]()
        self._taking_back: set[asyncio.Task[None]] = set()
        self._later = defaultdict[str, set[asyncio.Task[None]]](set)

    def keeper(self, run_id: str) -> RunKeeper:
        """The run's keeper, whether or not there is such a run."""
        keeper = self._keepers.pop(run_id, None)
        if keeper is None:
            self._forget_some()
            keeper = RunKeeper(
                run_id, self._store, self._clock, self._backoff, self._after_commit, self._turns, self._giver
            )
        self._keepers[run_id] = keeper  # the one used last is at the end
        return keeper

    def new_keeper(self, run_id: str, first_commit: FirstCommit | None = None) -> RunKeeper:
        """The keeper of a run whose id has just been made: there is nothing to be read of it."""
        keeper = self.keeper(run_id)
        keeper.begin(first_commit)
        return keeper

    def hear(self, notices: Sequence[CommitNotice]) -> None:
        """Another master, or this one, made commits. No notices at all mean that some may have been lost."""
        if not notices:
            for run_id, known in self._keepers.items():
                known.hear_of_gap()
                self._hub.ring(run_id)
        for notice in notices:
            keeper = self._keepers.get(notice.run_id)
            if keeper is None or keeper.hear(notice.position):
                self._hub.ring(notice.run_id)

    def live_keepers(self) -> Sequence[RunKeeper]:
        """Of the runs that this master has to do with just now."""
        return [keeper for run_id, keeper in self._keepers.items() if run_id not in self._ended and keeper.live]

    async def pass_on_stops(self, notices: Sequence[CommitNotice]) -> None:
        """
        Commits of any master may stop attempts whose workers are here, or ask for their cases. A lost notice costs the
        reconciler's time.
        """
        for run_id in dict.fromkeys(notice.run_id for notice in notices if notice.stops):
            if not self._sessions:
                return
            try:
                status = await self.keeper(run_id).newest_status()
            except FleetestError as error:
                _log.warning("stops_not_passed_on", run_id=run_id, error=str(error))
                continue
            self.repeat_stops(status, [task for task in status.tasks.values() if task.live])
            self.ask_back(status, [shard for task in status.tasks.values() for shard in task.live_attempts])
            self.tell_to_begin(status, status.tasks.values())

    def repeat_stops(self, status: RunStatus, tasks: Iterable[TaskStatus]) -> None:
        """Tell the live attempts of these tasks, if they are being stopped. Idempotent for workers."""
        stopped = [(shard, stop) for task in tasks if (stop := _stop_of(task)) for shard in task.live_attempts]
        self.tell_to_stop(status, stopped)

    async def enqueue(self, status: RunStatus, shards: Iterable[ShardStatus]) -> None:
        """
        Queue those that wait and may start; with one of a gang, all of it. Idempotent. Very many are still being queued
        after the answer.
        """
        waiting = [shard for shard in _with_their_gangs(status, shards) if shard.waiting]
        open_to_workers = {
            task_id: status.may_be_queued(status.tasks[task_id]) for task_id in {shard.task_id for shard in waiting}
        }
        entries = list(queue_entries(status, [shard for shard in waiting if open_to_workers[shard.task_id]]))
        if not entries:
            return
        self._on_queue()
        if len(entries) <= _ENQUEUED_AT_ONCE:
            await self._put(status.run_id, entries)
        else:
            task = asyncio.create_task(self._put_later(status.run_id, entries), name=f"enqueuing {status.run_id}")
            self._later[status.run_id].add(task)
            task.add_done_callback(partial(self._forget_later, status.run_id))

    async def _put(self, run_id: str, entries: Sequence[QueueEntry]) -> None:
        self._enqueuing[run_id] += 1
        try:
            await self._queue.enqueue(entries)
        finally:
            self._enqueuing[run_id] -= 1
            if not self._enqueuing[run_id]:
                del self._enqueuing[run_id]

    async def _put_later(self, run_id: str, entries: Sequence[QueueEntry]) -> None:
        """Thousands take a while: those in front begin meanwhile, for which the run must go on."""
        try:
            await self._put(run_id, entries)
        except FleetestError as error:
            _log.warning("coordination_delayed", run_id=run_id, error=str(error))

    def _forget_later(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._later[run_id].discard(task)
        if not self._later[run_id]:
            del self._later[run_id]

    def enqueues(self, run_id: str) -> bool:
        """Whether shards of the run are on their way into the queue just now."""
        return run_id in self._enqueuing or run_id in self._later

    def tell_to_stop(self, status: RunStatus, requests: Sequence[tuple[ShardStatus, CancelRequested]]) -> None:
        """Pass the word to those workers whose streams this master holds."""
        for shard, request in requests:
            attempt = shard.attempt
            session = self._sessions.get(attempt.worker_id) if attempt else None
            if attempt is None or session is None:
                continue
            ref = AttemptRef(run_id=status.run_id, shard_id=shard.shard_id, token=attempt.token)
            session.stop(
                Stop(
                    refs=(ref,),
                    reason=request.reason,
                    grace=request.grace,
                    finish_running_case=request.finish_running_case,
                )
            )

    def ask_back(self, status: RunStatus, shards: Iterable[ShardStatus]) -> None:
        """Ask those workers whose streams this master holds for the cases that they are to hand back."""
        for shard in shards:
            attempt = shard.attempt
            session = self._sessions.get(attempt.worker_id) if attempt else None
            if attempt is not None and attempt.asked_back is not None and session is not None:
                ref = AttemptRef(run_id=status.run_id, shard_id=shard.shard_id, token=attempt.token)
                session.hand_back(HandBack(ref=ref, case_ids=attempt.asked_back.case_ids))

    def tell_to_begin(self, status: RunStatus, tasks: Iterable[TaskStatus]) -> None:
        """
        Tell those workers whose streams this master holds when the shards of a gang begin: after how long, since their
        clocks may be wrong. Idempotent for workers.
        """
        for task in tasks:
            for shard in task.live_attempts if task.gang_start is not None else ():
                session = self._sessions.get(shard.attempt.worker_id) if shard.attempt else None
                if shard.attempt is not None and task.gang_start is not None and session is not None:
                    ref = AttemptRef(run_id=status.run_id, shard_id=shard.shard_id, token=shard.attempt.token)
                    session.begin(Begin(ref=ref, after=max(task.gang_start - self._clock.now(), timedelta())))

    def _forget_some(self) -> None:
        surplus = len(self._keepers) + 1 - _KEPT
        if surplus > 0:
            # Those that were used longest ago are in front, and mostly over: the others need not be looked at.
            over = (run_id for run_id, keeper in self._keepers.items() if keeper.over)
            for run_id in list(islice(over, surplus)):
                del self._keepers[run_id]
                self._ended.discard(run_id)

    async def _after_commit(self, status: RunStatus, committed: Committed) -> None:
        commit, decider = committed.commit, committed.decider
        if committed.gift is not None:
            self._take_back(committed.gift.send())
            await asyncio.sleep(0)  # the workers are told before anything else is done
        self._on_commit(commit, committed.events)
        self._hub.ring(status.run_id)
        await asyncio.sleep(0)  # as are the run's followers
        self._projector.take(self.keeper(status.run_id), status, commit.position, committed.events)
        self._on_change(status, committed.events)
        kinds = {type(event) for event in committed.events}  # there may be hundreds of events, mostly of one kind
        for event in committed.events if TaskPlanned in kinds else ():
            if isinstance(event, TaskPlanned):
                self._sessions.know_speeds(event.speeds)
        self.tell_to_stop(status, decider.stop)
        self.ask_back(status, decider.ask_back)
        self.tell_to_begin(status, decider.start)
        self._announcer.tell(
            CommitNotice(
                run_id=commit.run_id,
                position=commit.position,
                events=commit.events,
                stops=bool(decider.stop or decider.ask_back or decider.start),
            )
        )
        try:
            if not kinds.isdisjoint(_UNQUEUING):
                await self._unqueue(status, committed)
            if not kinds.isdisjoint(_GIVING_BACK):
                await self._give_back(status, committed.events)
            await self.enqueue(status, decider.enqueue)
            if RunEnded in kinds:
                self._ended.add(status.run_id)
                _log_end(status)
                if status.request.secret_names:  # others that came along are the reconciler's
                    await self._secrets.drop(status.run_id)
        except FleetestError as error:
            _log.warning("coordination_delayed", run_id=status.run_id, error=str(error))

    def _take_back(self, unsent: Sequence[AttemptRef]) -> None:
        """The streams of their workers ended while they were committed. Not awaited by their own keeper."""
        for ref in unsent:
            task = asyncio.create_task(self.decline(ref, STREAM_ENDED), name=f"take back {ref.shard_id}")
            self._taking_back.add(task)
            task.add_done_callback(self._taking_back.discard)

    async def decline(self, ref: AttemptRef, reason: str) -> None:
        """An attempt was not sent. Should this fail, too, it is lost with its worker, or ends when that comes back."""
        with contextlib.suppress(FleetestError):
            await self.keeper(ref.run_id).ask(lambda decider: decider.attempt_declined(ref.shard_id, ref.token, reason))

    async def _give_back(self, status: RunStatus, events: Iterable[Event]) -> None:
        """Whoever waits for what these attempts had of named resources may have it."""
        over = [
            ResourceHold(run_id=status.run_id, shard_id=each.shard_id, token=each.token)
            for event in events
            if isinstance(event, _GIVING_BACK) and status.tasks[event.task_id].task.uses
            for each in (event.attempts if isinstance(event, AttemptsDone) else (event,))
        ]
        if over:
            await self._resources.give_back(over)

    async def _unqueue(self, status: RunStatus, committed: Committed) -> None:
        """Take shards out of the queue whose tasks end before anybody took them, or whose services moved on."""
        concerned: dict[str, None] = {}
        for event in committed.events:
            if isinstance(event, (CancelRequested, TaskEnded)):
                concerned |= dict.fromkeys([event.task_id] if event.task_id else status.tasks)
            elif isinstance(event, (AttemptEnded, AttemptRunning)):
                service = status.tasks[event.shard_id.rpartition("#")[0]]
                if service.task.service is not None and (service.attempts > 1 or isinstance(event, AttemptEnded)):
                    concerned |= dict.fromkeys(name for name, _ in service.dependents)
        stopped = [
            shard.shard_id for task_id in concerned for shard in status.tasks[task_id].shards.values() if shard.waiting
        ]
        if stopped:
            if later := self._later.get(status.run_id):
                await asyncio.wait(later)  # what was put in after this would stay
            await self._queue.remove(status.run_id, stopped)


def _stop_of(task: TaskStatus) -> CancelRequested | None:
    return task.stop or (stop_of(task.gang_break) if task.gang_break is not None else None)


def _log_end(status: RunStatus) -> None:
    request = status.request
    _log.info("run_ended", run_id=status.run_id, project=request.project, user=request.user, state=str(status.state))
