"""
Keeps one run: takes requests from everywhere, and makes commits of them one after the other.

All requests that arrive while a commit is on its way to the store share the next one (group commit). A commit that
loses the race to another master is decided again, on what that master wrote. As that costs a whole reading of the log,
masters that have met at a run take turns at it for a while.

A decision changes the state before its commit is durable, so nobody may look at the state in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.errors import DependencyUnavailable, FleetestError, NotFound, WrongState
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import Event, RunSubmitted, decode, encode
from fleetest.master.runs.state import RunStatus
from fleetest.master.sessions import AttemptRef
from fleetest.master.store.ports import Commit, PositionTaken, RunLog

__all__ = ["Committed", "Committer", "FirstCommit", "Gift", "Giver", "RunKeeper", "Turns", "load_status"]

T = TypeVar("T")
Request = Callable[[Decider], T]
Waiting = tuple[Request[Any], asyncio.Future[Any]]
Answer = tuple[Any, FleetestError | None]

_log = structlog.get_logger()

_MOST_CONFLICTS = 50
"""Lost races in a row after which the store must be lying."""

_SHARED_FOR = timedelta(seconds=10)
"""How long after another master's commit more of them are expected."""

_BREATH = timedelta(milliseconds=6)
"""Between two turns of one master, so that another can have its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A durable commit, and what has to be done about it. `gift`: what of it was begun for workers that are idle."""

    commit: Commit
    events: tuple[Event, ...]
    decider: Decider
    gift: Gift | None = None


class Committer(Protocol):
    """What happens after a commit became durable: queues, workers and watchers are told."""

    def __call__(self, status: RunStatus, committed: Committed) -> Awaitable[None]: ...


class Gift(Protocol):
    """Attempts that begin with a commit. One of the two is called, once."""

    def send(self) -> Sequence[AttemptRef]:
        """The commit is durable: tell the workers. Answers what could not be sent."""

    def undo(self) -> None:
        """Nothing came of the commit."""


class Giver(Protocol):
    """Begins attempts of what a commit would queue, where that passes over nobody who waits for longer."""

    def give(self, decider: Decider) -> Gift | None:
        """With events of the decider's. It may be asked several times before a commit is durable."""


class FirstCommit(Protocol):
    """How the first commit of a new run becomes durable, where more than the log is to hold it."""

    def __call__(self, status: RunStatus, commit: Commit) -> Awaitable[None]:
        """`status` has the commit applied. Raises as `RunLog.append`, and what keeps the run from beginning."""


class Turns(Protocol):
    """
    Lets masters that commit to one run do so one after the other. A courtesy: who does not get a turn in time goes on
    without, and the store decides.
    """

    def turn(self, run_id: str) -> AbstractAsyncContextManager[None]:
        """Waits for it; ends with the context. Never raises."""


async def load_status(run_id: str, log: RunLog, *, into: RunStatus | None = None) -> RunStatus:
    """
    Read a run's log, from the beginning or from where `into` stands. A run that does not exist has an empty one.

    Raises:
        WrongState: a newer version wrote the log.
    """
    status = into or RunStatus(run_id)
    while commits := await log.read(run_id, after=status.position):
        for commit in commits:
            for event in _decoded(commit):
                status.apply(event, commit.position)
    status.touched.clear()
    return status


def _decoded(commit: Commit) -> tuple[Event, ...]:
    try:
        return decode(commit.events)
    except msgspec.MsgspecError as error:
        raise WrongState(
            f"commit {commit.position} of run {commit.run_id} cannot be read: {error}",
            hint="a newer Fleetest wrote it: upgrade this master",
        ) from error


class RunKeeper:
    """
    Args:
        after_commit: awaited before a request is answered.
        turns: taken while other masters commit to the run, too.
        giver: asked before each commit.
    """

    def __init__(
        self,
        run_id: str,
        log: RunLog,
        clock: Clock,
        backoff: Backoff,
        after_commit: Committer,
        turns: Turns | None = None,
        giver: Giver | None = None,
    ) -> None:
        self.run_id = run_id
        self._log_port = log
        self._clock = clock
        self._backoff = backoff
        self._after_commit = after_commit
        self._turns = turns
        self._giver = giver
        self._shared_until = float("-inf")
        self._status: RunStatus | None = None
        self._first_commit: FirstCommit | None = None
        self._made = 0
        self._behind = False
        self._requests: list[Waiting] = []
        self._worker: asyncio.Task[None] | None = None
        self._settled = asyncio.Lock()  # held while the state is ahead of the log

    async def ask(self, request: Request[T]) -> T:
        """
        Decide, make it durable, then answer what the request answered.

        A request may be decided several times before its commit is durable: it changes nothing but its decider.

        Raises:
            FleetestError: what the request raised; its events, if any, are in no commit.
            DependencyUnavailable, CapacityExceeded: the store did not take the commit.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._requests.append((request, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name=f"run {self.run_id}")
        return await answer

    async def status(self) -> RunStatus:
        """
        What the run has come to, as far as this master knows: what is durable, until the caller awaits something
        else. Not to be changed.

        Raises:
            NotFound: there is no such run.
            DependencyUnavailable: the store cannot be read.
        """
        async with self._settled:
            status = await self._current()
        if status.submitted is None:
            self.hear_of_gap()  # another master may be taking it in
            raise NotFound(f"there is no run {self.run_id}", hint="list runs: fleetest ls")
        return status

    def begin(self, first_commit: FirstCommit | None = None) -> None:
        """
        The run is a new one, of which nothing is to be read. Should somebody have begun it all the same, the store
        refuses the first commit, and then it is read.
        """
        if self._status is None:
            self._status = RunStatus(self.run_id)
        self._first_commit = first_commit

    async def request(self) -> RunSubmitted:
        """What was submitted, which never changes. Raises as `status` does."""
        known = self._status
        return known.request if known is not None and known.submitted is not None else (await self.status()).request

    async def newest_status(self) -> RunStatus:
        """As `status`, with what other masters committed just now: for whoever would refuse something for good."""
        self.hear_of_gap()
        return await self.status()

    def is_last(self, position: int) -> bool:
        """Whether no commit follows this one, as far as this master has heard."""
        return position == self._made and not self._behind

    @property
    def idle(self) -> bool:
        return not self._requests and (self._worker is None or self._worker.done())

    @property
    def over(self) -> bool:
        """Whether it keeps nothing that would have to be read again soon: nothing at all, or a run that has ended."""
        return self.idle and (self._status is None or self._status.submitted is None or self._status.state.ended)

    @property
    def live(self) -> bool:
        """Whether it keeps a run that goes on, as far as it knows."""
        return self._status is not None and self._status.submitted is not None and not self._status.state.ended

    def hear(self, position: int) -> bool:
        """
        A master committed: if it was another, read on before the next decision. Answers whether that may be news to
        those who follow the run here; of a commit of this master, and of all before it, they have been told.
        """
        if self._status is not None and position > self._status.position:
            self._behind = True
            self._meet_another()
        return position > self._made

    def hear_of_gap(self) -> None:
        """Another master may have committed."""
        self._behind = True

    async def _current(self) -> RunStatus:
        """Read what this keeper has not seen yet."""
        known = self._status
        if known is None or self._behind:
            self._behind = False  # what is heard of while we read is read next time
            self._status = None
            self._status = await load_status(self.run_id, self._log_port, into=known)
        assert self._status is not None
        return self._status

    async def _work(self) -> None:
        while self._requests:
            batch, self._requests = self._requests, []
            while batch:
                try:
                    await self._serve(batch)
                    break
                except _Spoiled as spoiled:  # the others of its batch are decided again, without it
                    self._status = None
                    self._fail([batch.pop(spoiled.index)], spoiled.error)
                except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
                    self._status = None
                    self._fail(batch, error)
                    break

    def _fail(self, batch: Sequence[Waiting], error: Exception) -> None:
        if not isinstance(error, FleetestError):
            _log.error("commit_failed", run_id=self.run_id, exc_info=error)
            error = DependencyUnavailable(f"run {self.run_id} could not be kept: {error!r}")
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)

    async def _serve(self, batch: Sequence[Waiting]) -> None:
        async with self._settled:
            status, answers, committed = await self._commit([request for request, _ in batch])
        if committed is not None:
            try:
                await self._after_commit(status, committed)
            except Exception:  # noqa: BLE001 - the commit is durable: whoever asked for it must hear so
                _log.exception("commit_not_followed_up", run_id=self.run_id, position=committed.commit.position)
        _answer(batch, answers)

    def _meet_another(self) -> None:
        self._shared_until = self._clock.monotonic() + _SHARED_FOR.total_seconds()

    async def _commit(self, requests: Sequence[Request[Any]]) -> tuple[RunStatus, list[Answer], Committed | None]:
        async with AsyncExitStack() as turn:
            in_turn = await self._take(turn) if self._clock.monotonic() < self._shared_until else False
            for _ in range(_MOST_CONFLICTS):
                status = await self._current()
                decider = Decider(status, self._clock.now(), self._backoff)
                answers = [_decide(request, index, decider) for index, request in enumerate(requests)]
                if not decider.events:  # then no append tells whether another master went on
                    if await self._log_port.read(self.run_id, after=status.position, limit=1):
                        self.hear_of_gap()
                        continue
                    return status, answers, None
                try:
                    committed = await self._append(status, decider)
                except PositionTaken:
                    self._status = None
                    self._meet_another()
                    in_turn = in_turn or await self._take(turn)
                    continue
                return status, answers, committed
        raise DependencyUnavailable(f"run {self.run_id}: lost {_MOST_CONFLICTS} races for a commit in a row")

    async def _append(self, status: RunStatus, decider: Decider) -> Committed:
        gift = self._giver.give(decider) if self._giver is not None and decider.enqueue else None
        try:
            events, position = tuple(decider.events), decider.position
            commit = Commit(run_id=self.run_id, position=position, at=decider.now, events=encode(events))
            if position == 1 and self._first_commit is not None:
                await self._first_commit(status, commit)
            else:
                await self._log_port.append(commit)
        except BaseException:
            if gift is not None:
                gift.undo()
            raise
        self._made = position
        return Committed(commit=commit, events=events, decider=decider, gift=gift)

    async def _take(self, turn: AsyncExitStack) -> bool:
        if self._turns is not None:
            await asyncio.sleep(_BREATH.total_seconds())
            await turn.enter_async_context(self._turns.turn(self.run_id))
            self.hear_of_gap()  # who had the turn before has gone on
        return True


class _Spoiled(Exception):
    """A request failed after its first event, or by a defect: what it did to the state must be undone."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


def _decide(request: Request[Any], index: int, decider: Decider) -> Answer:
    """One that refuses before its first event does no harm to the others of its commit."""
    before = decider.facts
    try:
        return request(decider), None
    except Exception as error:
        if decider.facts != before or not isinstance(error, FleetestError):
            raise _Spoiled(index, error) from error
        return None, error


def _answer(batch: Sequence[Waiting], answers: Sequence[Answer]) -> None:
    for (_, future), (answer, error) in zip(batch, answers, strict=True):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)
