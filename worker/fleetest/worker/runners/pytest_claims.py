"""The agent's half of `fleetest/worker/resident/claims.py`, which cannot be imported here; what it says holds here."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["Claims"]

_TAKEN_BACK: Final = b"t"
_FREE: Final = (b"", b"\0")
_TRIES: Final = 20  # the session holds the lock for microseconds, unless it was stopped
_EVERYBODY: Final = 0o666  # the session may be another user's; its directory keeps strangers out


class Claims:
    """Which of the cases that a session was told of it has not begun."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW)
        path.chmod(_EVERYBODY)
        self._numbers: dict[str, int] = {}
        self._told = 0

    def tell(self, case_ids: Sequence[str]) -> None:
        """The session is told of these, after those before; one that is told of again is meant anew."""
        for case_id in case_ids:
            self._numbers[case_id] = self._told
            self._told += 1

    def take_back(self, case_ids: Sequence[str]) -> dict[str, int]:
        """
        Keep the session from beginning these. Answers those that it has not begun, with their numbers: none when it
        was stopped while it held the lock, or has ended.
        """
        if self._descriptor < 0 or not self._lock():
            return {}
        try:
            return {case_id: number for case_id in case_ids if (number := self._take_back(case_id)) is not None}
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self) -> bool:
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def _take_back(self, case_id: str) -> int | None:
        number = self._numbers.get(case_id)
        if number is None or os.pread(self._descriptor, 1, number) not in _FREE:
            return None
        os.pwrite(self._descriptor, _TAKEN_BACK, number)
        return number
