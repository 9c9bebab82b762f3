"""
The worker's agent: keeps in touch with the master, and passes on what the two have to say to each other.

What the worker holds outlives its streams: while the master is away, attempts go on and their reports wait in the
spool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.errors import (
    AlreadyExists,
    DeadlinePassed,
    DependencyUnavailable,
    FleetestError,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    Unauthenticated,
    WrongState,
)
from fleetest.common.results import ResourceSample
from fleetest.worker.masters import Masters
from fleetest.worker.messages import (
    Acknowledged,
    Assign,
    Begin,
    Drain,
    Expect,
    Goodbye,
    HandBack,
    Heartbeat,
    Hello,
    Instruction,
    Offer,
    Registered,
    Stop,
    StoredBatch,
    Want,
    Welcome,
)
from fleetest.worker.outbox import Outbox
from fleetest.worker.roster import Roster
from fleetest.worker.session_stream import MasterConnection, SessionStream
from fleetest.worker.wants import Wants

__all__ = ["Agent", "Host"]

# Never so long that a master which is back would miss a worker until its lease has run out.
_BACKOFF: Final = Backoff(first=timedelta(milliseconds=250), longest=timedelta(seconds=2))
_ID_PATIENCE: Final = timedelta(seconds=45)
_ANSWER_PATIENCE: Final = timedelta(seconds=1)
_STOP_PATIENCE: Final = timedelta(seconds=15)
_FAREWELL_PATIENCE: Final = timedelta(seconds=10)

_log = structlog.stdlib.get_logger()


class Host(Protocol):
    """The machine that the agent runs on."""

    def sample(self) -> ResourceSample:
        """What it used since the last call."""

    def memory_is_short(self) -> bool:
        """Whether what is kept warm should rather be given back."""


class Agent:
    """
    Args:
        masters: those that the worker may use.
        dial: opens a connection to the master at an address.
        make_roster: takes what to call when the worker's credit or readiness may have changed.
        id_patience: how long another worker of the same id may be a ghost of this one whose lease still runs.
        farewell_patience: how long a worker that goes waits for the master to take its last reports.
    """

    def __init__(
        self,
        *,
        offer: Offer,
        masters: Masters,
        dial: Callable[[str], AbstractAsyncContextManager[MasterConnection]],
        outbox: Outbox,
        make_roster: Callable[[Callable[[], None]], Roster],
        host: Host,
        clock: Clock,
        backoff: Backoff = _BACKOFF,
        id_patience: timedelta = _ID_PATIENCE,
        farewell_patience: timedelta = _FAREWELL_PATIENCE,
    ) -> None:
        self._offer = offer
        self._masters = masters
        self._dial = dial
        self._outbox = outbox
        self._host = host
        self._clock = clock
        self._backoff = backoff
        self._id_patience = id_patience
        self._farewell_patience = farewell_patience
        self._changed = asyncio.Event()
        self._heartbeat_due = asyncio.Event()
        self._leaving = asyncio.Event()
        self._stopping = asyncio.Event()
        self._wants = Wants()
        self._registered: Registered | None = None
        self._registered_at = ""
        self._stream: SessionStream | None = None
        self._said_goodbye = False
        self._heard_at = 0.0
        self._failures = 0
        self._refusals = 0
        self._id_taken_since: float | None = None
        self._roster = make_roster(self._on_change)
        outbox.on_news(self._changed.set)

    @property
    def leaving(self) -> bool:
        """Whether it has been told to go."""
        return self._leaving.is_set()

    async def run(self) -> None:
        """
        Work until told to leave, and until what is held has ended and been reported.

        Raises:
            Unauthenticated, Forbidden: the token is missing, wrong, or not a worker's.
            AlreadyExists: another worker has the id, for longer than a lost lease explains.
            InvalidRequest, WrongState: this version and the masters' do not go together.
        """
        try:
            await _first_of(self._stay_connected(), self._leave())
        finally:
            await self._roster.close()
            self._outbox.flush()

    def drain(self, reason: str) -> None:
        """Take no more work, finish what runs, then leave. Idempotent."""
        self._take_no_more(reason)
        self._leaving.set()

    def stop(self, reason: str) -> None:
        """Leave now: what runs is cut short and reported as errored. Idempotent."""
        self.drain(reason)
        self._stopping.set()

    def _take_no_more(self, reason: str) -> None:
        self._roster.drain(reason)
        self._on_change()
        self._heartbeat_due.set()

    def _on_change(self) -> None:
        if self._stream is None:
            self._roster.flush()  # nobody is there who could bring more
        self._changed.set()

    async def _leave(self) -> None:
        await self._leaving.wait()
        await _first_of(self._roster.vacated(), self._stopping.wait())
        if self._stopping.is_set():
            self._roster.stop_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_PATIENCE.total_seconds()):
                    await self._roster.vacated()
            await self._roster.close()
        try:
            async with asyncio.timeout(self._farewell_patience.total_seconds()):
                await self._outbox.emptied()
                if self._stream is not None:
                    self._said_goodbye = True
                    await self._stream.say(Goodbye(reason=self._roster.draining))
                    await self._stream.finish()
                    # Hanging up before the master does could take the goodbye back.
                    await asyncio.Event().wait()
        except TimeoutError:
            _log.warning("left_with_reports_in_spool")
        except FleetestError as error:
            _log.warning("left_without_goodbye", reason=error.message)

    async def _stay_connected(self) -> None:
        """Ends when the master has taken our goodbye; else raises what no further try will heal."""
        while not self._said_goodbye:
            address = self._masters.address
            try:
                async with self._dial(address) as master:
                    await self._work_for(master, address)
            except LeaseLost as error:
                _log.warning("session_lost", reason=error.message)
                self._registered = None
            except (Unauthenticated, Forbidden, InvalidRequest, WrongState) as error:
                self._bear_refusal(error, address)
            except AlreadyExists as error:
                self._bear_with(error)
            except FleetestError as error:
                if self._said_goodbye:
                    return
                _log.warning(
                    "master_unavailable",
                    master=address,
                    reason=error.message,
                    hint=error.hint,
                    failures=self._failures + 1,
                )
                self._masters.leave(address)
            self._failures += 1
            await asyncio.sleep(self._backoff.delay(self._failures).total_seconds())

    def _bear_refusal(self, error: FleetestError, address: str) -> None:
        """Another master may know better: one of them is being upgraded, or is set up in another way."""
        self._refusals += 1
        if self._refusals >= len(self._masters):
            raise error
        _log.warning("master_refused", master=address, reason=error.message)
        self._masters.leave(address)

    def _bear_with(self, id_taken: AlreadyExists) -> None:
        """The other worker may be this one's own past, whose lease has not run out yet; but not for ever."""
        now = self._clock.monotonic()
        self._id_taken_since = now if self._id_taken_since is None else self._id_taken_since
        if now - self._id_taken_since >= self._id_patience.total_seconds():
            raise id_taken
        _log.warning("worker_id_taken", worker_id=self._offer.worker_id)

    async def _work_for(self, master: MasterConnection, address: str) -> None:
        """One stream from its beginning to its end, which is always an error."""
        if self._registered is None or self._registered_at != address:  # each has its own port and rhythm for sessions
            self._registered = await master.register(self._offer)
            self._registered_at = address
            self._id_taken_since = None
        self._refusals = 0
        try:
            await self._hold_session(master, self._registered)
        except (InvalidRequest, WrongState) as error:  # one side cannot read the other, here; attempts go on
            raise DependencyUnavailable(f"the session broke: {error.message}") from error

    async def _hold_session(self, master: MasterConnection, session: Registered) -> None:
        async with master.session(session.session_address) as stream:
            await stream.say(Hello(session_id=session.session_id, attempts=tuple(self._roster.refs)))
            self._obey_welcome(await _in_time(stream.hear(), session.lease_ttl))
            self._failures = 0
            self._stream = stream
            self._wants.forget()
            _log.info("session_opened", session_id=session.session_id)
            try:
                await _first_of(
                    self._obey(stream),
                    self._notice_silence(session),
                    self._beat(stream, session),  # before any report: it tells the master how our clock goes
                    self._speak(stream),
                )
            finally:
                self._stream = None
                self._roster.flush()

    def _obey_welcome(self, welcome: Instruction) -> None:
        if not isinstance(welcome, Welcome):
            raise DependencyUnavailable("the master did not begin with a welcome")
        self._roster.stop(
            Stop(
                refs=welcome.forget,
                reason="the attempt is no longer this worker's",
                grace=timedelta(),
                finish_running_case=False,
            )
        )

    async def _obey(self, stream: SessionStream) -> None:
        while True:
            instruction = await stream.hear()
            self._heard_at = self._clock.monotonic()
            match instruction:
                case Assign() as assign:
                    await self._take(assign, stream)
                case Acknowledged(sequence=sequence):
                    self._outbox.acknowledge(sequence)
                case Stop() as stop:
                    self._roster.stop(stop)
                case Expect() as expect:
                    self._roster.expect(expect)
                case Begin(ref=ref, after=after):
                    self._roster.begin(ref, after)
                case HandBack(ref=ref, case_ids=case_ids):
                    self._roster.hand_back(ref, case_ids)
                case Drain(reason=reason):
                    self._take_no_more(reason or "drained")
                case Welcome() as welcome:
                    self._obey_welcome(welcome)

    async def _notice_silence(self, session: Registered) -> None:
        """
        The master answers every heartbeat. One that does not has frozen; there is time left to keep our leases
        elsewhere. A timer for each word would cost more than the word.
        """
        self._heard_at = self._clock.monotonic()
        longest = (session.lease_ttl - session.heartbeat_interval).total_seconds()
        while (left := self._heard_at + longest - self._clock.monotonic()) > 0:  # noqa: ASYNC110 - so long it may not be over
            await asyncio.sleep(left)
        raise DeadlinePassed(f"the master did not answer within {longest:g} s")

    async def _take(self, assign: Assign, stream: SessionStream) -> None:
        self._wants.take(assign)
        declined = self._roster.take(assign.assignments)
        self._roster.refuse(assign.unreadable)
        self._changed.set()
        await asyncio.sleep(0)  # somebody waits for what ends at once: that is told before all else
        if assign.acknowledged:
            self._outbox.acknowledge(assign.acknowledged)
        for each in declined:
            await stream.say(each)

    async def _speak(self, stream: SessionStream) -> None:
        """
        Tell what attempts report, and keep the master's picture of our credit right. What has room now goes along with
        what has ended: that costs no message, and one commit may do for both.

        A hungry session is part of the credit; when the master has answered, or will not, it learns that nothing more
        is known to come.
        """
        sequence = 0
        patience_ends: float | None = None
        while True:
            if self._outbox.due or (self._outbox.holds_ends and self._would_ask_hungrily):
                self._outbox.flush()
            self._changed.clear()
            want: Want | None = None
            for sequence, payload in self._outbox.after(sequence):  # noqa: B020 - goes on where it stopped
                besides = self._want()
                want = besides or want
                await stream.say(StoredBatch(sequence=sequence, payload=payload, want=besides))
            if want is None and (want := self._want()) is not None:
                await stream.say(want)
            if want is not None:
                patience_ends = None if want.unhurried else _soon()
            elif not self._wants.answered and self._roster.credit.shards:
                patience_ends = patience_ends or _soon()
            else:
                patience_ends = None
                self._roster.flush()
            try:
                async with asyncio.timeout_at(patience_ends):
                    await self._changed.wait()
            except TimeoutError:
                patience_ends = None
                self._roster.flush()

    def _want(self) -> Want | None:
        return self._wants.ask(self._roster.credit, hungry=self._roster.hungry)

    @property
    def _would_ask_hungrily(self) -> bool:
        return self._roster.hungry and not self._wants.says(self._roster.credit)

    async def _beat(self, stream: SessionStream, session: Registered) -> None:
        while True:
            self._heartbeat_due.clear()
            await stream.say(
                Heartbeat(
                    host=self._host.sample(),
                    attempts=self._roster.samples(),
                    not_ready_reason=self._roster.not_ready_reason,
                    draining=bool(self._roster.draining),
                )
            )
            if self._host.memory_is_short():
                self._roster.release_idle()
            self._changed.set()  # readiness comes back with time alone
            with suppress(TimeoutError):
                async with asyncio.timeout(session.heartbeat_interval.total_seconds()):
                    await self._heartbeat_due.wait()


def _soon() -> float:
    return asyncio.get_running_loop().time() + _ANSWER_PATIENCE.total_seconds()


async def _in_time(answer: Coroutine[Any, Any, Instruction], limit: timedelta) -> Instruction:
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return await answer
    except TimeoutError:
        raise DeadlinePassed(f"the master did not answer within {limit}") from None


async def _first_of(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run them until one ends, end the others, and raise what it raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
