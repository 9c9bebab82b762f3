"""
Keeps one run: takes requests from everywhere, and makes commits of them one after the other.

All requests that arrive while a commit is on its way to the store share the next one (group commit). A commit that
loses the race to another master is decided again, on what that master wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from fleetest.common.backoff import Backoff
from fleetest.common.clock import Clock
from fleetest.common.errors import DependencyUnavailable, FleetestError, NotFound
from fleetest.master.runs.decisions import Decider
from fleetest.master.runs.events import Event, decode, encode
from fleetest.master.runs.state import RunStatus
from fleetest.master.store.ports import Commit, PositionTaken, RunLog

__all__ = ["Committed", "Committer", "RunKeeper", "load_status"]

T = TypeVar("T")
Request = Callable[[Decider], T]

_log = structlog.get_logger()

_MOST_CONFLICTS = 50
"""Lost races in a row after which the store must be lying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A durable commit, and what has to be done about it."""

    commit: Commit
    events: tuple[Event, ...]
    decider: Decider


class Committer(Protocol):
    """What happens after a commit became durable: queues, workers and watchers are told."""

    def __call__(self, status: RunStatus, committed: Committed) -> Awaitable[None]: ...


async def load_status(run_id: str, log: RunLog, *, into: RunStatus | None = None) -> RunStatus:
    """
    Read a run's log, from the beginning or from where `into` stands.

    Raises:
        NotFound: there is no such run.
    """
    status = into or RunStatus(run_id)
    while commits := await log.read(run_id, after=status.position):
        for commit in commits:
            for event in decode(commit.events):
                status.apply(event, commit.position)
    status.touched.clear()
    return status


class RunKeeper:
    """
    Args:
        after_commit: awaited before a request is answered.
    """

    def __init__(self, run_id: str, log: RunLog, clock: Clock, backoff: Backoff, after_commit: Committer) -> None:
        self.run_id = run_id
        self._log_port = log
        self._clock = clock
        self._backoff = backoff
        self._after_commit = after_commit
        self._status: RunStatus | None = None
        self._requests: list[tuple[Request[Any], asyncio.Future[Any]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._behind = False

    async def ask(self, request: Request[T]) -> T:
        """
        Decide, make it durable, then answer what the request answered.

        Raises:
            FleetestError: what the request raised; its own events, if any, are in no commit.
            DependencyUnavailable, CapacityExceeded: the store did not take the commit.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._requests.append((request, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name=f"run {self.run_id}")
        return await answer

    async def status(self) -> RunStatus:
        """
        What the run has come to, as far as this master knows. Not to be changed.

        Raises:
            NotFound: there is no such run.
        """
        if self._status is None or self._behind:
            await self.ask(lambda _decider: None)
        assert self._status is not None
        if self._status.submitted is None:
            raise NotFound(f"there is no run {self.run_id}")
        return self._status

    @property
    def idle(self) -> bool:
        return not self._requests and (self._worker is None or self._worker.done())

    def hear(self, position: int) -> None:
        """Another master committed: read on before the next decision."""
        if self._status is not None and position > self._status.position:
            self._behind = True

    async def _work(self) -> None:
        while self._requests:
            batch, self._requests = self._requests, []
            try:
                await self._commit(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
                self._status = None
                self._fail(batch, error)

    def _fail(self, batch: list[tuple[Request[Any], asyncio.Future[Any]]], error: Exception) -> None:
        if not isinstance(error, FleetestError):
            _log.exception("commit_failed", run_id=self.run_id)
            error = DependencyUnavailable(f"run {self.run_id} could not be kept: {error!r}")
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)

    async def _commit(self, batch: list[tuple[Request[Any], asyncio.Future[Any]]]) -> None:
        for _ in range(_MOST_CONFLICTS):
            if self._status is None:
                self._status = await load_status(self.run_id, self._log_port)
            elif self._behind:
                await load_status(self.run_id, self._log_port, into=self._status)
            self._behind = False
            status = self._status
            decider = Decider(status, self._clock.now(), self._backoff)
            answers = [_decide(request, decider) for request, _ in batch]
            events = tuple(decider.events)
            if events:
                commit = Commit(run_id=self.run_id, position=decider.position, at=decider.now, events=encode(events))
                try:
                    await self._log_port.append(commit)
                except PositionTaken:
                    self._status = None
                    continue
                await self._after_commit(status, Committed(commit=commit, events=events, decider=decider))
            _answer(batch, answers)
            return
        raise DependencyUnavailable(f"run {self.run_id}: lost {_MOST_CONFLICTS} races for a commit in a row")


def _decide(request: Request[Any], decider: Decider) -> tuple[Any, Exception | None]:
    """
    One request may be refused without harm to the others of its commit: a request either refuses before its first
    event or takes effect whole.
    """
    before = len(decider.events)
    try:
        return request(decider), None
    except FleetestError as error:
        if len(decider.events) != before:
            raise
        return None, error


def _answer(batch: list[tuple[Request[Any], asyncio.Future[Any]]], answers: list[tuple[Any, Exception | None]]) -> None:
    for (_, future), (answer, error) in zip(batch, answers, strict=True):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)
