"""Lets go of logs that are older than they are kept, a day at a time. What was derived from them stays."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError
from fleetest.master.store.ports import RunLog

__all__ = ["Retention"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(hours=1)


class Retention:
    """
    Args:
        keep: how long the log of a run can be read, counted from the day of its submission.
    """

    def __init__(self, log: RunLog, clock: Clock, keep: timedelta) -> None:
        self._log_port = log
        self._clock = clock
        self._keep = keep

    async def run(self) -> None:
        """Look once an hour, until cancelled."""
        while True:
            try:
                await self.look()
            except FleetestError as error:
                _log.warning("retention_failed", error=str(error))
            await asyncio.sleep(INTERVAL.total_seconds())

    async def look(self) -> None:
        """
        Raises:
            DependencyUnavailable: the store does not answer.
        """
        for day in await self._log_port.drop_before((self._clock.now() - self._keep).date()):
            _log.info("log_partition_dropped", day=day.isoformat())
