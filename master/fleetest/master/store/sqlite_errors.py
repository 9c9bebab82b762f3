"""What the engine's errors mean to us, and what a person can do about them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, InvalidRequest

__all__ = ["closed", "explained", "is_busy", "is_missing_table"]


class _Meaning(NamedTuple):
    error: type[FleetestError]
    message: str
    hint: str


_FULL: Final = _Meaning(
    CapacityExceeded,
    "no room left for the store {path}",
    "free some space on that disk, or drop the logs of old runs; nothing of this write was kept",
)
_BUSY: Final = _Meaning(
    DependencyUnavailable,
    "another process has kept the store {path} locked for too long",
    "try again; if it stays so, find the process that holds the file open (`fuser {path}`)",
)
_DAMAGED: Final = _Meaning(
    DependencyUnavailable,
    "the store {path} is damaged, or no SQLite database",
    "restore it from a backup, or move it aside to begin with an empty one",
)

# By primary result code: https://www.sqlite.org/rescode.html
_MEANINGS: Final[dict[int, _Meaning]] = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_READONLY: _Meaning(
        DependencyUnavailable,
        "the store {path} cannot be written",
        "let this user write to the file and to {directory}, and check that the disk is not mounted read-only",
    ),
    sqlite3.SQLITE_CANTOPEN: _Meaning(
        DependencyUnavailable,
        "the store {path} cannot be opened",
        "{directory} must be a directory that exists and that this user may write to",
    ),
    sqlite3.SQLITE_IOERR: _Meaning(
        DependencyUnavailable,
        "the disk failed while the store {path} was read or written",
        "look at the system log for errors of this disk, and at the space left on it",
    ),
    sqlite3.SQLITE_TOOBIG: _Meaning(CapacityExceeded, "a value is too large for the store {path}", ""),
}

# The shared-memory index could not grow: the one way in which a full disk does not call itself full.
_FULL_BY_ANOTHER_NAME: Final = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE})

_PRIMARY_CODE: Final = 0xFF


def explained(error: Exception, path: Path) -> Exception:
    """
    The error of our own tree for one that the engine, or the binding of a value, raised.

    What has no meaning here, as a mistake in a statement has none, comes back as it is.
    """
    if isinstance(error, OverflowError | UnicodeError):
        mapped: FleetestError = InvalidRequest(f"not a value that the store can hold: {error}")
    else:
        code = _code_of(error)
        meaning = _FULL if code in _FULL_BY_ANOTHER_NAME else _MEANINGS.get(code & _PRIMARY_CODE)
        if meaning is None:
            return error
        names = {"path": path, "directory": path.parent}
        message = f"{meaning.message.format(**names)} ({error})"
        mapped = meaning.error(message, hint=meaning.hint.format(**names))
    mapped.__cause__ = error
    return mapped


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the lock that this needed."""
    return _code_of(error) & _PRIMARY_CODE == sqlite3.SQLITE_BUSY


def is_missing_table(error: sqlite3.Error) -> bool:
    """Whether a statement named a table that does not exist; the engine has no code of its own for it."""
    return _code_of(error) == sqlite3.SQLITE_ERROR and str(error).startswith("no such table")


def closed(path: Path) -> DependencyUnavailable:
    """What whoever comes too late is told."""
    return DependencyUnavailable(f"the store {path} has been closed")


def _code_of(error: Exception) -> int:
    """The engine's extended result code; 0 for what is not its error."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code
