"""What the processes of a pytest session have used."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from fleetest.common.results import ResourceUsage
from fleetest.worker.measure import subtract_usage
from fleetest.worker.ports import Process

__all__ = ["Spending"]

_RECENT_SECONDS: Final = 0.005


class Spending:
    """
    The totals of all processes that a session had, one after the other.

    Each method takes the present process; `None` when there is none.
    """

    def __init__(self) -> None:
        self._earlier = ResourceUsage()  # of the processes that are gone
        self._read_at, self._last_read = -_RECENT_SECONDS, self._earlier

    def total(self, process: Process | None) -> ResourceUsage:
        """Read now, which takes a millisecond."""
        usage = self._earlier + process.usage() if process is not None else self._earlier
        self._read_at, self._last_read = time.monotonic(), usage
        return usage

    def recent_total(self, process: Process | None) -> ResourceUsage:
        """An attempt that begins as another ends begins with the totals of that."""
        return self._last_read if time.monotonic() - self._read_at < _RECENT_SECONDS else self.total(process)

    def since(self, before: ResourceUsage, process: Process | None, *, wall_time: timedelta) -> ResourceUsage:
        """What has been used since those totals were read, so long ago."""
        return replace(subtract_usage(self.total(process), before), wall_time=wall_time)

    def lose(self, process: Process | None) -> None:
        """The present process is gone, or nobody's any more: what it has used is kept."""
        self._earlier = self.total(process)
