"""Holds of blobs on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from fleetest.master.store.ports import BlobHold
from fleetest.master.store.sqlite_database import Database
from fleetest.master.store.values import from_microseconds, to_microseconds

__all__ = ["SqliteHolds"]

_HOLD: Final = """
    INSERT INTO blob_holds (digest, project, holder, name, until_us) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET until_us = max(until_us, excluded.until_us)
"""
_COLUMNS: Final = "digest, project, holder, name, until_us"
_KEY: Final = "digest = ? AND project = ? AND holder = ? AND name = ?"
_OF_HOLDER: Final = f"SELECT {_COLUMNS} FROM blob_holds WHERE holder = ? ORDER BY name, digest"  # noqa: S608 - constants
_END: Final = f"UPDATE blob_holds SET until_us = min(until_us, ?) WHERE {_KEY}"  # noqa: S608 - constants
_ENDED: Final = f"SELECT {_COLUMNS} FROM blob_holds WHERE until_us <= ? ORDER BY until_us LIMIT ?"  # noqa: S608 - constants
_RELEASE: Final = f"DELETE FROM blob_holds WHERE {_KEY} AND until_us <= ?"  # noqa: S608 - constants
_ASKED_AT_ONCE: Final = 500


class SqliteHolds:
    """`BlobHolds` on SQLite."""

    _database: Database

    async def hold(self, holds: Sequence[BlobHold]) -> None:
        rows = [(*_key(hold), to_microseconds(hold.until)) for hold in holds]
        await self._database.write(lambda connection: _many(connection, _HOLD, rows))

    async def held(self, digests: Collection[str], *, at: datetime, project: str | None = None) -> frozenset[str]:
        wanted, moment = list(digests), to_microseconds(at)

        def work(connection: sqlite3.Connection) -> frozenset[str]:
            found: set[str] = set()
            for first in range(0, len(wanted), _ASKED_AT_ONCE):
                some = wanted[first : first + _ASKED_AT_ONCE]
                marks = ", ".join("?" * len(some))
                statement = f"SELECT DISTINCT digest FROM blob_holds WHERE digest IN ({marks}) AND until_us > ?"  # noqa: S608 - marks only
                if project is None:
                    found.update(digest for (digest,) in connection.execute(statement, (*some, moment)))
                else:
                    rows = connection.execute(f"{statement} AND project = ?", (*some, moment, project))
                    found.update(digest for (digest,) in rows)
            return frozenset(found)

        return await self._database.read(work)

    async def holds_of(self, holder: str) -> Sequence[BlobHold]:
        return await self._database.read(
            lambda connection: [_to_hold(*row) for row in connection.execute(_OF_HOLDER, (holder,))]
        )

    async def end_holds(self, holds: Sequence[BlobHold], *, at: datetime) -> None:
        rows = [(to_microseconds(at), *_key(hold)) for hold in holds]
        await self._database.write(lambda connection: _many(connection, _END, rows))

    async def ended_holds(self, by: datetime, *, limit: int) -> Sequence[BlobHold]:
        bounds = to_microseconds(by), limit
        return await self._database.read(
            lambda connection: [_to_hold(*row) for row in connection.execute(_ENDED, bounds)]
        )

    async def release(self, holds: Sequence[BlobHold]) -> None:
        rows = [(*_key(hold), to_microseconds(hold.until)) for hold in holds]
        await self._database.write(lambda connection: _many(connection, _RELEASE, rows))


def _many(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[str | int, ...]]) -> None:
    connection.executemany(statement, rows)


def _key(hold: BlobHold) -> tuple[str, str, str, str]:
    return hold.digest, hold.project, hold.holder, hold.name


def _to_hold(digest: str, project: str, holder: str, name: str, until_us: int) -> BlobHold:
    return BlobHold(digest=digest, project=project, holder=holder, name=name, until=from_microseconds(until_us))
