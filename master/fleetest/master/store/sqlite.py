"""The store on one SQLite file: what `fleetest up` keeps its runs in."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable
from fleetest.master.store.ports import SUBMITTED_WITH, Commit, RunRow
from fleetest.master.store.sqlite_database import Database
from fleetest.master.store.sqlite_documents import SqliteDocuments, document, put_document
from fleetest.master.store.sqlite_holds import SqliteHolds
from fleetest.master.store.sqlite_log import SqliteLog, appending
from fleetest.master.store.sqlite_projections import SqliteProjections, saving_runs
from fleetest.master.store.sqlite_shortcut import SMALL_BYTES

__all__ = ["SqliteStore"]

_BUSY_TIMEOUT: Final = timedelta(seconds=10)


class SqliteStore(SqliteLog, SqliteProjections, SqliteDocuments, SqliteHolds):
    """
    `Store` on SQLite: its ports on one database.

    An acknowledged write is on the disk, but for projections, which the log makes again. Every method may raise
    CapacityExceeded (the disk is full) or DependencyUnavailable (the file cannot be read or written, or the store is
    closed); nothing is half done then.

    ::

        async with await SqliteStore.open(path) as store: ...
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, path: Path, *, busy_timeout: timedelta = _BUSY_TIMEOUT) -> Self:
        """See `Database.open`."""
        return cls(await Database.open(path, busy_timeout=busy_timeout))

    async def begin_run(self, commit: Commit, row: RunRow, *, key: str = "") -> str:
        """In one transaction."""
        append, save = appending(commit), saving_runs([row])

        def work(connection: sqlite3.Connection) -> str:
            holder = document(connection, SUBMITTED_WITH, key) if key else None
            if holder not in {None, commit.run_id}:
                return str(holder)
            append(connection)  # first: it may refuse
            save(connection)
            if key:
                put_document(connection, SUBMITTED_WITH, key, commit.run_id)
            return commit.run_id

        done = self._database.write_at_once(work) if len(commit.events) <= SMALL_BYTES else None
        return done.answer if done is not None else await self._database.write(work)

    async def check(self) -> None:
        try:
            await self._database.write(_touch)
        except CapacityExceeded as full:
            raise DependencyUnavailable(full.message, hint=full.hint) from full

    async def close(self) -> None:
        """Finish what was begun, and close the file. Idempotent."""
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO checks (one, count) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET count = count + 1"
    )
