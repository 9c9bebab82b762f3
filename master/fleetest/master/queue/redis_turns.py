"""Turns at a run: a key that is there while a master has its turn."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from fleetest.common.errors import DependencyUnavailable
from fleetest.master.queue.connection import redis_errors

__all__ = ["RedisTurns"]

_LONGEST: Final = timedelta(seconds=3)
"""A turn of a master that died ends by itself; nobody waits for longer."""

_LOOK: Final = timedelta(milliseconds=4)

_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RedisTurns:
    """Fulfils `Turns`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._release = redis.register_script(_RELEASE)

    @asynccontextmanager
    async def turn(self, run_id: str) -> AsyncIterator[None]:
        key, name = f"fleetest:turn:{run_id}", secrets.token_hex(8)
        taken = await self._take(key, name)
        try:
            yield
        finally:
            if taken:
                with suppress(DependencyUnavailable), redis_errors():
                    await self._release(keys=[key], args=[name])

    async def _take(self, key: str, name: str) -> bool:
        """Whether it was to be had in time. No event crosses from whoever holds it, so look again and again."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + _LONGEST.total_seconds()
        while loop.time() < limit:
            try:
                with redis_errors():
                    taken: Any = await self._redis.set(key, name, nx=True, px=_LONGEST)
            except DependencyUnavailable:
                return False
            if taken:
                return True
            await asyncio.sleep(_LOOK.total_seconds())
        return False
