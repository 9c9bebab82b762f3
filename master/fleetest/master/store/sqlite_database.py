"""One SQLite file: opened, brought up to date, written by one thread and read by several."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from fleetest.master.store.sqlite_errors import explained, is_busy
from fleetest.master.store.sqlite_readers import Readers
from fleetest.master.store.sqlite_schema import migrate
from fleetest.master.store.sqlite_shortcut import PATIENCE, Shortcut, Taken
from fleetest.master.store.sqlite_writer import Writer

__all__ = ["Database", "switch_to_wal"]

_Result = TypeVar("_Result")

_READERS: Final = 3

_FOLDED_AFTER: Final = 200
"""So many derived writes that were made at once, the writer folds the write-ahead log into the file."""

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",  # what was acknowledged is on the disk
    "PRAGMA secure_delete = OFF",  # some builds wipe by default, and would write a whole partition to drop it
    "PRAGMA cache_size = -8192",  # KiB
    "PRAGMA journal_size_limit = 67108864",  # bytes; a burst must not leave its write-ahead log behind for good
)


class Database:
    """
    Where the parts of the store do their work.

    Several processes may have the same file open; they take turns at writing. It must be on a local disk: WAL mode
    shares memory between processes, which network file systems do not.
    """

    def __init__(self, writer: Writer, shortcut: Shortcut, readers: Readers) -> None:
        self._writer = writer
        self._shortcut = shortcut
        self._readers = readers
        self._derived_at_once = 0

    @classmethod
    async def open(cls, path: Path, *, busy_timeout: timedelta) -> Database:
        """
        Open the file, made if absent, with the newest schema.

        Args:
            path: of the file; its directory must exist.
            busy_timeout: how long to wait for another process that writes.

        Raises:
            WrongState: the file is a newer Fleetest's, or another application's.
            CapacityExceeded, DependencyUnavailable: with what to do about it.
        """
        writing, at_once, reading = await asyncio.to_thread(_connect_all, path, busy_timeout)
        return cls(Writer(writing, path), Shortcut(at_once, path), Readers(reading, path))

    async def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """See `Writer.run`."""
        return await self._writer.run(work)

    async def write_statement(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """See `Writer.run_statement`."""
        return await self._writer.run_statement(work)

    def write_at_once(self, work: Callable[[sqlite3.Connection], _Result]) -> Taken[_Result] | None:
        """See `Shortcut.take`: for a few small rows, while nothing waits to be written before them."""
        return self._shortcut.take(work) if self._writer.idle else None

    async def write_derived(self, work: Callable[[sqlite3.Connection], _Result], *, small: bool = False) -> _Result:
        """See `Writer.run_derived`; for a few rows, `small`, at once where that is possible."""
        done = self._shortcut.take(work, derived=True) if small and self._writer.idle else None
        if done is not None:
            self._derived_at_once += 1
            if self._derived_at_once % _FOLDED_AFTER == 0:
                await self._writer.fold()
            return done.answer
        return await self._writer.run_derived(work)

    async def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """See `Readers.run`."""
        return await self._readers.run(work)

    def read_at_once(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """See `Shortcut.read`: for a few rows."""
        return self._shortcut.read(work)

    async def close(self) -> None:
        """Finish what was begun. Idempotent; whoever comes later gets DependencyUnavailable."""
        await self._readers.close()
        self._shortcut.close()
        await self._writer.close()  # the last to close folds the write-ahead log into the file


def _connect_all(
    path: Path, busy_timeout: timedelta
) -> tuple[sqlite3.Connection, sqlite3.Connection, list[sqlite3.Connection]]:
    """The writing connection, the one that writes at once, and the reading ones; none stays open when one fails."""
    with ExitStack() as opened:
        try:
            writing = _connect(path, busy_timeout, opened)
            migrate(writing, path)  # before anything else touches the file, which may not be ours
            switch_to_wal(writing, busy_timeout)
            at_once = _connect(path, PATIENCE, opened)
            reading = [_connect(path, busy_timeout, opened) for _ in range(_READERS)]
            for connection in (writing, at_once, *reading):
                for pragma in _PRAGMAS:
                    connection.execute(pragma)
        except sqlite3.Error as error:
            raise explained(error, path) from error
        opened.pop_all()
        return writing, at_once, reading


def _connect(path: Path, busy_timeout: timedelta, opened: ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path.absolute(), timeout=busy_timeout.total_seconds(), isolation_level=None, check_same_thread=False
    )
    opened.callback(connection.close)
    return connection


def switch_to_wal(connection: sqlite3.Connection, busy_timeout: timedelta) -> None:
    """
    Let readers and the writer go on side by side; the file remembers it.

    A new file must be nobody else's for the moment of the change, and the engine does not wait for that by itself.

    Raises:
        sqlite3.OperationalError: it was somebody else's all the time.
    """
    deadline = time.monotonic() + busy_timeout.total_seconds()
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
