"""Redis dies, comes back, or forgets everything; coordination goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from fleetest.common.clock import ManualClock
from fleetest.common.errors import DependencyUnavailable, LeaseLost
from fleetest.common.tasks import Resources
from fleetest.master.queue.capabilities import queue_name
from fleetest.master.queue.connection import connect
from fleetest.master.queue.ports import Bid, CommitNotice, Presence, QueueEntry
from fleetest.master.queue.redis_feed import RedisCommitFeed
from fleetest.master.queue.redis_queue import RedisShardQueue
from fleetest.master.queue.redis_registry import RedisWorkerRegistry
from tests.support.shared_redis import SharedRedis

NOW = datetime.now(UTC)
LINUX = {"os": "linux"}
BID = Bid(worker_id="w", capabilities=LINUX, shards=9, free=Resources(), capacity=Resources())


@pytest.fixture
def server(embedded_redis: SharedRedis) -> SharedRedis:
    return embedded_redis


@pytest.fixture
async def redis(server: SharedRedis) -> AsyncIterator[Redis]:
    client = connect(server.url)
    yield client
    await client.aclose()


@pytest.fixture
def queue(redis: Redis) -> RedisShardQueue:
    minute = timedelta(minutes=1)
    return RedisShardQueue(redis, claim_ttl=minute, reserve_after=minute, clock=ManualClock(NOW))


def entry(shard_id: str) -> QueueEntry:
    return QueueEntry(run_id="run", shard_id=shard_id, project="p", priority=50, enqueued_at=NOW, requirements=LINUX)


def worker() -> Presence:
    return Presence(
        worker_id="w",
        session_id="s",
        instance="i",
        version="1",
        hostname="h",
        capabilities={},
        capacity=Resources(),
        slots=1,
        registered_at=NOW,
        last_seen_at=NOW,
    )


async def kill(server: SharedRedis) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert await server.wait() == -signal.SIGKILL


async def outage_is_felt(queue: RedisShardQueue) -> None:
    """Returns once a client that began to try now, and one that begins to try after it, have given up."""
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            await queue.depth()


async def test_every_operation_works_from_empty_after_redis_forgot_everything(
    redis: Redis, queue: RedisShardQueue
) -> None:
    await queue.enqueue([entry("a"), entry("b")])
    claims = await queue.claim([BID])
    await redis.flushall()
    await redis.script_flush()

    await queue.confirm(claims[:1])
    await queue.release(claims)
    await queue.remove("run")
    assert (await queue.return_expired(), await queue.depth(), await queue.place("run", "a")) == (0, 0, None)
    assert await queue.claim([BID]) == []

    await queue.enqueue([entry("b")])
    assert [claim.entry.shard_id for claim in await queue.claim([BID])] == ["b"]


async def test_worker_whose_session_redis_forgot_registers_again(redis: Redis) -> None:
    registry = RedisWorkerRegistry(redis)
    await registry.register(worker(), lease_ttl=timedelta(minutes=1))
    await redis.flushall()

    with pytest.raises(LeaseLost):
        await registry.renew(worker(), lease_ttl=timedelta(minutes=1))
    await registry.register(worker(), lease_ttl=timedelta(minutes=1))

    assert await registry.live_sessions() == {"w": "s"}


async def test_entry_whose_record_is_lost_does_not_stop_the_others(redis: Redis, queue: RedisShardQueue) -> None:
    await queue.enqueue([entry("a"), entry("b")])
    await redis.hdel("fleetest:{0}:2:entries", "run/a")

    claims = await queue.claim([BID])

    assert [claim.entry.shard_id for claim in claims] == ["b"]


async def test_operations_say_that_redis_is_away_and_work_when_it_is_back(
    server: SharedRedis, queue: RedisShardQueue, redis: Redis
) -> None:
    feed, registry = RedisCommitFeed(redis), RedisWorkerRegistry(redis)
    await queue.enqueue([entry("a")])
    await kill(server)

    answers = await asyncio.gather(
        queue.enqueue([entry("b")]),
        queue.claim([BID]),
        queue.depth(),
        queue.waiting("run"),
        queue.place("run", "a"),
        queue.return_expired(),
        feed.publish([CommitNotice(run_id="r", position=1, events=None)]),
        registry.register(worker(), lease_ttl=timedelta(minutes=1)),
        registry.list(),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [DependencyUnavailable] * 9
    await server.start()
    await queue.enqueue([entry("b")])
    assert "b" in [claim.entry.shard_id for claim in await queue.claim([BID])]


async def test_dispatcher_is_woken_after_redis_came_back(server: SharedRedis, queue: RedisShardQueue) -> None:
    wakeups = queue.wakeups()
    await anext(wakeups)
    after = asyncio.ensure_future(anext(wakeups))

    await kill(server)
    await outage_is_felt(queue)
    assert not after.done()
    await server.start()
    async with asyncio.timeout(20):
        await after
        await queue.enqueue([entry("a")])
        await anext(wakeups)

    await wakeups.aclose()


async def test_subscriber_goes_on_after_redis_came_back(
    server: SharedRedis, redis: Redis, queue: RedisShardQueue
) -> None:
    feed = RedisCommitFeed(redis)
    first, second = (CommitNotice(run_id="r", position=position, events=b"x") for position in (1, 2))
    notices = feed.notices()
    await anext(notices)
    await feed.publish([first])
    assert await anext(notices) == [first]
    after = asyncio.ensure_future(anext(notices))

    await kill(server)
    await outage_is_felt(queue)
    await server.start()
    await feed.publish([second])

    told: list[CommitNotice] = []
    async with asyncio.timeout(20):
        told += await after
        while not told:
            told += await anext(notices)
    assert told[-1] == second
    await notices.aclose()


async def test_reservation_lasts_as_long_as_its_worker_bids(redis: Redis) -> None:
    clock, second = ManualClock(NOW), timedelta(seconds=1)
    queue = RedisShardQueue(redis, claim_ttl=second, reserve_after=second, clock=clock)
    large = Resources(cpu_millis=9)
    await queue.enqueue([msgspec.structs.replace(entry("large"), resources=large)])
    clock.advance(2 * second)
    records: list[Any] = []
    for _ in range(2):
        assert await queue.claim([replace(BID, capacity=large)]) == []
        records.append(await redis.hget("fleetest:{0}:2:reservations", "run/large"))

    (worker, first, *_), (same, second_time, *_) = (msgspec.msgpack.decode(raw) for raw in records)

    assert (worker, same) == ("w", "w")
    assert second_time > first


async def test_queue_that_nobody_used_for_long_is_forgotten(redis: Redis, queue: RedisShardQueue) -> None:
    await queue.enqueue([entry("a")])
    await queue.confirm(await queue.claim([BID]))
    await queue.return_expired()
    kept = await redis.hlen("fleetest:{0}:2:queues")
    await redis.zadd("fleetest:{0}:2:used", {queue_name(LINUX, "p"): (NOW - timedelta(days=2)).timestamp()})

    await queue.return_expired()

    assert (kept, await redis.hlen("fleetest:{0}:2:queues"), await redis.zcard("fleetest:{0}:2:used")) == (1, 0, 0)
    await queue.enqueue([entry("a")])
    assert len(await queue.claim([BID])) == 1


async def test_old_queue_with_entries_is_kept(redis: Redis, queue: RedisShardQueue) -> None:
    await queue.enqueue([entry("a")])
    await redis.zadd("fleetest:{0}:2:used", {queue_name(LINUX, "p"): 0})

    await queue.return_expired()

    assert len(await queue.claim([BID])) == 1


async def test_tags_of_projects_do_not_pile_up(redis: Redis, queue: RedisShardQueue) -> None:
    await redis.hset("fleetest:{0}:2:fair", mapping={f"old:{i}": 1 for i in range(50_001)})
    await queue.enqueue([entry("a")])

    await queue.claim([BID])

    assert await redis.hlen("fleetest:{0}:2:fair") == 2
