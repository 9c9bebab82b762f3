"""
One of a worker's slots: at most one environment, one session in it, and the attempts that wait for it.

An attempt whose environment is open goes to its session at once and queues there, so that module and session
fixtures live on from one shard to the next. Any other waits until the session is done, which is then closed for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol

from fleetest.common.results import ResourceSample
from fleetest.common.states import Verdict
from fleetest.common.tasks import Resources
from fleetest.worker.assignments import AttemptRef, Ended
from fleetest.worker.attempts import Attempt, StopOrder
from fleetest.worker.messages import Expect
from fleetest.worker.ports import Executor, Runner, Session
from fleetest.worker.readying import Readying
from fleetest.worker.station import Station

__all__ = ["Slot", "SlotObserver"]

_LATE_SECONDS: Final = 0.2
"""What follows another and has not begun for so long, or up to twice as long, is handed back."""


class SlotObserver(Protocol):
    """Who is told what happens in a slot."""

    def credit_changed(self) -> None:
        """The slot could take an attempt now, or can no longer."""

    def attempt_ended(self, attempt: Attempt, ended: Ended) -> None:
        """The slot is done with the attempt, and may have room for another."""


class Slot:
    """
    Runs attempts one after the other. Needs a running event loop; `close` ends it.

    Args:
        number: names the slot to executors, which keep its files apart from other slots'.
        executors: by name.
        runners: by type of task.
        idle_timeout: after so long without work, session and environment are closed.
    """

    def __init__(
        self,
        number: int,
        *,
        executors: Mapping[str, Executor],
        runners: Mapping[str, Runner],
        observer: SlotObserver,
        idle_timeout: timedelta,
    ) -> None:
        self.last_used = 0.0
        self._observer = observer
        self._idle_timeout = idle_timeout
        self._station = Station(number, executors=executors, runners=runners, on_hungry=self._session_is_hungry)
        self._inbox: deque[Attempt | Expect | None] = deque()
        self._readying: Readying | None = None
        self._held: dict[AttemptRef, Attempt] = {}  # in order of arrival
        self._submitted: dict[AttemptRef, asyncio.Task[None]] = {}  # what watches over those that the session has
        self._preparing: Attempt | None = None
        self._patience = asyncio.timeout(None)  # with what is prepared; a stop order ends it
        self._handing: AttemptRef | None = None
        self._hungry = False
        self._ending = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._late_timer: asyncio.TimerHandle | None = None
        self._name = f"slot-{number}"
        self._work_task: asyncio.Task[None] | None = None  # while there is something in the inbox, or at hand

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._held

    @property
    def hungry(self) -> bool:
        """Its session holds its last case back until it knows whether more comes."""
        return self._hungry

    @property
    def ending(self) -> bool:
        """Its session was hungry until it was told that nothing comes, and has its last case to do."""
        return self._ending

    @property
    def starting(self) -> bool:
        """Its newest attempt has not begun what it is for."""
        newest = self._newest
        return newest is not None and not newest.reporter.started

    @property
    def environment_key(self) -> str:
        """Of the environment that its newest attempt needs or, when idle, that is warm; empty when there is none."""
        if not self._held:
            return self._station.environment_key
        return next(reversed(self._held.values())).assignment.spec.environment_key

    def is_warm_for(self, environment_key: str) -> bool:
        """Whether it has nothing to do, and this environment is open."""
        return not self._held and self._station.environment_key == environment_key

    @property
    def ahead(self) -> int:
        """How many attempts may come to it besides one."""
        return self._station.session.ahead if self._station.session is not None else 0

    @property
    def length(self) -> int:
        """How many attempts are here."""
        return len(self._held)

    def leads(self, attempt: Attempt) -> bool:
        """Whether the attempt could follow the newest one here."""
        newest = self._newest
        return newest is not None and newest.assignment.spec.spec_id == attempt.assignment.spec.spec_id

    @property
    def run_network(self) -> str:
        """Which run's network its environment is in; empty: none."""
        return self._station.run_network

    @property
    def reserved(self) -> Resources:
        """What it keeps from others; nothing while it could take another attempt."""
        newest = self._newest
        return Resources() if newest is None or self.hungry else newest.assignment.reserve

    @property
    def _newest(self) -> Attempt | None:
        return next(reversed(self._held.values()), None)

    def accept(self, attempt: Attempt) -> None:
        """Take an attempt, behind those that are here. A very short one has ended by then."""
        self._hungry = self._ending = False
        self._held[attempt.ref] = attempt
        if attempt.assignment.follows and self._late_timer is None:
            self._look_for_late_ones(frozenset())
        session = self._station.session_for(attempt.ref.run_id, attempt.assignment.spec)
        nothing_before = self._work_task is None and self._readying is None
        if session is not None and nothing_before:
            self._submit(attempt, session)
        else:
            self._put(attempt)

    def expect(self, expected: Expect) -> None:
        """An attempt of this run and task may come. Harmless when none does."""
        if self.idle:
            self._put(expected)

    def stop(self, attempt: Attempt, order: StopOrder) -> None:
        """End one attempt of this slot. Its end is told as any other."""
        attempt.order_stop(order)
        if self._preparing is attempt:
            if not self._patience.expired():
                self._patience.reschedule(asyncio.get_running_loop().time())
        elif attempt.ref not in self._submitted:
            self._finish(attempt, attempt.stopped())

    def hand_back(self, attempt: Attempt, case_ids: Sequence[str]) -> None:
        """Give up cases of an attempt that have not been started."""
        session = self._station.session
        if attempt.ref in self._submitted and session is not None:
            session.hand_back(attempt.ref, case_ids)
        else:
            attempt.reporter.handed_back(attempt.give_up(case_ids))

    def _look_for_late_ones(self, before: frozenset[AttemptRef]) -> None:
        """
        What follows another was to begin within a moment. When it has not for a while, others shall have it.

        Args:
            before: those that were waiting at the last look.
        """
        self._late_timer = None
        waiting = [each for each in self._held.values() if each.assignment.follows and not each.reporter.started]
        for attempt in (each for each in waiting if each.ref in before):
            self._return(attempt)
        if waiting:
            refs = frozenset(attempt.ref for attempt in waiting)
            loop = asyncio.get_running_loop()
            self._late_timer = loop.call_later(_LATE_SECONDS, self._look_for_late_ones, refs)

    def _return(self, attempt: Attempt) -> None:
        """Give up all of an attempt that has not begun."""
        case_ids = attempt.assignment.case_ids
        if attempt.ref in self._submitted:
            self.hand_back(attempt, case_ids)
        elif self._preparing is not attempt:
            attempt.reporter.handed_back(case_ids)
            self._finish(attempt, Ended(verdict=Verdict.COMPLETED))

    def flush(self) -> None:
        """Nothing more is known to come for the session: it need not hold its last case back."""
        self._ending = self._ending or self._hungry
        self._hungry = False
        if self._station.session is not None:
            self._station.session.flush()

    def release(self) -> None:
        """Close session and environment, unless there is work again by then."""
        self._put(None)

    @property
    def running(self) -> AttemptRef | None:
        """The attempt that is first in the slot."""
        return next(iter(self._held), None)

    def sample(self) -> ResourceSample | None:
        """What the session has used since the last call, where that is known."""
        return self._station.session.sample() if self._station.session is not None else None

    async def close(self) -> None:
        """Close session and environment. Attempts that are still here are ended, but nobody is told."""
        for timer in (self._idle_timer, self._late_timer):
            if timer is not None:
                timer.cancel()
        tasks = [*self._submitted.values(), *([self._work_task] if self._work_task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._give_up_readying()
        await self._station.close()

    def _put(self, item: Attempt | Expect | None) -> None:
        self._inbox.append(item)
        if self._work_task is None:
            self._work_task = asyncio.create_task(self._work(), name=self._name)

    async def _work(self) -> None:
        """One after the other, until nothing is left."""
        try:
            while self._inbox:
                match self._inbox.popleft():
                    case Attempt() as attempt:
                        await self._begin(attempt)
                    case Expect() as expected:
                        self._get_ready(expected)
                    case None:
                        await self._close_if_idle()
        finally:
            self._work_task = None

    def _get_ready(self, expected: Expect) -> None:
        is_open = self._station.session_for(expected.run_id, expected.spec) is not None
        if self.idle and self._readying is None and not is_open:
            self._readying = Readying(self._station, expected)
            self.last_used = time.monotonic()
            if self._idle_timer is None:
                self._look_again_in(self._idle_timeout.total_seconds())

    async def _close_if_idle(self) -> None:
        if self.idle:
            await self._give_up_readying()
            await self._station.close()
            self._observer.credit_changed()

    async def _give_up_readying(self) -> None:
        readying, self._readying = self._readying, None
        if readying is not None:
            await readying.give_up()

    async def _begin(self, attempt: Attempt) -> None:
        """Bring an attempt to a session, or to its end."""
        begun: asyncio.Task[Ended | None] | None = None
        if attempt.ref in self._held and self._readying is not None:
            if self._readying.fits(attempt):
                begun, self._readying = self._readying.hand_over(attempt), None
            else:
                await self._give_up_readying()
        is_open = self._station.session_for(attempt.ref.run_id, attempt.assignment.spec) is not None
        if attempt.ref in self._held and (begun is not None or not is_open):
            while self._submitted:
                self.flush()
                await asyncio.wait(self._submitted.values())
            await self._prepare(attempt, begun)
        session = self._station.session
        if attempt.ref in self._held and session is not None:
            self._submit(attempt, session)

    async def _prepare(self, attempt: Attempt, begun: asyncio.Task[Ended | None] | None) -> None:
        """Make the station ready, within the time that the start may take; or end the attempt."""
        if attempt.ref not in self._held:
            return
        self._preparing = attempt
        try:
            async with asyncio.timeout_at(attempt.start_clock()) as self._patience:
                failure = await (begun or self._open(attempt))
        except TimeoutError:
            if attempt.stop_order is None:
                attempt.start_took_too_long()
            failure = attempt.stopped()
        finally:
            self._preparing = None
        if failure is not None:
            await self._station.close()
        if attempt.stop_order is not None:
            failure = attempt.stopped()
        if failure is not None:
            self._finish(attempt, failure)

    async def _open(self, attempt: Attempt) -> Ended | None:
        asked = attempt.assignment
        return await self._station.open(
            asked.ref.run_id, asked.spec, secrets=asked.secrets, output=attempt.reporter.output
        )

    def _submit(self, attempt: Attempt, session: Session) -> None:
        self._handing = attempt.ref  # the session may be hungry at once
        future = session.submit(attempt.assignment, attempt.reporter)
        self._handing = None
        if future.done() and attempt.stop_order is None:
            self._finish(attempt, future.result())
        else:
            before = next(reversed(self._submitted.values()), None)
            self._submitted[attempt.ref] = asyncio.create_task(self._watch(attempt, session, future, before))

    async def _watch(
        self, attempt: Attempt, session: Session, future: asyncio.Future[Ended], before: asyncio.Task[None] | None
    ) -> None:
        """Follow an attempt through its session to its end, and pass stop orders on."""
        helpers = {asyncio.create_task(_limit_start(attempt, before))}
        try:
            while not future.done():
                ordered = asyncio.create_task(attempt.stop_ordered.wait())
                await asyncio.wait((future, ordered), return_when=asyncio.FIRST_COMPLETED)
                ordered.cancel()
                if attempt.stop_ordered.is_set() and attempt.stop_order is not None:
                    attempt.stop_ordered.clear()
                    helpers.add(asyncio.create_task(_pass_on(attempt.stop_order, attempt.ref, session)))
        finally:
            for helper in helpers:
                helper.cancel()
        self._finish(attempt, attempt.judge(future.result()))

    def _finish(self, attempt: Attempt, ended: Ended) -> None:
        if self._held.pop(attempt.ref, None) is None:
            return
        self._submitted.pop(attempt.ref, None)
        self.last_used = time.monotonic()
        if self.idle:
            self._hungry = self._ending = False
            if self._idle_timer is None:
                self._look_again_in(self._idle_timeout.total_seconds())
        self._observer.attempt_ended(attempt, ended)

    def _look_again_in(self, seconds: float) -> None:
        """One timer at a time: a slot falls idle after each of many short attempts."""
        self._idle_timer = asyncio.get_running_loop().call_later(seconds, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        if self.idle:
            left = self.last_used + self._idle_timeout.total_seconds() - time.monotonic()
            if left > 0:
                self._look_again_in(left)
            else:
                self.release()

    def _session_is_hungry(self) -> None:
        session = self._station.session
        if session is None or not session.backlog:
            return  # nothing is held back, so nothing is won by knowing what comes next
        if len(self._held) > len(self._submitted) + (self._handing is not None):
            session.flush()  # what comes next needs another session
        else:
            self._hungry = True
            self._observer.credit_changed()


async def _limit_start(attempt: Attempt, before: asyncio.Task[None] | None) -> None:
    """An attempt behind another in its session cannot start before that one's end, so its time runs from there."""
    if before is not None:
        await asyncio.wait({before})
    try:
        async with asyncio.timeout_at(attempt.start_clock()):
            await attempt.reporter.start()
    except TimeoutError:
        attempt.start_took_too_long()


async def _pass_on(order: StopOrder, ref: AttemptRef, session: Session) -> None:
    await session.stop(ref, reason=order.reason, grace=order.grace, finish_running_case=order.finish_running_case)
