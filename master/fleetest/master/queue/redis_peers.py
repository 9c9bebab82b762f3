"""Between the masters: one channel of Redis's publish and subscribe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Final

import msgspec
from redis.asyncio import Redis

from fleetest.common.backoff import Backoff
from fleetest.common.errors import DependencyUnavailable
from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.ports import PeerWord

__all__ = ["RedisPeerChannel"]

_CHANNEL: Final = "fleetest:{peers}:words"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PeerWord).decode


class RedisPeerChannel:
    """Fulfils `PeerChannel`. Databases of one Redis share their channels, so strangers' words may come, too."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def tell(self, word: PeerWord) -> None:
        with redis_errors():
            await self._redis.publish(_CHANNEL, _encode(word))

    async def words(self) -> AsyncGenerator[PeerWord, None]:
        backoff = Backoff(first=timedelta(milliseconds=50), longest=timedelta(seconds=2))
        failures = 0
        while True:
            try:
                async with aclosing(self._messages()) as messages:
                    async for word in messages:
                        failures = 0
                        yield word
            except DependencyUnavailable:
                failures += 1
                await asyncio.sleep(backoff.delay(failures).total_seconds())

    async def _messages(self) -> AsyncGenerator[PeerWord, None]:
        with redis_errors():
            async with self._redis.pubsub() as subscription:
                await subscription.subscribe(_CHANNEL)
                while True:
                    message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
                    if message is not None and (word := _understood(message["data"])) is not None:
                        yield word


def _understood(data: bytes) -> PeerWord | None:
    """Another version of Fleetest may say what this one does not know."""
    try:
        return _decode(data)
    except msgspec.MsgspecError:
        return None
