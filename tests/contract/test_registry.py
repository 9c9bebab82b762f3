"""What every worker registry promises. An adapter joins by adding how it is opened to `ADAPTERS`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from fleetest.common.errors import AlreadyExists, LeaseLost, NotFound
from fleetest.common.results import ResourceSample
from fleetest.common.tasks import Resources
from fleetest.master.queue.ports import Presence, WorkerRegistry
from fleetest.master.queue.redis_registry import RedisWorkerRegistry

ADAPTERS: dict[str, Callable[[Redis], WorkerRegistry]] = {"redis": RedisWorkerRegistry}

TTL = timedelta(minutes=1)
NOW = datetime.now(UTC)


@pytest.fixture(params=sorted(ADAPTERS))
def registry(request: pytest.FixtureRequest, redis: Redis) -> WorkerRegistry:
    return ADAPTERS[request.param](redis)


def worker(worker_id: str = "w1", **changes: Any) -> Presence:
    plain = Presence(
        worker_id=worker_id,
        session_id=f"{worker_id}-session",
        instance=f"{worker_id}-instance",
        version="1.2.3",
        hostname="build-7",
        capabilities={"os": "linux", "name": "ä"},
        capacity=Resources(cpu_millis=8000, memory_bytes=2**36, disk_bytes=2**40),
        slots=4,
        registered_at=NOW,
        last_seen_at=NOW,
        host=ResourceSample(at=NOW, cpu_cores=1.5, memory_bytes=7),
    )
    return replace(plain, **changes)


async def expired(registry: WorkerRegistry, worker_id: str) -> None:
    async with asyncio.timeout(10):
        while worker_id in await registry.live_sessions():
            await asyncio.sleep(0.002)


async def test_registered_worker_is_known_as_it_described_itself(registry: WorkerRegistry) -> None:
    replaced = await registry.register(worker(), lease_ttl=TTL)

    assert replaced is None
    assert await registry.get("w1") == worker()
    assert await registry.list() == [worker()]
    assert await registry.live_sessions() == {"w1": "w1-session"}


async def test_nobody_is_known_at_first(registry: WorkerRegistry) -> None:
    assert (await registry.get("w1"), await registry.list(), await registry.live_sessions()) == (None, [], {})


async def test_second_worker_with_the_same_id_is_refused_and_told_who_has_it(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)

    with pytest.raises(AlreadyExists) as refusal:
        await registry.register(worker(session_id="s2", instance="i2", hostname="elsewhere"), lease_ttl=TTL)

    assert "'w1'" in refusal.value.message
    assert "build-7" in refusal.value.message
    assert f"{NOW:%H:%M:%S}" in refusal.value.message
    assert refusal.value.hint
    assert await registry.get("w1") == worker()


async def test_only_one_of_many_simultaneous_workers_with_one_id_gets_it(registry: WorkerRegistry) -> None:
    rivals = [worker(session_id=f"s{i}", instance=f"i{i}") for i in range(10)]

    answers = await asyncio.gather(
        *(registry.register(rival, lease_ttl=TTL) for rival in rivals), return_exceptions=True
    )

    assert sorted(map(type, answers), key=str) == sorted([type(None), *[AlreadyExists] * 9], key=str)


async def test_same_instance_replaces_its_own_session(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)
    again = worker(session_id="s2")

    replaced = await registry.register(again, lease_ttl=TTL)

    assert replaced == worker()
    assert await registry.live_sessions() == {"w1": "s2"}
    with pytest.raises(LeaseLost, match="w1-session"):
        await registry.renew(worker(), lease_ttl=TTL)


async def test_repeated_registration_replaces_nothing(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)

    assert await registry.register(worker(), lease_ttl=TTL) is None


async def test_dead_session_is_answered_to_the_one_who_replaces_it(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=timedelta(milliseconds=1))
    await expired(registry, "w1")

    replaced = await registry.register(worker(session_id="s2", instance="i2"), lease_ttl=TTL)

    assert replaced == worker()


async def test_expired_session_cannot_be_renewed(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=timedelta(milliseconds=1))
    await expired(registry, "w1")

    with pytest.raises(LeaseLost):
        await registry.renew(worker(), lease_ttl=TTL)

    assert (await registry.list())[0].offline


async def test_heartbeat_keeps_the_session_and_updates_what_is_known(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=timedelta(seconds=2))
    busy = worker(slots_used=3, free=Resources(cpu_millis=1), ready=False, not_ready_reason="disk full")

    await registry.renew(busy, lease_ttl=TTL)

    assert await registry.get("w1") == busy


async def test_heartbeat_lengthens_the_lease(registry: WorkerRegistry) -> None:
    await registry.register(worker("short"), lease_ttl=timedelta(milliseconds=200))
    await registry.register(worker("renewed"), lease_ttl=timedelta(milliseconds=200))

    await registry.renew(worker("renewed"), lease_ttl=TTL)
    await expired(registry, "short")

    assert await registry.live_sessions() == {"renewed": "renewed-session"}


async def test_ended_session_is_over_at_once_and_may_be_ended_again(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)

    await registry.end("w1", "w1-session")
    await registry.end("w1", "w1-session")
    await registry.end("unknown", "s")

    assert await registry.live_sessions() == {}
    assert await registry.get("w1") == worker(offline=True)


async def test_late_goodbye_of_an_old_session_ends_nothing(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)
    await registry.register(worker(session_id="s2"), lease_ttl=TTL)

    await registry.end("w1", "w1-session")

    assert await registry.live_sessions() == {"w1": "s2"}


async def test_drained_worker_stays_drained_until_it_is_a_new_instance(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)

    await registry.drain("w1")
    await registry.renew(worker(), lease_ttl=TTL)
    await registry.register(worker(session_id="s2"), lease_ttl=TTL)
    same_instance = await registry.get("w1")
    listed = await registry.list()
    await registry.end("w1", "s2")
    await registry.register(worker(session_id="s3", instance="i2"), lease_ttl=TTL)
    new_instance = await registry.get("w1")

    assert same_instance == listed[0] == worker(session_id="s2", draining=True)
    assert new_instance == worker(session_id="s3", instance="i2")


async def test_unknown_worker_cannot_be_drained(registry: WorkerRegistry) -> None:
    with pytest.raises(NotFound, match="'ghost'"):
        await registry.drain("ghost")


async def test_list_is_sorted_and_forgets_whom_nobody_saw_for_a_day(registry: WorkerRegistry) -> None:
    long_ago = NOW - timedelta(days=2)
    await registry.register(worker("quiet", last_seen_at=long_ago), lease_ttl=TTL)
    await registry.register(worker("gone", last_seen_at=long_ago), lease_ttl=TTL)
    await registry.register(worker("away"), lease_ttl=TTL)
    await registry.end("gone", "gone-session")
    await registry.end("away", "away-session")

    listed = await registry.list()

    assert [(each.worker_id, each.offline) for each in listed] == [("away", True), ("quiet", False)]
    assert await registry.get("gone") is None


async def test_a_new_stream_takes_the_session_over_from_the_one_before(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)
    await registry.attach(worker(stream="a"), lease_ttl=TTL)
    await registry.attach(worker(stream="b"), lease_ttl=TTL)

    with pytest.raises(LeaseLost):
        await registry.renew(worker(stream="a"), lease_ttl=TTL)
    await registry.renew(worker(stream="b", slots_used=1), lease_ttl=TTL)

    assert await registry.get("w1") == worker(stream="b", slots_used=1)


async def test_no_stream_can_begin_in_a_session_that_is_over(registry: WorkerRegistry) -> None:
    await registry.register(worker(), lease_ttl=TTL)
    await registry.end("w1", "w1-session")

    with pytest.raises(LeaseLost):
        await registry.attach(worker(stream="a"), lease_ttl=TTL)


async def test_what_is_noted_of_a_worker_is_known_and_prolongs_nothing(registry: WorkerRegistry) -> None:
    for name in ("w1", "moved", "over"):
        await registry.register(worker(name), lease_ttl=timedelta(seconds=1))
        await registry.attach(worker(name, stream="a"), lease_ttl=timedelta(milliseconds=500))
    await registry.attach(worker("moved", stream="b"), lease_ttl=TTL)
    await registry.end("over", "over-session")

    await registry.note([worker(name, stream="a", slots_used=2) for name in ("w1", "moved", "over", "unknown")])

    assert {each.worker_id: each.slots_used for each in await registry.list()} == {"w1": 2, "moved": 0, "over": 0}
    await expired(registry, "w1")
