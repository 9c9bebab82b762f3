"""Puts the result cache together, as the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from redis.asyncio import Redis

from fleetest.common.clock import Clock
from fleetest.master.cache.file_layer import FileLayer
from fleetest.master.cache.layers import CacheLayer
from fleetest.master.cache.memory_layer import MemoryLayer
from fleetest.master.cache.redis_layer import RedisLayer
from fleetest.master.settings import MasterSettings

__all__ = ["open_layers", "usable_for"]


def open_layers(settings: MasterSettings, redis: Redis, clock: Clock) -> Sequence[CacheLayer]:
    """The layers that are not switched off, the fastest first."""
    layers: list[CacheLayer] = []
    if settings.cache_memory.max_bytes:
        layers.append(MemoryLayer(settings.cache_memory, clock))
    if settings.cache_redis.max_bytes:
        layers.append(RedisLayer(redis, settings.cache_redis, clock))
    directory = settings.cache_file_directory or _below(settings.data_directory)
    if settings.cache_file.max_bytes and directory is not None:
        layers.append(FileLayer(directory, settings.cache_file, clock))
    return layers


def usable_for(settings: MasterSettings) -> timedelta:
    """The longest time for which a layer may keep a result: nothing older is ever used."""
    return max(settings.cache_memory.ttl, settings.cache_redis.ttl, settings.cache_file.ttl)


def _below(directory: Path | None) -> Path | None:
    return directory / "result-cache" if directory is not None else None
