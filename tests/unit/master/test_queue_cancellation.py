"""A task that talks to Redis can be cancelled at any moment."""

from __future__ import annotations

import asyncio

import pytest

from fleetest.master.queue.connection import connect
from fleetest.master.queue.redis_secrets import RedisSecretStore
from tests.support.shared_redis import SharedRedis


async def test_no_cancellation_is_lost(embedded_redis: SharedRedis) -> None:
    client = connect(embedded_redis.url)
    secrets = RedisSecretStore(client)

    async def ask_for_ever() -> None:
        while True:
            await secrets.get("run")

    for steps in range(60):
        task = asyncio.create_task(ask_for_ever())
        for _ in range(steps % 12):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task
    await client.aclose()
