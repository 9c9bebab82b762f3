"""Runs any command as a test: its exit code is the verdict, and reports that it writes are its cases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

import structlog

from fleetest.common.errors import FleetestError, InvalidRequest
from fleetest.common.results import ResourceSample
from fleetest.common.states import Verdict
from fleetest.common.tasks import RunnerType
from fleetest.worker.assignments import Assignment, AttemptRef, Ended, Reporter, TaskSpec
from fleetest.worker.left_files import LeftByTask, LeftFiles
from fleetest.worker.ports import Blobs, Environment, Session
from fleetest.worker.runners.command_attempt import CommandAttempt

__all__ = ["CommandRunner", "CommandSession"]

_CLOSED: Final = "the session is closed"
_CLOSE_GRACE: Final = timedelta(seconds=10)

_log = structlog.stdlib.get_logger()


class CommandRunner:
    """Fulfils `Runner` for tasks of type `command`."""

    type: str = RunnerType.COMMAND.value

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def open(self, spec: TaskSpec, environment: Environment) -> Session:
        return CommandSession(spec, environment, self._blobs)

    async def leave(self, environment: Environment) -> None:
        """Nothing is kept in it."""


class _Attempt(Protocol):
    """One try at a command, or a service."""

    assignment: Assignment
    future: asyncio.Future[Ended]

    @property
    def waits_for_others(self) -> bool: ...

    async def run(self) -> Ended: ...

    async def cancel(self, reason: str, grace: timedelta) -> None: ...

    def sample(self) -> ResourceSample | None: ...


class CommandSession:
    """
    Fulfils `Session`: one command after the other. Nothing is ever held back.

    Args:
        make_attempt: what is done with each.
    """

    def __init__(
        self,
        spec: TaskSpec,
        environment: Environment,
        blobs: Blobs,
        make_attempt: Callable[[Assignment, Reporter, Environment, Blobs, LeftFiles], _Attempt] = CommandAttempt,
    ) -> None:
        self.environment_key = spec.environment_key
        self._environment = environment
        self._blobs = blobs
        self._make_attempt = make_attempt
        self._left = LeftByTask()
        self._waiting: asyncio.Queue[_Attempt] = asyncio.Queue()
        self._live: list[_Attempt] = []
        self._current: _Attempt | None = None
        self._hungry: list[Callable[[], None]] = []
        self._closed = False
        self._server = asyncio.create_task(self._serve())

    def submit(self, assignment: Assignment, reporter: Reporter) -> asyncio.Future[Ended]:
        attempt = self._make_attempt(assignment, reporter, self._environment, self._blobs, self._left.of(assignment))
        if self._closed:
            attempt.future.set_result(Ended(verdict=Verdict.CANCELLED, reason=_CLOSED))
        else:
            self._live.append(attempt)
            self._waiting.put_nowait(attempt)
        return attempt.future

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def backlog(self) -> int:
        return sum(1 for attempt in self._live if attempt is not self._current)

    def on_hungry(self, callback: Callable[[], None]) -> None:
        self._hungry.append(callback)

    @property
    def ahead(self) -> int:
        return 0

    def expect(self, run_id: str) -> None:
        """A command begins when it is asked for."""

    def hand_back(self, ref: AttemptRef, case_ids: Sequence[str]) -> None:
        """A command is one whole, and nobody asks for parts of it."""

    async def stop(self, ref: AttemptRef, *, reason: str, grace: timedelta, finish_running_case: bool) -> None:
        attempt = next((other for other in self._live if other.assignment.ref == ref), None)
        if attempt is None:
            return
        if attempt is not self._current:
            self._end(attempt, Ended(verdict=Verdict.CANCELLED, reason=reason))
        elif (
            not finish_running_case or attempt.waits_for_others
        ):  # a command is one case: when it may finish, it ends as itself
            await attempt.cancel(reason, grace)
        await asyncio.wait([attempt.future])

    def sample(self) -> ResourceSample | None:
        return self._current.sample() if self._current is not None else None

    async def close(self) -> None:
        self._closed = True
        for attempt in list(self._live):
            await self.stop(attempt.assignment.ref, reason=_CLOSED, grace=_CLOSE_GRACE, finish_running_case=False)
        self._server.cancel()
        await asyncio.wait([self._server])

    async def _serve(self) -> None:
        while True:
            attempt = await self._waiting.get()
            if attempt.future.done():
                continue
            self._current = attempt
            if self.backlog <= 1:
                for callback in self._hungry:
                    asyncio.get_running_loop().call_soon(callback)
            try:
                ended = await attempt.run()
            except InvalidRequest as error:
                ended = Ended(verdict=Verdict.FAILED, reason=str(error))
            except (FleetestError, OSError) as error:
                ended = Ended(verdict=Verdict.ERRORED, reason=str(error))
            except Exception as error:  # noqa: BLE001 - a defect of ours must not leave attempts without an end
                _log.exception("command_session_broke")
                ended = Ended(verdict=Verdict.ERRORED, reason=f"internal error: {error!r}")
            self._current = None
            self._end(attempt, ended)

    def _end(self, attempt: _Attempt, ended: Ended) -> None:
        self._live.remove(attempt)
        if not attempt.future.done():
            attempt.future.set_result(ended)
