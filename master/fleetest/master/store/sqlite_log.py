"""The runs' log on SQLite: one table for each UTC day of run ids, made on demand, dropped whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, Final, NoReturn

from fleetest.common.errors import InvalidRequest, WrongState
from fleetest.common.ids import day_of_run
from fleetest.master.store.ports import Commit, PositionTaken
from fleetest.master.store.sqlite_database import Database
from fleetest.master.store.sqlite_errors import is_missing_table
from fleetest.master.store.sqlite_shortcut import SMALL_BYTES
from fleetest.master.store.values import from_microseconds, to_microseconds

__all__ = ["SqliteLog", "appending"]

_PREFIX: Final = "log_"

# {table} is made by `_table_of`, from a date alone.
_CREATE: Final = """
    CREATE TABLE {table} (
        run_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        at_us INTEGER NOT NULL,
        events BLOB NOT NULL,
        PRIMARY KEY (run_id, position)
    )
"""
_LAST: Final = "SELECT coalesce(max(position), 0) FROM {table} WHERE run_id = :run_id"
# Writes nothing unless the position is the next one.
_APPEND: Final = (
    "INSERT INTO {table} (run_id, position, at_us, events) SELECT :run_id, :position, :at_us, :events "
    f"WHERE :position = 1 + ({_LAST})"
)
_READ: Final = """
    SELECT position, at_us, events FROM {table} WHERE run_id = ? AND position > ? ORDER BY position LIMIT ?
"""
_DROPPED_BEFORE: Final = "SELECT dropped_before FROM log_retention"


class SqliteLog:
    """
    `RunLog` on SQLite.

    A position is checked and taken within one statement of one writing transaction, so no two commits share it,
    whichever processes they come from.
    """

    _database: Database

    async def append(self, commit: Commit) -> None:
        work = appending(commit)
        if len(commit.events) > SMALL_BYTES or self._database.write_at_once(work) is None:
            await self._database.write_statement(work)

    async def read(self, run_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Commit]:
        statement = _READ.format(table=_table_of(_day_of(run_id)))

        def work(connection: sqlite3.Connection) -> list[Commit]:
            try:
                rows = connection.execute(statement, (run_id, after, limit)).fetchall()
            except sqlite3.Error as error:
                if not is_missing_table(error):
                    raise
                return []
            return [
                Commit(run_id=run_id, position=position, at=from_microseconds(at_us), events=events)
                for position, at_us, events in rows
            ]

        return await self._database.read(work)

    async def drop_before(self, day: date) -> Sequence[date]:
        return await self._database.write(lambda connection: _drop_before(connection, day))

    async def dropped_before(self) -> date | None:
        return await self._database.read(_dropped_before)


def appending(commit: Commit) -> Callable[[sqlite3.Connection], None]:
    """
    The work that appends a commit.

    Raises:
        InvalidRequest: its run's id is none.
    """
    day = _day_of(commit.run_id)
    row = {
        "run_id": commit.run_id,
        "position": commit.position,
        "at_us": to_microseconds(commit.at),
        "events": commit.events,
    }
    statement = _append_to(day)  # at leisure: a writing thread quarrels about the interpreter's lock
    return lambda connection: _append(connection, day, statement, row)


def _append(connection: sqlite3.Connection, day: date, statement: str, row: dict[str, Any]) -> None:
    try:
        written = connection.execute(statement, row).rowcount
    except sqlite3.Error as error:
        if not (is_missing_table(error) and connection.in_transaction):
            raise
        _begin_partition(connection, day, row)
        written = connection.execute(statement, row).rowcount
    if not written:
        (last,) = connection.execute(_LAST.format(table=_table_of(day)), row).fetchone()
        _refuse(row, last)


def _begin_partition(connection: sqlite3.Connection, day: date, row: dict[str, Any]) -> None:
    dropped_before = _dropped_before(connection)
    if dropped_before is not None and day < dropped_before:
        raise WrongState(
            f"the log of run {row['run_id']} was dropped, with all from before {dropped_before}",
            hint="submit the run again",
        )
    if row["position"] != 1:
        _refuse(row, last=0)
    connection.execute(_CREATE.format(table=_table_of(day)))


def _refuse(row: dict[str, Any], last: int) -> NoReturn:
    run_id, position = row["run_id"], row["position"]
    if 1 <= position <= last:
        raise PositionTaken(f"run {run_id} already has a commit {position}; its last is {last}")
    raise WrongState(f"commit {position} of run {run_id} would leave a gap: its last is {last}")


def _drop_before(connection: sqlite3.Connection, day: date) -> list[date]:
    dropped = [each for each in _partitions(connection) if each < day]
    for each in dropped:
        connection.execute(f"DROP TABLE {_table_of(each)}")
    connection.execute(
        "INSERT INTO log_retention (one, dropped_before) VALUES (1, ?) "
        "ON CONFLICT (one) DO UPDATE SET dropped_before = max(dropped_before, excluded.dropped_before)",
        (day.isoformat(),),
    )
    return dropped


def _dropped_before(connection: sqlite3.Connection) -> date | None:
    row = connection.execute(_DROPPED_BEFORE).fetchone()
    return date.fromisoformat(row[0]) if row else None


def _partitions(connection: sqlite3.Connection) -> list[date]:
    """Oldest first."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'log_[0-9]*'")
    return sorted(date.fromisoformat(name.removeprefix(_PREFIX)) for (name,) in rows)


@lru_cache(maxsize=8)
def _append_to(day: date) -> str:
    return _APPEND.format(table=_table_of(day))


def _table_of(day: date) -> str:
    return f"{_PREFIX}{day:%Y%m%d}"


@lru_cache(maxsize=1024)
def _day_of(run_id: str) -> date:
    try:
        return day_of_run(run_id)
    except ValueError:
        raise InvalidRequest(f"not a run id: {run_id!r}") from None
