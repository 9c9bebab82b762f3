"""
Whose a case is: a file that the session and the agent share, one byte for each case in the order of being named.

A case is begun by the session or taken back by the agent, never both: whoever comes first writes its letter, under a
lock (`flock`) that each holds for microseconds. So the agent can take cases back at any time, also while a test runs
and the session listens to nobody. The agent's half is `fleetest.worker.runners.pytest_claims`.
"""

from __future__ import annotations

import fcntl
import os
from typing import Callable

__all__ = ["BEGUN", "Claims"]

BEGUN = b"b"
FREE = (b"", b"\0")  # what was never written


class Claims:
    """The session's half. Tests may replace what it uses, so that is looked up at the beginning."""

    def __init__(self, path: str, move_high: Callable[[int], int], on_lost: Callable[[], None]) -> None:
        self._flock, self._pread, self._pwrite = fcntl.flock, os.pread, os.pwrite
        self._lock, self._unlock = fcntl.LOCK_EX, fcntl.LOCK_UN
        self._on_lost = on_lost
        self._descriptor = move_high(os.open(path, os.O_RDWR))

    def begin(self, number: int) -> bool:
        """Make the case the session's own; answers whether it still was free."""
        free = False
        try:
            self._flock(self._descriptor, self._lock)
            free = self._pread(self._descriptor, 1, number) in FREE
            if free:
                self._pwrite(self._descriptor, BEGUN, number)
            self._flock(self._descriptor, self._unlock)
        except OSError:
            self._on_lost()
        return free
