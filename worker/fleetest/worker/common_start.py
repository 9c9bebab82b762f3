"""The moment at which all shards of a gang begin, on this worker's own clock."""

from __future__ import annotations

import asyncio
from datetime import timedelta

__all__ = ["CommonStart"]


class CommonStart:
    """
    The master says after how long it is, not when: no two machines' clocks agree, but each knows how long a second is.

    Args:
        patience: how long to wait for the word; `None` means for ever.
    """

    def __init__(self, patience: timedelta | None) -> None:
        self._patience = patience
        self._at: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def set(self, after: timedelta) -> None:
        """It is so long from now. Said again, it does not change."""
        if not self._at.done():
            self._at.set_result(asyncio.get_running_loop().time() + after.total_seconds())

    async def reached(self) -> None:
        """
        Raises:
            TimeoutError: the word did not come.
        """
        async with asyncio.timeout(self._patience.total_seconds() if self._patience is not None else None):
            at = await asyncio.shield(self._at)
        await asyncio.sleep(at - asyncio.get_running_loop().time())
