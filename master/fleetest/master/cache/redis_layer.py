"""
The layer that all masters share: Redis.

Its values lie in one hash slot, so that Redis Cluster works and each script knows its keys:

=======  ==========  =====================================================
values   hash        key to value
expiry   sorted set  key to milliseconds at which its value is too old
order    sorted set  key to a number that grows: the lowest makes room
count    string      the last such number
bytes    string      of all values and their keys
=======  ==========  =====================================================

The bound is kept by the scripts: the same Redis holds the queue, and must not evict by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.resources import files
from itertools import chain
from typing import Any, Final

from redis.asyncio import Redis

from fleetest.common.clock import Clock
from fleetest.master.cache.layers import CacheStrategy, check_key, covers
from fleetest.master.queue.connection import redis_errors

__all__ = ["RedisLayer"]

_KEYS: Final = tuple(f"fleetest:{{cache}}:{name}" for name in ("values", "expiry", "order", "count", "bytes"))
_ORDER: Final = _KEYS[2]
_BATCH: Final = 200
"""Values that one script call moves at most, so that it keeps others waiting for milliseconds only."""


class RedisLayer:
    """Fulfils `CacheLayer`. Values grow old by the masters' clock, which is Redis's."""

    name = "redis"

    def __init__(self, redis: Redis, strategy: CacheStrategy, clock: Clock) -> None:
        self._redis = redis
        self._strategy = strategy
        self._clock = clock
        prelude = _lua("prelude")
        self._get, self._put, self._drop = (
            redis.register_script(f"{prelude}\n{_lua(name)}") for name in ("get", "put", "drop")
        )

    async def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        for some in _batches(keys):
            with redis_errors():
                values: Any = await self._get(keys=_KEYS, args=[self._now(), self._strategy.eviction, *some])
            found |= {key: value for key, value in zip(some, values, strict=True) if value is not None}
        return found

    async def put(self, values: Mapping[str, bytes]) -> None:
        most = self._strategy.max_bytes
        fitting = [(key, value) for key, value in values.items() if len(check_key(key)) + len(value) <= most]
        ttl = _milliseconds(self._strategy.ttl)
        for some in _batches(fitting):
            with redis_errors():
                arguments = [self._now(), ttl, most, self._strategy.eviction, *chain.from_iterable(some)]
                await self._put(keys=_KEYS, args=arguments)

    async def drop(self, scope: str) -> None:
        pattern = f"{check_key(scope)}*"  # hexadecimal words have none of the signs that mean something here
        with redis_errors():
            found = [key.decode() async for key, _ in self._redis.zscan_iter(_ORDER, match=pattern, count=1000)]
        for some in _batches([key for key in found if covers(scope, key)]):
            with redis_errors():
                await self._drop(keys=_KEYS, args=list(some))

    def _now(self) -> int:
        return round(self._clock.now().timestamp() * 1000)


def _batches(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + _BATCH] for start in range(0, len(values), _BATCH)]


def _milliseconds(length: timedelta) -> int:
    return max(1, round(length.total_seconds() * 1000))


def _lua(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
