"""
The tables, and how a database from an earlier Fleetest comes to have them.

`PRAGMA user_version` counts the steps that a database has behind it. A step is never changed once released; a new
one is added at the end. The tables of the log, one for each day, are made by `sqlite_log` when they are needed.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from fleetest.common.errors import WrongState

__all__ = ["migrate"]

# "Flte", in the field that SQLite reserves for applications to mark their files with.
_APPLICATION_ID: Final = 0x466C7465

_STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # One row: runs from before this day have no log any more.
        "CREATE TABLE log_retention (one INTEGER PRIMARY KEY CHECK (one = 1), dropped_before TEXT NOT NULL)",
        """
        CREATE TABLE runs (
            run_id TEXT NOT NULL PRIMARY KEY,
            project TEXT NOT NULL,
            suite_name TEXT NOT NULL,
            branch TEXT NOT NULL,
            state TEXT NOT NULL,
            submitted_at_us INTEGER NOT NULL,
            ended_at_us INTEGER,
            position INTEGER NOT NULL,
            body TEXT NOT NULL
        )
        """,
        "CREATE INDEX runs_by_project ON runs (project, run_id)",
        "CREATE INDEX runs_by_state ON runs (state, run_id)",
        """
        CREATE TABLE cases (
            run_id TEXT NOT NULL,
            task_id TEXT NOT NULL,
            case_id TEXT NOT NULL,
            place INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            flaky INTEGER NOT NULL,
            position INTEGER NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (run_id, task_id, case_id)
        )
        """,
        # The outcome comes last so that a filter by it need not look at the rows.
        "CREATE INDEX cases_by_place ON cases (run_id, task_id, place, outcome)",
        """
        CREATE TABLE case_history (
            project TEXT NOT NULL,
            task TEXT NOT NULL,
            case_id TEXT NOT NULL,
            duration_us INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            PRIMARY KEY (project, task, case_id)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE documents (
            kind TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (kind, key)
        ) WITHOUT ROWID
        """,
        # AUTOINCREMENT: an id is never given twice, so a reader that goes on after the last one it saw misses none.
        """
        CREATE TABLE output (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id TEXT NOT NULL,
            task_id TEXT NOT NULL,
            shard_id TEXT NOT NULL,
            token INTEGER NOT NULL,
            offset_bytes INTEGER NOT NULL,
            truncated INTEGER NOT NULL,
            content BLOB NOT NULL,
            UNIQUE (run_id, shard_id, token, offset_bytes)
        )
        """,
        "CREATE INDEX output_by_task ON output (run_id, task_id, id)",
        # One row, written to find out whether the store can be written.
        "CREATE TABLE checks (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL)",
    ),
    (
        """
        CREATE TABLE task_usage (
            project TEXT NOT NULL,
            task TEXT NOT NULL,
            run_id TEXT NOT NULL,
            cpu_time_us INTEGER NOT NULL,
            wall_time_us INTEGER NOT NULL,
            peak_memory_bytes INTEGER NOT NULL,
            disk_read_bytes INTEGER NOT NULL,
            disk_written_bytes INTEGER NOT NULL,
            PRIMARY KEY (project, task, run_id)
        ) WITHOUT ROWID
        """,
    ),
    # Results whole, as their workers sent them; in rows from before they are part of the body.
    ("ALTER TABLE cases ADD COLUMN result BLOB NOT NULL DEFAULT x''",),
    (
        "ALTER TABLE case_history ADD COLUMN worker_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE case_history ADD COLUMN measured_us INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE case_history ADD COLUMN failing REAL NOT NULL DEFAULT 0",
    ),
    (
        """
        CREATE TABLE blob_holds (
            digest TEXT NOT NULL,
            project TEXT NOT NULL,
            holder TEXT NOT NULL,
            name TEXT NOT NULL,
            until_us INTEGER NOT NULL,
            PRIMARY KEY (digest, project, holder, name)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX blob_holds_by_holder ON blob_holds (holder, name)",
        "CREATE INDEX blob_holds_by_end ON blob_holds (until_us)",
    ),
)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """
    Bring the database to the newest schema, in one transaction.

    Safe to run again, and from several processes at once: the later ones wait and find nothing to do.

    Raises:
        WrongState: the database is from a newer Fleetest, or another application's. It has not been touched.
    """
    with connection:  # commits, or rolls back
        connection.execute("BEGIN IMMEDIATE")
        version = _version_of(connection, path)
        for step in _STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        if version < len(_STEPS):
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_STEPS)}")


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION_ID and tables:
        raise WrongState(
            f"{path} is a database of another application",
            hint="give the store a file of its own",
        )
    if version > len(_STEPS):
        raise WrongState(
            f"the store {path} was written by a newer Fleetest (its schema is {version}, "
            f"this version knows up to {len(_STEPS)})",
            hint="upgrade Fleetest here, or give this version a file of its own",
        )
    return int(version)
