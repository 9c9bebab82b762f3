"""The time as Redis tells it to everybody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from fleetest.master.queue.connection import redis_errors

__all__ = ["RedisTime"]


class RedisTime:
    """Fulfils `TimeSource`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def now(self) -> datetime:
        with redis_errors():
            seconds, microseconds = await self._redis.time()
        return datetime.fromtimestamp(seconds, tz=UTC) + timedelta(microseconds=microseconds)
