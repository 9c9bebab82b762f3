"""
Brings waiting shards and willing workers together.

One loop: wait to be woken, ask the queue for all workers at once, begin the attempts (a commit for each run), send
them out, and answer those who get nothing. Nothing is polled: a worker's want, an enqueued shard and a returned claim
all wake it. A worker that was turned down is not asked for again before there may be something that it was not offered.

Claims are confirmed after the attempts have been sent, with the next question to the queue where there is one soon.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from operator import attrgetter
from typing import Final

import structlog

from fleetest.common.ending import end_tasks
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError
from fleetest.common.tasks import Resources
from fleetest.master.assigning import Starter, let_expect
from fleetest.master.queue.ports import (
    Bid,
    Claim,
    Claims,
    Presence,
    QueueEntry,
    ResourceHold,
    ResourceLedger,
    SecretStore,
    ShardQueue,
)
from fleetest.master.runs.book import STREAM_ENDED, RunBook
from fleetest.master.runs.decisions import Decider
from fleetest.master.sessions import Assigned, Session, Sessions, settle
from fleetest.master.turned_down import TurnedDown

__all__ = ["Dispatcher"]

_log = structlog.get_logger()

_PAUSE: Final = timedelta(milliseconds=200)
"""After a failure of the store or of Redis."""

_CONFIRMED_WITHIN: Final = timedelta(milliseconds=50)
"""For so long claims whose attempts have begun wait for the next question to the queue."""


class Dispatcher:
    """
    Args:
        sessions: workers whose streams this master holds.
        turned_down: where it is remembered for whom nothing waits.
        on_idle: called when workers want more than waits for them.
    """

    def __init__(
        self,
        sessions: Sessions,
        queue: ShardQueue,
        book: RunBook,
        secrets: SecretStore,
        resources: ResourceLedger,
        turned_down: TurnedDown,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._sessions = sessions
        self._queue = queue
        self._book = book
        self._secrets = secrets
        self._resources = resources
        self._on_idle = on_idle
        self._wake = asyncio.Event()
        self._turned_down = turned_down
        self._unconfirmed: list[Claim] = []
        self._confirm_timer: asyncio.TimerHandle | None = None
        self._confirm_overdue = False
        self._gang_waits = False
        self._due: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """There may be work that nobody was offered yet."""
        self._turned_down.hear_news()
        self._wake.set()

    def hear_of_worker(self) -> None:
        """A worker may want work, or take it no more."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled."""
        loops = [
            asyncio.create_task(self._listen(), name="wake-ups"),
            asyncio.create_task(self._dispatch_for_ever(), name="dispatch"),
        ]
        try:
            await asyncio.gather(*loops)
        finally:
            await end_tasks(loops)

    async def _listen(self) -> None:
        async for _ in self._queue.wakeups():
            self.wake()

    async def _dispatch_for_ever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()  # before the claim: what comes during it wakes us again
            try:
                if await self._hand_out():
                    self._wake.set()  # for what is left
            except FleetestError as error:
                _log.warning("dispatch_failed", error=str(error))
                await asyncio.sleep(_PAUSE.total_seconds())  # Redis is away; this keeps a storm off the log
                self.wake()

    async def dispatch(self) -> int:
        """
        Hand out what can be handed out now, whatever was told before; answers how many attempts began.

        Raises:
            DependencyUnavailable: Redis does not answer.
        """
        self._turned_down.hear_news()
        begun = await self._hand_out()
        await self._confirm()
        return begun

    async def _hand_out(self) -> int:
        # The longest shards wait in front.
        fastest_first = sorted(self._sessions, key=attrgetter("speed"), reverse=True)
        bidders = {session.presence.worker_id: session for session in fastest_first}
        in_vain = self._turned_down.in_vain
        bids = [bid for session in bidders.values() if (bid := session.bid()) and not in_vain(session, bid)]
        if bids and self._gang_waits:
            bids = [bid for session in bidders.values() if (bid := session.bid() or session.token_bid())]
        questions = [session.question for session in fastest_first if session.question is not None]
        with self._turned_down.asking(bidders[bid.worker_id] for bid in bids):
            return await self._serve(bids, bidders, questions)

    async def _serve(
        self, bids: Sequence[Bid], bidders: Mapping[str, Session], questions: Sequence[asyncio.Future[None]]
    ) -> int:
        wants = {worker_id: session.want_number for worker_id, session in bidders.items()}
        try:
            claims = await self._claim(bids, bidders) if bids else Claims()
        finally:
            for question in questions:
                settle(question)
        if not bids and self._confirm_overdue:
            await self._confirm()
        elif claims:
            await asyncio.sleep(0)  # who waited for that tells first what has ended: it shares the commit
        by_run: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_run[claim.entry.run_id].append(claim)
        beginning = [self._begin(run_id, of_run, bidders) for run_id, of_run in by_run.items()]
        # Mostly it is one run, and then its workers hear of what they have told and of what they are given in one turn.
        begun = [await beginning[0]] if len(beginning) == 1 else await asyncio.gather(*beginning)
        assigned: defaultdict[str, list[Assigned]] = defaultdict(list)
        for worker_id, each in itertools.chain(*begun):
            assigned[worker_id].append(each)
        for worker_id, session in bidders.items():
            given = assigned[worker_id]
            if session.over or self._sessions.get(worker_id) is not session:
                await self._take_back(given, STREAM_ENDED)
            elif given or session.want_number == wants[worker_id]:  # else it has asked meanwhile, and nobody for it
                session.assign(given)
        if any(session.wants_more for session in bidders.values()):
            self._on_idle()
            let_expect(itertools.chain.from_iterable(assigned.values()), bidders.values())
        return sum(map(len, begun))

    async def _claim(self, bids: Sequence[Bid], bidders: Mapping[str, Session]) -> Claims:
        news, confirming, had_all = self._turned_down.news, self._unconfirmed, self._gang_waits
        self._unconfirmed = []
        try:
            claims = await self._queue.claim(bids, confirming=confirming)
        except FleetestError:
            self._unconfirmed += confirming
            raise
        self._gang_waits = claims.gang_waits
        if self._gang_waits and not had_all:
            self._wake.set()  # again, with the bids of all
        given = defaultdict[str, list[QueueEntry]](list)
        for claim in claims:
            if not claim.follows:
                given[claim.worker_id].append(claim.entry)
        if news == self._turned_down.news:  # else something came, perhaps after the queue had answered
            self._turned_down.forget_over()
            for bid in (each for each in bids if each.shards):
                if bid.worker_id in claims.in_vain:
                    self._turned_down.turn_down(bidders[bid.worker_id], None)
                elif len(entries := given[bid.worker_id]) < bid.shards:
                    taken = Resources.total([entry.takes(bid.capacity) for entry in entries])
                    self._turned_down.turn_down(bidders[bid.worker_id], bid.free - taken)
        self._wake_when_due(claims)
        return claims

    def _wake_when_due(self, claims: Claims) -> None:
        """Somebody may have to wait out a delay, and no word will come when it is over."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if claims.due_in is not None:
            self._due = asyncio.get_running_loop().call_later(claims.due_in.total_seconds(), self.wake)

    def _confirm_soon(self, claims: Sequence[Claim]) -> None:
        self._unconfirmed += claims
        if self._confirm_timer is None:
            soon = _CONFIRMED_WITHIN.total_seconds()
            self._confirm_timer = asyncio.get_running_loop().call_later(soon, self._confirm_now)

    def _confirm_now(self) -> None:
        self._confirm_timer, self._confirm_overdue = None, True
        self._wake.set()

    async def _confirm(self) -> None:
        confirming, self._unconfirmed, self._confirm_overdue = self._unconfirmed, [], False
        if confirming:
            await self._settle(self._queue.confirm, confirming)

    async def _begin(
        self, run_id: str, claims: Sequence[Claim], bidders: Mapping[str, Session]
    ) -> list[tuple[str, Assigned]]:
        """Must not fail once the attempts have begun: whatever began is sent."""

        def start(decider: Decider) -> list[Assigned | None]:
            starter = Starter(decider, secrets)
            return [_start(starter, claim, bidders[claim.worker_id].presence) for claim in claims]

        try:
            keeper = self._book.keeper(run_id)
            named = (await keeper.request()).secret_names
            secrets = await self._secrets.get(run_id) if named else {}
            started = await keeper.ask(start)
        except (DependencyUnavailable, CapacityExceeded) as error:
            _log.warning("claims_released", run_id=run_id, error=str(error))
            await asyncio.sleep(_PAUSE.total_seconds())  # a released claim wakes us: this keeps it from spinning
            await self._settle(self._queue.release, claims)
            return []
        except FleetestError as error:  # nothing will come of this run: its log cannot be read
            _log.warning("claims_dropped", run_id=run_id, error=str(error))
            await self._settle(self._queue.confirm, claims)
            return []
        self._confirm_soon([claim for claim in claims if not claim.entry.uses])
        if any(claim.entry.uses for claim in claims):
            started = await self._keep_resources(claims, started)
        return [(claim.worker_id, each) for claim, each in zip(claims, started, strict=True) if each is not None]

    async def _keep_resources(
        self, claims: Sequence[Claim], started: Sequence[Assigned | None]
    ) -> list[Assigned | None]:
        """
        Before anything is sent: a claim that ran out while its attempt was committed holds nothing any more, and what
        it held may be another's.
        """
        users = [number for number, claim in enumerate(claims) if claim.entry.uses]
        holds = [_hold(claims[number], started[number]) for number in users]
        try:
            kept = await self._resources.keep(holds, [claims[number].worker_id for number in users])
        except FleetestError as error:
            _log.warning("resources_not_kept", run_id=claims[0].entry.run_id, error=str(error))
            kept = ()
        lost = {number for number, hold in zip(users, holds, strict=True) if hold.token and hold not in kept}
        reason = "others were given its resources before this was sent"
        await self._take_back([each for number in lost if (each := started[number]) is not None], reason)
        return [None if number in lost else each for number, each in enumerate(started)]

    async def _settle(self, how: Callable[[Sequence[Claim]], Awaitable[None]], claims: Sequence[Claim]) -> None:
        """Without an answer from Redis the claims run out, and the reconciler removes what has begun."""
        try:
            await how(claims)
        except FleetestError as error:
            _log.warning("claims_left_to_expire", claims=len(claims), error=str(error))

    async def _take_back(self, assigned: Sequence[Assigned], reason: str) -> None:
        for each in assigned:
            await self._book.decline(each.ref, reason)


def _hold(claim: Claim, started: Assigned | None) -> ResourceHold:
    """Without an attempt, what it holds is given back."""
    entry = claim.entry
    return ResourceHold(
        run_id=entry.run_id,
        shard_id=entry.shard_id,
        token=0 if started is None else started.ref.token,
        project=entry.project,
        uses=entry.uses,
    )


def _start(starter: Starter, claim: Claim, worker: Presence) -> Assigned | None:
    entry = claim.entry
    return starter.start(
        entry.shard_id,
        worker,
        takes=entry.takes(worker.capacity),
        requirements=entry.requirements,
        follows=claim.follows,
    )
