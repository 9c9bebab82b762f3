"""The connection to Redis that everybody shares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fleetest.master.queue.connection import connect
from fleetest.master.queue.embedded_redis import EmbeddedRedis
from fleetest.master.queue.wire import Wire


@pytest.fixture
async def redis(embedded_redis: EmbeddedRedis) -> AsyncIterator[Redis]:
    client = connect(embedded_redis.url)
    yield client
    await client.aclose()


async def test_answers_go_to_those_who_asked_though_one_of_them_is_gone(redis: Redis) -> None:
    wire = Wire(redis)
    await wire.call("PING")

    asked = [asyncio.create_task(wire.call("ECHO", word)) for word in ("a", "b", "c")]
    await asyncio.sleep(0)  # they are sent
    asked[1].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert (answers[0], type(answers[1]), answers[2]) == (b"a", asyncio.CancelledError, b"c")
    assert await wire.call_all([("ECHO", "d"), ("ECHO", "e")]) == [b"d", b"e"]


async def test_a_refused_command_fails_alone(redis: Redis) -> None:
    wire = Wire(redis)
    await wire.call("SET", "text", "a")

    refused, answered = await asyncio.gather(
        wire.call("LPUSH", "text", "b"), wire.call("GET", "text"), return_exceptions=True
    )

    assert isinstance(refused, ResponseError)
    assert answered == b"a"


async def test_commands_wait_for_nothing_when_their_connection_was_cut(redis: Redis) -> None:
    wire = Wire(redis)
    identity = await wire.call("CLIENT", "ID")

    await redis.execute_command("CLIENT", "KILL", "ID", identity)

    async with asyncio.timeout(5):
        assert await wire.call("CLIENT", "ID") != identity
