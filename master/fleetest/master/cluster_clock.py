"""
One time for a whole cluster: Redis's.

Masters compare moments that others of them wrote down: when a worker was heard of, when a retry is due, when a stop was
asked for. Their own clocks may be minutes apart, so each corrects its own by what Redis says. See docs/adr/0006.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import DependencyUnavailable

__all__ = ["ClusterClock", "TimeSource"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(seconds=10)
_AGAIN: Final = timedelta(seconds=1)

PATIENCE: Final = timedelta(seconds=2)
"""How long a master that starts waits to be told."""

TOLERANCE: Final = timedelta(milliseconds=250)
"""Clocks that are kept right differ by less, and are left alone: small corrections would only turn time back."""

_SLOWEST_ANSWER: Final = TOLERANCE * 2
"""Half of it is how wrong a measurement can be."""


class TimeSource(Protocol):
    """Who tells the time to all masters."""

    async def now(self) -> datetime:
        """
        Raises:
            DependencyUnavailable: it does not answer.
        """


class ClusterClock:
    """
    Fulfils `Clock`. Steps when the correction changes, as any clock does that is set right; `monotonic` never does.

    Args:
        own: this machine's clock.
        source: the cluster's.
    """

    def __init__(self, own: Clock, source: TimeSource) -> None:
        self._own = own
        self._source = source
        self._correction = timedelta()

    def now(self) -> datetime:
        return self._own.now() + self._correction

    def monotonic(self) -> float:
        return self._own.monotonic()

    async def run(self) -> None:
        """Keep it right, until cancelled."""
        while True:
            pause = INTERVAL
            try:
                await self.measure()
            except DependencyUnavailable:
                pause = _AGAIN
            await asyncio.sleep(pause.total_seconds())

    async def begin(self, limit: timedelta = PATIENCE) -> None:
        """Set it right before anybody asks, if the source answers in time; otherwise `run` does so later."""
        with suppress(DependencyUnavailable, TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self.measure()

    async def measure(self) -> None:
        """
        Raises:
            DependencyUnavailable: the source does not answer.
        """
        asked_at = self._own.monotonic()
        theirs = await self._source.now()
        took = timedelta(seconds=self._own.monotonic() - asked_at)
        if took > _SLOWEST_ANSWER:
            return
        correction = theirs + took / 2 - self._own.now()
        if abs(correction - self._correction) > TOLERANCE:
            self._correction = correction
            _log.warning("clock_corrected", seconds=round(correction.total_seconds(), 3))
