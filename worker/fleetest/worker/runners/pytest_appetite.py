"""When a pytest session says that it would help to know what comes next, and how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

__all__ = ["Appetite"]

_QUICK: Final = timedelta(milliseconds=50)
_AHEAD: Final = timedelta(milliseconds=30)
"""For so long attempts may wait behind another: others could run them meanwhile."""

_MOST_AHEAD: Final = 7


class Appetite:
    """
    Says so when the last case is held back. Among quick cases it is said when one more is left to run before that,
    which hides the time that the answer takes; behind a slow one, what is asked for early would wait here while another
    slot idles. Where attempts are quick, too, several may come at once, and are asked for when half of them are left.

    Attributes:
        last_duration: of the case that ended last.
        ahead: how many attempts may come besides one.
    """

    def __init__(self) -> None:
        self.last_duration = timedelta.max
        self.ahead = 0
        self._callbacks: list[Callable[[], None]] = []
        self._seen: int | None = None

    def on_hungry(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def attempt_ended(self, took: timedelta) -> None:
        """Its cases took so long. Trust grows with each quick one, and ends with a slow one."""
        self.ahead = min(2 * self.ahead + 1, _MOST_AHEAD, _AHEAD // max(took, timedelta(milliseconds=1)))

    def others_wait(self) -> None:
        """Others could run what waits here: for now nothing is quick enough."""
        self.ahead, self.last_duration = 0, timedelta.max

    def renew(self) -> None:
        """Something new has come: what was said of as many cases was of others."""
        self._seen = None

    def look_at(self, backlog: int, *, busy: bool) -> None:
        """So many cases have not been started, and one runs or none does."""
        left = max(0, backlog + busy - 1)  # but for the last, which is held back
        before, self._seen = self._seen, left
        early = 1 + self.ahead // 2 if self.last_duration < _QUICK else 0
        said = before is not None and before <= early
        if left > early or left == before or (said and left > 0):
            return
        for callback in self._callbacks:
            asyncio.get_running_loop().call_soon(callback)
