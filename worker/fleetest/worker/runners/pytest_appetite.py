"""When a pytest session says that it would help to know what comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

__all__ = ["Appetite"]

_QUICK: Final = timedelta(milliseconds=50)


class Appetite:
    """
    Says so when the last case is held back. Among quick cases it is said when one more is left to run before that,
    which hides the time that the answer takes; behind a slow one, what is asked for early would wait here while another
    slot idles.

    Attributes:
        last_duration: of the case that ended last.
    """

    def __init__(self) -> None:
        self.last_duration = timedelta.max
        self._callbacks: list[Callable[[], None]] = []
        self._told: int | None = None

    def on_hungry(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def renew(self) -> None:
        """Something new has come: what was said of as many cases was of others."""
        self._told = None

    def look_at(self, backlog: int, *, busy: bool) -> None:
        """So many cases have not been started, and one runs or none does."""
        left = max(0, backlog + busy - 1)  # but for the last, which is held back
        before, self._told = self._told, left
        early = 1 if self.last_duration < _QUICK else 0
        if self._told == before or left > early:
            return
        for callback in self._callbacks:
            asyncio.get_running_loop().call_soon(callback)
