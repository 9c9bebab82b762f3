"""
Brings waiting shards and willing workers together.

One loop: wait to be woken, ask the queue for all workers at once, begin the attempts (a commit for each run), send
them out, and answer those who get nothing. Nothing is polled: a worker's want, an enqueued shard and a returned claim
all wake it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import structlog

from fleetest.common.errors import FleetestError, LeaseLost, WrongState
from fleetest.common.states import Verdict
from fleetest.master.queue.ports import Claim, SecretStore, ShardQueue
from fleetest.master.runs.book import RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.environment import environment_key
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import Assigned, AttemptRef, Session, Sessions

__all__ = ["Dispatcher"]

_log = structlog.get_logger()


class Dispatcher:
    """
    Args:
        sessions: workers whose streams this master holds.
    """

    def __init__(self, sessions: Sessions, queue: ShardQueue, book: RunBook, secrets: SecretStore) -> None:
        self._sessions = sessions
        self._queue = queue
        self._book = book
        self._secrets = secrets
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be work for somebody, or somebody for work."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="wake-ups")
            tasks.create_task(self._dispatch_for_ever(), name="dispatch")

    async def _listen(self) -> None:
        async for _ in self._queue.wakeups():
            self.wake()

    async def _dispatch_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()  # before the claim: what comes during it wakes us again
            try:
                if await self.dispatch():
                    self.wake()
            except FleetestError as error:
                _log.warning("dispatch_failed", error=str(error))
                await asyncio.sleep(0.2)  # Redis is away: its return wakes us, this only keeps a storm off the log
                self.wake()

    async def dispatch(self) -> int:
        """
        Hand out what can be handed out now; answers how many attempts began.

        Raises:
            DependencyUnavailable: Redis does not answer.
        """
        bidders = {session.presence.worker_id: session for session in self._sessions}
        bids = {worker_id: bid for worker_id, session in bidders.items() if (bid := session.bid())}
        claims = await self._queue.claim(list(bids.values())) if bids else ()
        by_run: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_run[claim.entry.run_id].append(claim)
        begun = await asyncio.gather(*(self._begin(run_id, of_run, bidders) for run_id, of_run in by_run.items()))
        assigned: defaultdict[str, list[Assigned]] = defaultdict(list)
        for pairs in begun:
            for worker_id, each in pairs:
                assigned[worker_id].append(each)
        for worker_id in bids:
            session = self._sessions.get(worker_id)
            if session is not None and session.presence.instance == bidders[worker_id].presence.instance:
                session.assign(assigned[worker_id])
        return sum(map(len, begun))

    async def _begin(
        self, run_id: str, claims: Sequence[Claim], bidders: Mapping[str, Session]
    ) -> list[tuple[str, Assigned]]:
        keeper = self._book.keeper(run_id)

        def start(decider: Decider) -> list[int | None]:
            return [_start(decider, claim, bidders[claim.worker_id]) for claim in claims]

        try:
            secrets = await self._secrets.get(run_id)
            tokens = await keeper.ask(start)
            status = await keeper.status()
        except FleetestError as error:
            _log.warning("claims_released", run_id=run_id, error=str(error))
            await self._queue.release(claims)
            return []
        await self._queue.confirm(claims)
        begun = []
        for claim, token in zip(claims, tokens, strict=True):
            if token is None:
                continue
            try:
                begun.append((claim.worker_id, _assigned(status, claim, token, secrets)))
            except WrongState as error:
                await keeper.ask(_end_unsent(claim, token, error.message))
        return begun


def _start(decider: Decider, claim: Claim, session: Session) -> int | None:
    """The attempt's token; `None` when the shard waits no more, and its entry was a leftover."""
    try:
        return decider.start_attempt(claim.entry.shard_id, session.presence.worker_id, session.presence.instance)
    except WrongState:
        return None


def _end_unsent(claim: Claim, token: int, reason: str) -> Callable[[Decider], None]:
    def end(decider: Decider) -> None:
        with contextlib.suppress(LeaseLost):  # it was ended meanwhile
            decider.attempt_ended(claim.entry.shard_id, token, Verdict.FAILED, reason)

    return end


def _assigned(status: RunStatus, claim: Claim, token: int, secrets: Mapping[str, str]) -> Assigned:
    """
    What the worker is told.

    Raises:
        WrongState: the attempt cannot be made any more.
    """
    shard = status.shard(claim.entry.shard_id)
    if shard is None or shard.attempt is None or shard.attempt.token != token:
        raise WrongState("it was ended before it was sent")
    task = status.tasks[shard.task_id]
    missing = [name for name in task.task.secrets if name not in secrets]
    if missing:
        raise WrongState(
            f"the secret {missing[0]} is no longer held (Redis was emptied, or it expired): submit the run again"
        )
    return Assigned(
        ref=AttemptRef(run_id=status.run_id, shard_id=shard.shard_id, token=token),
        request=status.request,
        task=task.task,
        kind=shard.kind,
        number=shard.attempt.number,
        case_ids=shard.case_ids,
        shard_index=shard.index,
        shard_count=sum(each.kind is shard.kind for each in task.shards.values()),
        environment_key=environment_key(status.run_id, status.request, task.task),
        secrets={name: secrets[name] for name in task.task.secrets},
    )
