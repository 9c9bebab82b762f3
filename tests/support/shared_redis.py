"""One embedded Redis for many tests: to start one takes more than most tests do with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import redis

from fleetest.master.queue.embedded_redis import EmbeddedRedis

__all__ = ["SharedRedis", "shared_redis"]

_SECONDS = 60
T = TypeVar("T")


class SharedRedis:
    """
    An `EmbeddedRedis` in a thread that outlives the event loops of the tests; they may stop it and start it again.

    Attributes:
        server: it; to be used in its thread alone.
    """

    def __init__(self, server: EmbeddedRedis, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop
        self.url = server.url

    @property
    def pid(self) -> int | None:
        return self.server.pid

    async def start(self) -> None:
        await self._there(self.server.start())

    async def stop(self) -> None:
        await self._there(self.server.stop())

    async def wait(self) -> int:
        return await self._there(self.server.wait())

    def start_empty(self) -> None:
        """Return when it answers, and holds nothing; also after a test that stopped or killed it."""
        self.call(self.server.start())
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def call(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _there(self, work: Coroutine[None, None, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


@contextmanager
def shared_redis(directory: Path) -> Iterator[SharedRedis]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="shared Redis")
    thread.start()
    server = SharedRedis(EmbeddedRedis(directory), loop)
    try:
        yield server
    finally:
        server.call(server.server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
