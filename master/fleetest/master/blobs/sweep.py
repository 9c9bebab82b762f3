"""Deletes blobs that nobody needs any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.blobs import BlobStore
from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError
from fleetest.master.store.ports import BlobHolds

__all__ = ["BlobSweep"]

_log = structlog.get_logger()

INTERVAL: Final = timedelta(hours=1)

_BATCH: Final = 500
_PAUSE: Final = timedelta(milliseconds=50)


class BlobSweep:
    """
    Goes by holds that have ended. What somebody else holds stays; a blob goes before the hold that told of it, so that
    a master which dies in between leaves it to be told of again. Several masters may sweep at once.
    """

    def __init__(self, blobs: BlobStore, holds: BlobHolds, clock: Clock) -> None:
        self._blobs = blobs
        self._holds = holds
        self._clock = clock
        self._soon = asyncio.Event()

    def look_soon(self) -> None:
        """Some holds have just been ended."""
        self._soon.set()

    async def run(self) -> None:
        """Look once an hour, or when told, until cancelled."""
        while True:
            self._soon.clear()
            try:
                await self.look()
            except FleetestError as error:
                _log.warning("blob_sweep_failed", error=str(error))
            try:
                async with asyncio.timeout(INTERVAL.total_seconds()):
                    await self._soon.wait()
            except TimeoutError:
                continue

    async def look(self) -> int:
        """
        Delete what can go, a batch at a time; answers how many blobs.

        Raises:
            DependencyUnavailable: the store, or the store of blobs, does not answer.
        """
        deleted = 0
        while True:
            ended = await self._holds.ended_holds(self._clock.now(), limit=_BATCH)
            if not ended:
                break
            digests = list(dict.fromkeys(hold.digest for hold in ended))
            needed = await self._holds.held(digests, at=self._clock.now())
            unneeded = [digest for digest in digests if digest not in needed]
            await self._blobs.delete(unneeded)
            await self._holds.release(ended)
            deleted += len(unneeded)
            await asyncio.sleep(_PAUSE.total_seconds())  # the master has other things to do
        if deleted:
            _log.info("blobs_deleted", count=deleted)
        return deleted
