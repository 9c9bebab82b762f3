"""What is left to do for attempts of a pytest session that have ended, while the session goes on with others."""

from __future__ import annotations

import asyncio

from fleetest.worker.assignments import Ended
from fleetest.worker.ports import Blobs
from fleetest.worker.runners.pytest_attempt import Attempt
from fleetest.worker.runners.pytest_coverage import Measured

__all__ = ["Farewells"]


class Farewells:
    """Gathers what attempts leave behind, hands in what was measured of them, and then tells that they have ended."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._measured: list[Measured] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def measures(self, measured: Measured) -> None:
        """One more process measures what its cases execute."""
        self._measured.append(measured)

    def bid(self, attempt: Attempt, ended: Ended) -> None:
        """The attempt has ended so; its future says it as soon as all that it left has been taken."""
        task = asyncio.create_task(self._finish(attempt, ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def done(self) -> None:
        """Returns when all attempts that have ended by now are said to have."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def discard_measured(self) -> None:
        """What is left of another run is nobody's by now."""
        while self._measured:
            await asyncio.to_thread(self._measured.pop().discard)

    async def _finish(self, attempt: Attempt, ended: Ended) -> None:
        if attempt.returned:  # what lies about is others' to tell
            await attempt.collector.stop()
        elif not attempt.is_plan:
            await attempt.collector.finish(ended.verdict)
            if attempt.is_measured:
                await self._hand_in(attempt)
        if not attempt.future.done():
            attempt.future.set_result(ended)

    async def _hand_in(self, attempt: Attempt) -> None:
        for measured in list(self._measured):
            if await measured.hand_in(self._blobs, attempt.reporter) and measured in self._measured:
                self._measured.remove(measured)
                await asyncio.to_thread(measured.discard)
