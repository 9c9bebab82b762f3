"""Secrets of live runs, in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis

from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.wire import Wire

__all__ = ["RedisSecretStore"]

_SCANNED: Final = 1000
"""Keys that Redis looks at in one go: it serves nobody else meanwhile."""


class RedisSecretStore:
    """One hash for each run, gone with its time to live."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._wire = Wire(redis)

    async def put(self, run_id: str, secrets: Mapping[str, str], *, ttl: timedelta) -> None:
        if not secrets:
            return
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(_key(run_id), mapping={name.encode(): value.encode() for name, value in secrets.items()})
                pipeline.expire(_key(run_id), ttl)
                await pipeline.execute()

    async def get(self, run_id: str) -> Mapping[str, str]:
        with redis_errors():
            found = await self._redis.hgetall(_key(run_id))
        return {_text(name): _text(value) for name, value in found.items()}

    async def drop(self, run_id: str) -> None:
        with redis_errors():
            await self._wire.call("DEL", _key(run_id))

    async def held(self) -> frozenset[str]:
        with redis_errors():
            keys = [_text(key) async for key in self._redis.scan_iter(match=_key("*"), count=_SCANNED)]
        return frozenset(key.removeprefix(_key("")) for key in keys)


def _text(reply: bytes | str) -> str:
    """Replies are bytes, as `connect` asks; the client's types allow both."""
    return reply if isinstance(reply, str) else reply.decode()


def _key(run_id: str) -> str:
    return f"fleetest:secrets:{run_id}"
