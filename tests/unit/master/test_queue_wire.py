"""The connection to Redis that everybody shares."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fleetest.master.queue.connection import connect
from fleetest.master.queue.wire import Wire
from tests.support.certificates import Authority, Pair
from tests.support.shared_redis import SharedRedis


@pytest.fixture
async def redis(embedded_redis: SharedRedis) -> AsyncIterator[Redis]:
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


async def test_wire_may_be_encrypted(embedded_redis: SharedRedis, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with encrypting(embedded_redis, authority.issue()) as port:
        client = connect(f"rediss://localhost:{port}?ssl_ca_certs={authority.ca}")
        wire = Wire(client)

        answers = await asyncio.gather(*(wire.call("ECHO", "a" * size) for size in (1, 100_000, 2)))
        await client.aclose()

    assert [len(answer) for answer in answers] == [1, 100_000, 2]


@asynccontextmanager
async def encrypting(redis: SharedRedis, pair: Pair) -> AsyncIterator[int]:
    """A port on which Redis is reached by TLS; the one that we bring along speaks none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(redis.url.removeprefix("unix://"))
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    async with await asyncio.start_server(serve, "localhost", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
