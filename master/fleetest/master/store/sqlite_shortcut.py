"""
Small things that are written or read at once, by whoever asks for them: on the event loop itself.

The way through another thread is two wake-ups and a quarrel about the interpreter's lock at each statement: longer than
all else that a small commit takes, where the disk is quick. An idle cluster's task waits for two of them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Generic, TypeVar

from fleetest.common.errors import FleetestError
from fleetest.master.store.ports import PositionTaken
from fleetest.master.store.sqlite_errors import closed, explained

__all__ = ["PATIENCE", "SMALL_BYTES", "Shortcut", "Taken"]

_Result = TypeVar("_Result")

SMALL_BYTES: Final = 16 << 10
"""What is written at once is no more."""

PATIENCE: Final = timedelta(milliseconds=2)
"""
So long others may write: mostly it is this process, which saves projections, and has done so once it is let go on. To
queue behind it takes longer.
"""

_QUICK: Final = timedelta(milliseconds=3)
"""A commit that took longer is not what everybody else should wait for, and the next may not be either."""

_REST: Final = 2
"""How many times as long as commits take here none is made: those that come meanwhile share one elsewhere."""

_SAVED_REST: Final = timedelta(milliseconds=5)
"""
So much rest counts before it is due: a short run's second commit comes soon after its first, and one that the disk took
long for must not send the next through the thread.
"""

_LONG_REST: Final = 5
"""As `_REST`, after a commit that was not quick, or failed; twice as many after each further one in a row."""

_MOST_DOUBLINGS: Final = 10
_LONGEST_REST: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Generic[_Result]):
    """A commit that is on the disk, with what its work answered."""

    answer: _Result


class Shortcut:
    """
    Args:
        connection: of its own, which waits for others no longer than `PATIENCE`.
        clock: seconds that never go back.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # Where others write, too, one of them folds the write-ahead log into the file.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection = connection
        self._path = path
        self._closed = False
        self._clock = clock
        self._open_at = float("-inf")
        self._slow_in_a_row = 0
        self._derives = False

    def take(self, work: Callable[[sqlite3.Connection], _Result], *, derived: bool = False) -> Taken[_Result] | None:
        """
        Do the work in a transaction, and wait until that is on the disk. Answers `None` when nothing was done: this is
        not the moment for it, or it failed. Then it is the writer's, who waits longer, and explains failures.

        Args:
            derived: the work can be made again from what is on the disk, so that it need not be waited for.

        Raises:
            FleetestError, PositionTaken: what the work raised.
        """
        began = self._clock()
        if began < self._open_at or self._closed:
            return None
        try:
            if derived != self._derives:
                self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if derived else 'FULL'}")
                self._derives = derived
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:  # others write, and go on
            self._rest(began, quick=False)
            return None
        try:
            with self._connection:  # commits, or rolls back
                answer = work(self._connection)
        except (FleetestError, PositionTaken):
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it is met again where it is explained
            self._rest(began, quick=False)
            return None
        quick = self._clock() - began <= _QUICK.total_seconds()
        if not (derived and quick):  # which has not waited for the disk
            self._rest(began, quick=quick)
        return Taken(answer=answer)

    def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """
        What `work` answers: for a few rows that an index leads to. It waits for nobody who writes.

        Raises:
            DependencyUnavailable: the store cannot be read.
        """
        if self._closed:
            raise closed(self._path)
        try:
            return work(self._connection)
        except Exception as error:
            raise explained(error, self._path) from error

    def _rest(self, began: float, *, quick: bool) -> None:
        now = self._clock()
        if quick:
            self._slow_in_a_row = 0
            self._open_at = max(self._open_at, began - _SAVED_REST.total_seconds()) + (1 + _REST) * (now - began)
        else:
            self._slow_in_a_row += 1
            times = _LONG_REST << min(self._slow_in_a_row - 1, _MOST_DOUBLINGS)
            self._open_at = now + min(times * (now - began), _LONGEST_REST.total_seconds())

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        self._connection.close()
