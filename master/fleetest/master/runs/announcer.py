"""Tells the other masters of this one's commits, behind its back: nobody who commits waits for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, Self

import structlog

from fleetest.common.ending import end_tasks
from fleetest.common.errors import FleetestError
from fleetest.master.queue.ports import CommitFeed, CommitNotice

__all__ = ["Announcer"]

_log = structlog.get_logger()

_PAUSE: Final = timedelta(milliseconds=50)
"""Between two calls, so that what comes meanwhile shares the next. The first of a while goes at once."""


class Announcer:
    """
    Use as an asynchronous context manager. What Redis does not take is not told: the log's positions show the gap.
    """

    def __init__(self, feed: CommitFeed) -> None:
        self._feed = feed
        self._waiting: list[CommitNotice] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="announcements")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await end_tasks([self._task])
        await self._publish()

    def tell(self, notice: CommitNotice) -> None:
        """Returns at once. Notices keep their order."""
        self._waiting.append(notice)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._publish()
            await asyncio.sleep(_PAUSE.total_seconds())  # lets commits gather; not a wait for anything

    async def _publish(self) -> None:
        notices, self._waiting = self._waiting, []
        try:
            await self._feed.publish(notices)
        except FleetestError as error:
            _log.warning("commits_not_announced", notices=len(notices), error=str(error))
