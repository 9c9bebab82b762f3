"""The fastest layer: this process's memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cachetools

from fleetest.common.clock import Clock
from fleetest.master.cache.layers import CacheStrategy, Eviction, covers

__all__ = ["MemoryLayer"]


@dataclass(frozen=True, slots=True)
class _Value:
    content: bytes
    size: int
    expires: float


class MemoryLayer:
    """Fulfils `CacheLayer`; gone with the process."""

    name = "memory"

    def __init__(self, strategy: CacheStrategy, clock: Clock) -> None:
        self._ttl_seconds = strategy.ttl.total_seconds()
        self._clock = clock
        self._values = _KINDS[strategy.eviction](strategy.max_bytes, getsizeof=lambda value: value.size)

    async def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        now = self._clock.monotonic()
        found = {}
        for key in keys:
            value = self._values.get(key)
            if value is None:
                continue
            if value.expires > now:
                found[key] = value.content
            else:
                del self._values[key]
        return found

    async def put(self, values: Mapping[str, bytes]) -> None:
        expires = self._clock.monotonic() + self._ttl_seconds
        for key, content in values.items():
            value = _Value(content, sys.getsizeof(content) + sys.getsizeof(key), expires)
            self._values.pop(key, None)  # put anew: it is the newest from now on
            if value.size <= self._values.maxsize:
                self._values[key] = value

    async def drop(self, scope: str) -> None:
        for key in [key for key in self._values if covers(scope, key)]:
            del self._values[key]


_KINDS: Final[Mapping[Eviction, type[cachetools.Cache[str, _Value]]]] = {
    Eviction.LRU: cachetools.LRUCache,
    Eviction.FIFO: cachetools.FIFOCache,
    Eviction.RANDOM: cachetools.RRCache,
}
