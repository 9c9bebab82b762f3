"""One thread that writes, and makes one transaction of all that waits: group commit."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

from fleetest.common.errors import FleetestError
from fleetest.master.store.ports import PositionTaken
from fleetest.master.store.sqlite_errors import closed, explained, is_missing_table

__all__ = ["Writer"]

_Result = TypeVar("_Result")

# So that the first of a long queue need not wait for the last of it.
_LARGEST_GROUP: Final = 1024


_FOLDED_PAGES: Final = 1000
"""As SQLite has it. A longer write-ahead log is a file that grows, which is slower to flush."""

_MOST_PAGES: Final = 8000
"""Of a log that nobody has folded since, for want of derived work."""


class _Job:
    """A piece of work that waits for its group's commit."""

    __slots__ = ("derived", "error", "future", "result", "single", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Any],
        future: asyncio.Future[Any],
        *,
        single: bool = False,
        derived: bool = False,
    ) -> None:
        self.work = work
        self.future = future
        self.single = single  # whether it is a transaction by itself
        self.derived = derived  # whether it can be made again from what is on the disk
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self.error = None
        try:
            self.result = self.work(connection)
        except (FleetestError, PositionTaken) as refusal:
            self.error = refusal

    def deliver(self) -> None:
        if self.future.done():  # nobody waits any longer
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """
    Runs pieces of work in the order in which they came, and answers each once its transaction is on disk.

    While one group is being committed the next one gathers, so that the number of commits, each of which waits for
    the disk, grows with time and not with the number of writers.

    Work may refuse by raising an error of ours, and must not have written anything by then: the others of its group
    are committed all the same. Any other exception rolls the group back, and each piece gets a transaction of its
    own, so that only those fail that cannot be done. Work may therefore run twice.

    A group of nothing but derived work is not waited for to be on the disk, so that it keeps nobody waiting there. The
    write-ahead log is one file: whatever comes to the disk after it brings it along.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closing = False
        self._unanswered = 0
        self._waits = ("", 0)  # how long commits of the connection take; empty: as it was opened
        self._thread = Thread(target=self._run, name="fleetest-store-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """
        Answer what `work` answers once it is committed. A caller that gives up waiting does not undo it.

        Raises:
            CapacityExceeded, DependencyUnavailable: nothing was written.
        """
        result: _Result = await self._answer(_Job(work, self._loop.create_future()))
        return result

    async def run_statement(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """
        As `run`, for work that writes with one statement. When nothing else waits it does without a transaction around
        it, whose statements take longer than itself: for each, a busy thread has to give the interpreter's lock away.

        Where a table is missing, the work runs again in a transaction, and may make it there.
        """
        result: _Result = await self._answer(_Job(work, self._loop.create_future(), single=True))
        return result

    async def run_derived(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """
        As `run`, for what can be made again from the rest: it outlives this process, and perhaps not the machine.
        """
        result: _Result = await self._answer(_Job(work, self._loop.create_future(), derived=True))
        return result

    async def fold(self) -> None:
        """
        Fold the write-ahead log into the file, which derived work of others has made long; commits go on meanwhile.

        Raises:
            CapacityExceeded, DependencyUnavailable: some of it stays where it was.
        """
        await self._answer(_Job(_fold, self._loop.create_future(), single=True, derived=True))

    async def _answer(self, job: _Job) -> Any:
        if self._closing:
            raise closed(self._path)
        self._unanswered += not job.derived
        self._jobs.put(job)
        try:
            return await job.future
        finally:
            self._unanswered -= not job.derived

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is being written but what is derived, which lets everything else pass."""
        return not self._unanswered and not self._closing

    async def close(self) -> None:
        """Commit what waits, then close the connection. Idempotent."""
        if not self._closing:
            self._closing = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while group := self._next_group():
            self._commit(group)
            # A loop that was closed has nobody left who could wait for the answer.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_deliver, group)
        self._connection.close()

    def _next_group(self) -> Sequence[_Job]:
        """All that waits, at least one; empty at the end."""
        group: list[_Job] = []
        while (job := self._jobs.get()) is not None:
            group.append(job)
            if len(group) == _LARGEST_GROUP or self._jobs.empty():
                return group
        if group:
            self._jobs.put(None)  # the end, for the next call
        return group

    def _choose_wait(self, group: Sequence[_Job]) -> None:
        """
        In WAL mode, `NORMAL` leaves a commit to the next one that is waited for. To fold the write-ahead log into the
        file takes many times as long as a commit: that waits for derived work, which comes after all other.
        """
        kinds = {job.derived for job in group}
        wanted = "FULL" if False in kinds else "NORMAL", _FOLDED_PAGES if True in kinds else _MOST_PAGES
        if wanted != self._waits:
            self._waits = synchronous, pages = wanted
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def _commit(self, group: Sequence[_Job]) -> None:
        self._choose_wait(group)
        if len(group) == 1 and group[0].single and self._executed(group[0]):
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            for job in group:
                job.error = explained(error, self._path)
            return
        try:
            with self._connection:  # commits, or rolls back
                for job in group:
                    job.run(self._connection)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller whose work raised it
            if len(group) == 1:
                group[0].error = explained(error, self._path)
            else:
                for job in group:
                    self._commit([job])

    def _executed(self, job: _Job) -> bool:
        """Run it by itself; answers whether that is all, or it needs a transaction."""
        try:
            job.run(self._connection)
        except Exception as error:  # noqa: BLE001 - as above
            if isinstance(error, sqlite3.Error) and is_missing_table(error):
                return False
            job.error = explained(error, self._path)
        return True


def _fold(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _deliver(group: Sequence[_Job]) -> None:
    for job in group:
        job.deliver()
