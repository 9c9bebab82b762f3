"""A slot that gets ready for an attempt which has not come yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fleetest.worker.assignments import Ended
from fleetest.worker.attempts import Attempt
from fleetest.worker.messages import Expect
from fleetest.worker.station import Station

__all__ = ["Readying"]

_KEPT_BYTES: Final = 1 << 20


class Readying:
    """
    Opens a station for the next attempt of a run and a task. Nobody waits for it, and what it writes is kept.

    Attributes:
        task: ends as `Station.open` does.
    """

    def __init__(self, station: Station, expected: Expect) -> None:
        self._station = station
        self._expected = expected
        self._wanted = asyncio.Event()
        self._written: list[bytes] = []
        self._output: Callable[[bytes], None] | None = None
        self.task = asyncio.create_task(self._open(), name="readying")

    def fits(self, attempt: Attempt) -> bool:
        """Whether it is what the attempt needs."""
        return (attempt.ref.run_id, attempt.assignment.spec.environment_key) == (
            self._expected.run_id,
            self._expected.spec.environment_key,
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
            async with asyncio.timeout(self._expected.after.total_seconds()):
                await self._wanted.wait()
        except TimeoutError:
            pass
        run_id, spec = self._expected.run_id, self._expected.spec
        failure = await self._station.open(run_id, spec, secrets={}, output=self._write)
        if failure is None and self._station.session is not None:
            self._station.session.expect(run_id)
        return failure

    def _write(self, content: bytes) -> None:
        if self._output is not None:
            self._output(content)
        elif sum(map(len, self._written)) < _KEPT_BYTES:
            self._written.append(content)
