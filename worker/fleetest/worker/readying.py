"""A slot that gets ready for an attempt which has not come yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from fleetest.worker.assignments import Ended, TaskSpec
from fleetest.worker.attempts import Attempt
from fleetest.worker.station import Station

__all__ = ["Readying"]

# A short plan is made by then: what it finds is run sooner by who made it. It also leaves the planning slot the setup.
_DELAY: Final = timedelta(milliseconds=300)
_KEPT_BYTES: Final = 1 << 20


class Readying:
    """
    Opens a station for the next attempt of a run and a task. Nobody waits for it, and what it writes is kept.

    Attributes:
        task: ends as `Station.open` does.
    """

    def __init__(self, station: Station, run_id: str, spec: TaskSpec) -> None:
        self._station = station
        self._run_id = run_id
        self._spec = spec
        self._wanted = asyncio.Event()
        self._written: list[bytes] = []
        self._output: Callable[[bytes], None] | None = None
        self.task = asyncio.create_task(self._open(), name="readying")

    def fits(self, attempt: Attempt) -> bool:
        """Whether it is what the attempt needs."""
        return (attempt.ref.run_id, attempt.assignment.spec.environment_key) == (
            self._run_id,
            self._spec.environment_key,
        )

    def hand_over(self, attempt: Attempt) -> asyncio.Task[Ended | None]:
        """The attempt has come: it waits for the task now, and what is written is its own."""
        self._output = attempt.reporter.output
        for content in self._written:
            self._output(content)
        self._written.clear()
        self._wanted.set()
        return self.task

    async def give_up(self) -> None:
        """The station is needed for something else; it may be half open."""
        self.task.cancel()
        await asyncio.wait([self.task])
        await self._station.close()

    async def _open(self) -> Ended | None:
        try:
            async with asyncio.timeout(_DELAY.total_seconds()):
                await self._wanted.wait()
        except TimeoutError:
            pass
        failure = await self._station.open(self._run_id, self._spec, secrets={}, output=self._write)
        if failure is None and self._station.session is not None:
            self._station.session.expect(self._run_id)
        return failure

    def _write(self, content: bytes) -> None:
        if self._output is not None:
            self._output(content)
        elif sum(map(len, self._written)) < _KEPT_BYTES:
            self._written.append(content)
