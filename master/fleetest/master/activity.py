"""Whether anybody still has a use for this master."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from fleetest.common.clock import Clock
from fleetest.common.errors import FleetestError
from fleetest.common.states import RunState
from fleetest.master.store.ports import RunQuery, Store

__all__ = ["Activity"]

_LOOK: Final = timedelta(seconds=1)


class Activity:
    """Counts the calls of clients; those of workers and probes do not keep a master up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls = 0
        self._last = clock.monotonic()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A client's call is under way."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._last = self._clock.monotonic()

    async def idle(self, store: Store, limit: timedelta) -> None:
        """Return when no client called and no run was active for `limit`."""
        while True:
            quiet = timedelta(seconds=self._clock.monotonic() - self._last)
            if not self._calls and quiet >= limit:
                if not await _any_run(store):
                    return
                self._last = self._clock.monotonic()
            await asyncio.sleep(min(limit, _LOOK).total_seconds())


async def _any_run(store: Store) -> bool:
    """Whether a run is active; one may be, when the store does not answer."""
    try:
        return bool(await store.list_runs(RunQuery(state=RunState.RUNNING, limit=1)))
    except FleetestError:
        return True
