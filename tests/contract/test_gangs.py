"""What every shard queue promises of gangs: shards that are claimed together or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from fleetest.common.clock import ManualClock
from fleetest.common.tasks import Access, Resources, Use
from fleetest.master.queue.ports import Bid, Claim, QueueEntry, ShardQueue
from fleetest.master.queue.redis_ledger import RedisResourceLedger
from fleetest.master.queue.redis_queue import RedisShardQueue

OpenQueue = Callable[..., ShardQueue]

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CPU = Resources(cpu_millis=10)

ADAPTERS: dict[str, Callable[..., ShardQueue]] = {"redis": RedisShardQueue}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture(params=sorted(ADAPTERS))
def open_queue(request: pytest.FixtureRequest, redis: Redis, clock: ManualClock) -> OpenQueue:
    def open_one(**changes: timedelta) -> ShardQueue:
        settings = {"claim_ttl": MINUTE, "reserve_after": 5 * MINUTE, **changes}
        return ADAPTERS[request.param](redis, clock=clock, **settings)

    return open_one


@pytest.fixture
def queue(open_queue: OpenQueue) -> ShardQueue:
    return open_queue()


def entry(shard_id: str, **changes: Any) -> QueueEntry:
    defaults: dict[str, Any] = {
        "run_id": "run",
        "project": "site",
        "priority": 50,
        "enqueued_at": NOON,
        "resources": CPU,
    }
    return QueueEntry(shard_id=shard_id, **(defaults | changes))


def gang(size: int, name: str = "load", **changes: Any) -> list[QueueEntry]:
    return [entry(f"{name}#{number}", gang=size, **changes) for number in range(size)]


def bid(worker_id: str = "w", *, shards: int, slots: int = 0, cpu: int = 1000) -> Bid:
    room = Resources(cpu_millis=cpu)
    return Bid(worker_id=worker_id, capabilities={}, shards=shards, slots=max(slots, shards), free=room, capacity=room)


def shards_of(claims: Sequence[Claim]) -> list[str]:
    return sorted(claim.entry.shard_id for claim in claims)


ALL_FOUR = ["load#0", "load#1", "load#2", "load#3"]


async def test_a_gang_is_spread_over_several_workers_with_enough_slots(queue: ShardQueue) -> None:
    members = gang(4)
    await queue.enqueue(members)

    claims = await queue.claim([bid("u", shards=1), bid("v", shards=5), bid("w", shards=5)])

    assert sorted((claim.entry for claim in claims), key=lambda each: each.shard_id) == members
    assert Counter(claim.worker_id for claim in claims) == {"u": 1, "v": 2, "w": 1}
    assert await queue.waiting("run") == set(ALL_FOUR)
    await queue.confirm(claims)
    assert (await queue.waiting("run"), await queue.depth()) == (frozenset(), 0)


async def test_a_gang_that_has_no_room_for_all_takes_none_and_lets_others_run(queue: ShardQueue) -> None:
    await queue.enqueue([*gang(4), entry("small#0", enqueued_at=NOON + MINUTE)])

    claims = await queue.claim([bid("v", shards=2), bid("w", shards=9, cpu=15)])

    assert (shards_of(claims), claims.gang_waits) == (["small#0"], True)
    assert shards_of(await queue.claim([bid("v", shards=4)])) == ALL_FOUR


async def test_a_gang_comes_before_what_comes_after_it(queue: ShardQueue) -> None:
    await queue.enqueue([*gang(2), *(entry(f"small#{i}", enqueued_at=NOON + MINUTE) for i in range(9))])

    claims = await queue.claim([bid("v", shards=2), bid("w", shards=1)])

    assert shards_of(claims) == ["load#0", "load#1", "small#0"]


async def test_an_aged_gang_keeps_the_slots_that_become_free(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue(gang(4))
    clock.advance(6 * MINUTE)
    await queue.enqueue([entry(f"small#{i}", priority=99, enqueued_at=clock.now()) for i in range(9)])
    both = [bid("v", shards=1, slots=2), bid("w", shards=0, slots=3), bid("x", shards=2, slots=9, cpu=29)]

    first = await queue.claim(both)
    second = await queue.claim([bid("v", shards=2), bid("w", shards=1, slots=3)])
    third = await queue.claim([bid("v", shards=2), bid("w", shards=3), bid("x", shards=2, slots=9, cpu=29)])

    assert (shards_of(first), shards_of(second)) == ([], ["small#0"])
    assert set(ALL_FOUR) < set(shards_of(third))
    assert Counter(claim.entry.shard_id[:5] for claim in third) == {"load#": 4, "small": 3}


async def test_a_gang_that_no_workers_could_ever_take_together_reserves_nothing(
    queue: ShardQueue, clock: ManualClock
) -> None:
    await queue.enqueue(gang(4))
    clock.advance(6 * MINUTE)
    await queue.enqueue([entry(f"small#{i}", enqueued_at=clock.now()) for i in range(9)])

    claims = await queue.claim([bid("v", shards=1, slots=2), bid("w", shards=1, cpu=15, slots=9)])

    assert len(claims) == 2


async def test_reservations_of_a_gang_end_with_it(queue: ShardQueue, clock: ManualClock) -> None:
    await queue.enqueue(gang(4))
    clock.advance(6 * MINUTE)
    await queue.claim([bid("v", shards=1, slots=2), bid("w", shards=0, slots=2)])
    await queue.remove("run")
    await queue.enqueue([entry("small#0"), entry("small#1")])

    assert shards_of(await queue.claim([bid("v", shards=1, slots=2), bid("w", shards=1, slots=2)])) == [
        "small#0",
        "small#1",
    ]


@pytest.mark.parametrize("how", ["release", "expire"])
async def test_a_gang_whose_claims_come_to_nothing_waits_again_as_one(open_queue: OpenQueue, how: str) -> None:
    ours, theirs = open_queue(claim_ttl=timedelta(0)), open_queue()
    await ours.enqueue(gang(4))
    claims = await ours.claim([bid(shards=4)])

    if how == "release":
        await theirs.release(claims)
    else:
        await theirs.return_expired()

    assert shards_of(await theirs.claim([bid(shards=3)])) == []
    assert shards_of(await theirs.claim([bid(shards=4)])) == ALL_FOUR


async def test_a_gang_of_which_something_is_still_claimed_waits_for_it(open_queue: OpenQueue) -> None:
    queue = open_queue()
    await queue.enqueue(gang(4))
    claims = await queue.claim([bid(shards=4)])
    await queue.release([claim for claim in claims if claim.entry.shard_id != "load#2"])

    assert await queue.claim([bid(shards=9)]) == []

    await queue.release(claims)
    assert shards_of(await queue.claim([bid(shards=9)])) == ALL_FOUR


async def test_a_gang_of_which_a_part_was_lost_is_whole_once_it_is_enqueued_again(queue: ShardQueue) -> None:
    await queue.enqueue(gang(4))
    for lost in ("load#0", "load#2"):
        await queue.remove("run", [lost])
        assert await queue.claim([bid(shards=9)]) == []

        await queue.enqueue(gang(4))
        claims = await queue.claim([bid(shards=9)])
        assert shards_of(claims) == ALL_FOUR
        await queue.release(claims)


async def test_a_gang_waits_for_the_longest_of_its_delays(queue: ShardQueue, clock: ManualClock) -> None:
    members = gang(2)
    await queue.enqueue([members[0], *gang(2, not_before=NOON + MINUTE)[1:]])
    assert await queue.claim([bid(shards=9)]) == []

    clock.advance(MINUTE)

    assert shards_of(await queue.claim([bid(shards=9)])) == ["load#0", "load#1"]


async def test_a_gang_needs_what_all_of_its_shards_take_of_a_pool(queue: ShardQueue, redis: Redis) -> None:
    ledger = RedisResourceLedger(redis)
    await ledger.restore([], recovery=await ledger.recover())
    seats = Use(resource="seats", access=Access.COUNTED, amount=2, size=9)
    await queue.enqueue([entry("one#0", uses=(seats,), enqueued_at=NOON - MINUTE)])
    first = await queue.claim([bid(shards=1)])
    await queue.enqueue(gang(4, uses=(seats,)))

    assert await queue.claim([bid(shards=9)]) == []

    await queue.release(first)
    await queue.remove("run", ["one#0"])
    claims = await queue.claim([bid(shards=9)])
    assert shards_of(claims) == ALL_FOUR
    assert len((await ledger.view()).holds) == 4
