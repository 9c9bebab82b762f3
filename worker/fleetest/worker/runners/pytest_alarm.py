"""The time at which the first limit of a pytest session passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """
    Args:
        ring: called at the time that was set, or earlier: limits move on with each word of a session, and only when the
            alarm rings is it worth to set it anew.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float | None) -> None:
        """As the loop's time; `None` when there is no limit."""
        if when is None or (self._timer is not None and self._timer.when() <= when):
            return
        self.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._go_off)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        self._ring()
