"""Documents and output on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from fleetest.master.store.ports import LogPiece
from fleetest.master.store.sqlite_database import Database
from fleetest.master.store.sqlite_rows import insert

__all__ = ["SqliteDocuments", "document", "put_document"]

_PUT: Final = "INSERT INTO documents (kind, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_GET: Final = "SELECT value FROM documents WHERE kind = ? AND key = ?"
_LIST: Final = "SELECT key, value FROM documents WHERE kind = ? ORDER BY key"
_REPLACE: Final = "UPDATE documents SET value = ? WHERE kind = ? AND key = ? AND value = ?"

_APPEND_OUTPUT: Final = """
    INSERT INTO output (run_id, task_id, shard_id, token, offset_bytes, truncated, content)
    VALUES {rows}
    ON CONFLICT DO NOTHING
"""
# An empty shard id asks for every shard.
_READ_OUTPUT: Final = """
    SELECT id, run_id, task_id, shard_id, token, offset_bytes, truncated, content FROM output
    WHERE run_id = ? AND task_id = ? AND ? IN ('', shard_id) AND id > ?
    ORDER BY id LIMIT ?
"""


class SqliteDocuments:
    """`Documents` on SQLite."""

    _database: Database

    async def put_if_absent(self, kind: str, key: str, value: str) -> str:
        def work(connection: sqlite3.Connection) -> str:
            put_document(connection, kind, key, value)
            stored = document(connection, kind, key)
            assert stored is not None  # it was put just now
            return stored

        return await self._database.write(work)

    async def get_document(self, kind: str, key: str) -> str | None:
        return await self._database.read(lambda connection: document(connection, kind, key))

    async def list_documents(self, kind: str) -> Sequence[tuple[str, str]]:
        def work(connection: sqlite3.Connection) -> list[tuple[str, str]]:
            return [(key, value) for key, value in connection.execute(_LIST, (kind,))]

        return await self._database.read(work)

    async def replace_document(self, kind: str, key: str, *, expected: str, value: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            return connection.execute(_REPLACE, (value, kind, key, expected)).rowcount == 1

        return await self._database.write(work)

    async def append_output(self, pieces: Sequence[LogPiece]) -> None:
        rows = [(p.run_id, p.task_id, p.shard_id, p.token, p.offset_bytes, p.truncated, p.content) for p in pieces]

        await self._database.write(lambda connection: insert(connection, _APPEND_OUTPUT, rows))

    async def read_output(
        self, run_id: str, task_id: str, *, shard_id: str = "", after_id: int = 0, limit: int = 256
    ) -> Sequence[tuple[int, LogPiece]]:
        def work(connection: sqlite3.Connection) -> list[tuple[int, LogPiece]]:
            rows = connection.execute(_READ_OUTPUT, (run_id, task_id, shard_id, after_id, limit))
            return [(row[0], _to_piece(*row[1:])) for row in rows]

        return await self._database.read(work)


def put_document(connection: sqlite3.Connection, kind: str, key: str, value: str) -> None:
    """Unless the key has a value."""
    connection.execute(_PUT, (kind, key, value))


def document(connection: sqlite3.Connection, kind: str, key: str) -> str | None:
    """The value of the key, if it has one."""
    row = connection.execute(_GET, (kind, key)).fetchone()
    return None if row is None else str(row[0])


def _to_piece(
    run_id: str, task_id: str, shard_id: str, token: int, offset_bytes: int, truncated: int, content: bytes
) -> LogPiece:
    return LogPiece(
        run_id=run_id,
        task_id=task_id,
        shard_id=shard_id,
        token=token,
        offset_bytes=offset_bytes,
        truncated=bool(truncated),
        content=content,
    )
